"""Ports: the notary's key, and checking what it signed (EV-32)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.audit import NoteKey

__all__ = ["Signer", "Verifier"]


class Signer(Protocol):
    """Holds the private key. It exists in the notary, and where a person accepts a loss, and nowhere else."""

    @property
    def key(self) -> NoteKey:
        """The public half, by which others check. ConfigError when the key cannot be read or must not be trusted."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The Ed25519 signature over the message, 64 bytes (RFC 8032)."""
        ...

    @property
    def handovers(self) -> Sequence[str]:
        """The notes of the checkpoints that retired the keys before this one."""
        ...

    @property
    def successor(self) -> Signer | None:
        """The key that a person has asked to have in place of this one; None most of the time."""
        ...

    def succeed(self, handover: str) -> None:
        """The successor is the key now. Done again, it changes nothing.

        Args:
            handover: the note of the checkpoint that both have signed, and that can be found already.
        """
        ...


class Verifier(Protocol):
    """Checks signatures."""

    def check(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether it is the signature of this public key (32 bytes) over the message; False for any malformed input."""
        ...
