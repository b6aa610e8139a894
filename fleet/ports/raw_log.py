"""Port: the log as bytes, for those who check it and therefore trust nothing that it says (EV-32)."""

from __future__ import annotations

from typing import Protocol

from fleet.audit import RawEntry
from fleet.events import Head
from fleet.ids import StreamId

__all__ = ["RawLog"]


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
