"""In-memory twin of the port RawLog."""

from __future__ import annotations

from fleet.adapters.memory.log import MemoryEventLog
from fleet.audit import RawEntry, raw_entry
from fleet.events import Head
from fleet.ids import StreamId

__all__ = ["MemoryRawLog"]


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
        found = {stream for stream in await self._log.streams() if stream not in self.tampered}
        return sorted(found | {stream for stream, entries in self.tampered.items() if entries})

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
