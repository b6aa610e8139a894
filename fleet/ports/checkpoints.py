"""Ports: where signed checkpoints and accepted losses are kept, in the log's server and outside of it (EV-9, EV-19)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.audit import SignedCheckpoint
from fleet.ids import Digest

__all__ = ["CheckpointExport", "CheckpointStore", "StoredNote"]


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
