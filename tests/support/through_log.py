"""An event log that hands every call on; what a test wants to see or to break, it overrides."""

from __future__ import annotations

from fleet.events.envelope import Head, StoredEvent
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog


class ThroughLog:
    """Implements `EventLog` by another one."""

    def __init__(self, inner: EventLog) -> None:
        self._inner = inner

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        return await self._inner.append(request)

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return await self._inner.read(stream, after=after, limit=limit)

    async def head(self, stream: StreamId) -> Head:
        """See `EventLog.head`."""
        return await self._inner.head(stream)

    async def open_streams(self) -> list[StreamId]:
        """See `EventLog.open_streams`."""
        return await self._inner.open_streams()

    async def streams(self) -> list[StreamId]:
        """See `EventLog.streams`."""
        return await self._inner.streams()

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """See `EventLog.refuse`."""
        await self._inner.refuse(stream, reason=reason)

    async def refused(self) -> dict[StreamId, str]:
        """See `EventLog.refused`."""
        return await self._inner.refused()

    async def accept_loss(self, stream: StreamId) -> None:
        """See `EventLog.accept_loss`."""
        await self._inner.accept_loss(stream)

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """See `EventLog.commands`."""
        return await self._inner.commands(stream)

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """See `EventLog.erase`."""
        await self._inner.erase(stream, expected=expected)
