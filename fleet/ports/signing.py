"""Ports: the notary's key, and checking what it signed (EV-32)."""

from __future__ import annotations

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


class Verifier(Protocol):
    """Checks signatures."""

    def check(self, public: bytes, message: bytes, signature: bytes) -> bool:
        """Whether it is the signature of this public key (32 bytes) over the message; False for any malformed input."""
        ...
