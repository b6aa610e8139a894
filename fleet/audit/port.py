"""The ports of the audit: checkpoints, raw log, signing keys, witnesses, losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.audit.chain import RawEntry
from fleet.audit.checkpoint import SignedCheckpoint
from fleet.audit.loss import Loss
from fleet.audit.note import NoteKey
from fleet.events.envelope import Head
from fleet.kernel.ids import CommandId, Digest, Principal, StreamId


@dataclass(frozen=True, slots=True)
class StoredNote:
    """The signed note that is kept as number `sequence`. Nothing in it is verified."""

    sequence: int
    note: str


class CheckpointStore(Protocol):
    """Signed checkpoints beside the log: each sequence is written once, in order, without gaps.

    It decides which of two notaries was first. Of the lists of heads only the newest is kept here.
    """

    async def append(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The checkpoint is on disk as number `sequence`, one above the last; the same one again changes nothing.

        Raises VersionConflict when another checkpoint has this number, or the number before it is not the last one.
        StoreUnavailable, StoreFull, CommitUnknown as in EventLog.append.
        """
        ...

    async def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint with its heads; None when there is none.

        LogCorrupted when what is stored has not the form of one.
        """
        ...

    async def notes(self, *, after: int = 0, limit: int | None = None) -> list[StoredNote]:
        """The notes of the sequences above `after`, in order, at most `limit`."""
        ...

    async def add_loss(self, note: str) -> None:
        """The signed record is on disk; the same one again changes nothing."""
        ...

    async def losses(self) -> list[str]:
        """Every record that was added, in the order in which they were."""
        ...


class CheckpointExport(Protocol):
    """Copies outside of the log's server, with all heads; nothing in it is ever changed or removed."""

    async def write(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The copy is on disk; the same one again changes nothing. LogCorrupted when another one has this number."""
        ...

    async def sequences(self) -> list[int]:
        """The numbers that are there, in order; there may be gaps."""
        ...

    async def read(self, sequence: int) -> SignedCheckpoint:
        """One copy. ArtifactNotFound when there is none, InvalidInput when it has not the form of one."""
        ...

    async def add_loss(self, note: str, *, loss: Digest) -> None:
        """The signed record is on disk under its digest; the same one again changes nothing."""
        ...

    async def losses(self) -> list[str]:
        """Every record that is there."""
        ...


@dataclass(frozen=True, slots=True)
class AcceptedLoss:
    """The record; `is_new` is False when the same loss was accepted before."""

    loss: Loss
    is_new: bool


class Losses(Protocol):
    """Accepts losses with the notary's key, which stays where the notary is."""

    async def accept(
        self, stream: StreamId, *, by: Principal, reason: str, command_id: CommandId | None = None
    ) -> AcceptedLoss:
        """The stream takes appends again from its present head; checkpoints no longer demand what is gone.

        The record is signed and kept in both places before the stream is opened; a crash in between leaves it refused,
        and asking again goes on. A command that was carried out accepts nothing further, whatever was lost since.

        Raises:
            InvalidInput: the reason is too short or too long.
            InvalidTransition: nothing of the stream was lost.
            LogCorrupted: what is left of the stream is damaged in itself; a backup has to be restored first.
            StoreUnavailable, StoreFull, CommitUnknown: repeat it.
        """
        ...


class RawLog(Protocol):
    """Reads what is stored, damaged or not; no answer raises LogCorrupted."""

    async def held(self) -> list[StreamId]:
        """Streams of which there are entries, sorted, found by looking at what is stored."""
        ...

    async def listed(self) -> list[StreamId]:
        """Streams that the log's own list names, sorted."""
        ...

    async def entries(self, stream: StreamId, *, after: int = 0, limit: int) -> list[RawEntry]:
        """Entries whose id is above `<after>-0`, in the order of their ids, at most `limit`."""
        ...

    async def head(self, stream: StreamId) -> Head | None:
        """What the record of the head says; None when there is none or it has not the form of one."""
        ...


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


class Witness(Protocol):
    """The heads that the newest exported checkpoint commits to. A log below them went back in time."""

    async def attested(self, stream: StreamId) -> Head | None:
        """Version and hash that the stream is known to have reached (epoch 0); None when no checkpoint names it."""
        ...
