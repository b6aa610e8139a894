"""The audit's stores in memory, for unit tests and the simulation."""

from __future__ import annotations

from fleet.audit.attested import attested_heads
from fleet.audit.chain import RawEntry, raw_entry
from fleet.audit.checkpoint import SignedCheckpoint
from fleet.audit.loss import parse_loss
from fleet.audit.note import note_text
from fleet.audit.port import StoredNote
from fleet.audit.rules import another, not_next
from fleet.events.envelope import Head
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest, StreamId
from fleet.log.memory import MemoryEventLog


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
        notes = [StoredNote(number, signed.note) for number, signed in enumerate(self.kept, start=1) if number > after]
        return notes if limit is None else notes[:limit]

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


class MemoryRawLog:
    """The entries of a MemoryEventLog as bytes. Implements the port RawLog."""

    def __init__(self, log: MemoryEventLog) -> None:
        self._log = log
        self.tampered: dict[StreamId, list[RawEntry]] = {}
        """What stands in the place of a stream's entries: for tests of those who check."""
        self.heads: dict[StreamId, Head | None] = {}
        """What stands in the place of a stream's head."""
        self.unlisted: set[StreamId] = set()
        """Streams that the list leaves out."""

    async def held(self) -> list[StreamId]:
        """Streams of which there are entries, sorted."""
        streams = {stream for stream in await self._log.streams() if stream not in self.tampered}
        return sorted(streams | {stream for stream, entries in self.tampered.items() if entries})

    async def listed(self) -> list[StreamId]:
        """Streams that the log's own list names, sorted."""
        return [stream for stream in await self._log.streams() if stream not in self.unlisted]

    async def entries(self, stream: StreamId, *, after: int = 0, limit: int) -> list[RawEntry]:
        """Entries whose id is above `<after>-0`, at most `limit`."""
        if stream not in self.tampered:
            return [raw_entry(event) for event in await self._log.read(stream, after=after, limit=limit)]
        return [e for e in self.tampered[stream] if int(e.entry_id.split("-")[0]) > after][:limit]

    async def head(self, stream: StreamId) -> Head | None:
        """What the record of the head says."""
        if stream in self.heads:
            return self.heads[stream]
        head = await self._log.head(stream)
        return head if head.version else None


class MemoryWitness:
    """The heads of the newest exported checkpoint. Implements the port Witness.

    Args:
        export: where a notary writes; None when only `heads` is to be asked.
    """

    def __init__(self, export: MemoryCheckpointExport | None = None) -> None:
        self._export = export
        self.heads: dict[StreamId, Head] = {}
        """What is attested besides; a test may set it."""

    async def attested(self, stream: StreamId) -> Head | None:
        """Version and hash that the stream is known to have reached (epoch 0)."""
        if stream in self.heads or self._export is None:
            return self.heads.get(stream)
        sequences = await self._export.sequences()
        if not sequences:
            return None
        losses = [parse_loss(note_text(note)) for note in await self._export.losses()]
        newest = await self._export.read(sequences[-1])
        return attested_heads(newest.leaves, losses, sequence=sequences[-1]).get(stream)
