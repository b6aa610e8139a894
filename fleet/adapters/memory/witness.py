"""In-memory twin of the port Witness."""

from __future__ import annotations

from fleet.adapters.memory.checkpoints import MemoryCheckpointExport
from fleet.audit import attested_heads, note_text, parse_loss
from fleet.events import Head
from fleet.ids import StreamId

__all__ = ["MemoryWitness"]


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
