"""In-memory twins of the ports CheckpointStore and CheckpointExport."""

from __future__ import annotations

from fleet.adapters.checkpointing import another, not_next
from fleet.audit import SignedCheckpoint
from fleet.errors import ArtifactNotFound
from fleet.ids import Digest
from fleet.ports import StoredNote

__all__ = ["MemoryCheckpointExport", "MemoryCheckpointStore"]


class MemoryCheckpointStore:
    """Checkpoints kept as long as the object. Implements the port CheckpointStore."""

    def __init__(self) -> None:
        self.kept: list[SignedCheckpoint] = []
        """Number `n` stands at `n - 1`; a test may damage it."""
        self._losses: list[str] = []

    async def append(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The checkpoint is kept as number `sequence`, one above the last."""
        if sequence == len(self.kept) and self.kept[-1].note == signed.note:
            return
        if sequence != len(self.kept) + 1:
            raise not_next(sequence, last=len(self.kept))
        self.kept.append(signed)

    async def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint with its heads."""
        return self.kept[-1] if self.kept else None

    async def notes(self, *, after: int = 0, limit: int | None = None) -> list[StoredNote]:
        """The notes of the sequences above `after`, in order."""
        found = [StoredNote(number, signed.note) for number, signed in enumerate(self.kept, start=1) if number > after]
        return found if limit is None else found[:limit]

    async def add_loss(self, note: str) -> None:
        """The signed record is kept, once."""
        if note not in self._losses:
            self._losses.append(note)

    async def losses(self) -> list[str]:
        """Every record that was added, in order."""
        return list(self._losses)


class MemoryCheckpointExport:
    """Copies kept as long as the object. Implements the port CheckpointExport."""

    def __init__(self) -> None:
        self.copies: dict[int, SignedCheckpoint] = {}
        """By sequence; a test may damage it."""
        self._losses: dict[Digest, str] = {}

    async def write(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The copy is kept."""
        if self.copies.setdefault(sequence, signed) != signed:
            raise another(sequence)

    async def sequences(self) -> list[int]:
        """The numbers that are there, in order."""
        return sorted(self.copies)

    async def read(self, sequence: int) -> SignedCheckpoint:
        """One copy."""
        if sequence not in self.copies:
            raise ArtifactNotFound(f"checkpoint {sequence} was not exported", sequence=sequence)
        return self.copies[sequence]

    async def add_loss(self, note: str, *, loss: Digest) -> None:
        """The signed record is kept under its digest."""
        self._losses.setdefault(loss, note)

    async def losses(self) -> list[str]:
        """Every record that is there."""
        return list(self._losses.values())
