"""What one reader of a stream has not read yet, never more than a bound (EV-24, AP-103)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

from fleet.events.envelope import StoredEvent

Happening = StoredEvent | None
"""An event; None when nothing happened for a while."""


class Backlog:
    """A queue between what is recorded and one reader, who is let go when it is full of what came meanwhile.

    What was recorded before the reader came is read at the reader's own pace. Nothing is lost by letting go: the log
    holds every event, and the reader comes again with the last id that it has.

    Args:
        most: events that may wait for the reader.
        since_ms: when the reader came.
        overflowed: that of another backlog of the same reader, who is let go with any of them.
    """

    def __init__(self, most: int, *, since_ms: int, overflowed: asyncio.Event | None = None) -> None:
        self.most, self._since_ms = most, since_ms
        self._waiting = deque[Happening]()
        self._came, self._left = asyncio.Event(), asyncio.Event()
        self.overflowed = overflowed or asyncio.Event()
        """Set when the reader was too slow: what waited for it is forgotten, and nothing more comes."""

    async def through(self, source: AsyncIterator[Happening]) -> AsyncGenerator[Happening]:
        """What the source has to tell, until the reader is let go. Raises what the source raises."""
        feeding = asyncio.create_task(self._fed(source), name="events of a stream")
        feeding.add_done_callback(lambda _: self._came.set())
        try:
            while True:
                while self._waiting:
                    happening = self._waiting.popleft()
                    self._left.set()
                    yield happening
                if feeding.done():
                    feeding.result()
                    return
                self._came.clear()
                await self._came.wait()
        finally:
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await feeding

    async def _fed(self, source: AsyncIterator[Happening]) -> None:
        async for happening in source:
            # A reader that still has something to read needs no sign of life.
            if happening is None and self._waiting:
                continue
            if happening is not None and not await self._has_room(happening):
                return
            self._waiting.append(happening)
            self._came.set()
            # A reader that waits has its turn after each event: only one that does not read is behind.
            await asyncio.sleep(0)

    async def _has_room(self, event: StoredEvent) -> bool:
        while len(self._waiting) >= self.most:
            if event.ts_ms >= self._since_ms:
                self._waiting.clear()
                self.overflowed.set()
                return False
            self._left.clear()
            await self._left.wait()
        return True
