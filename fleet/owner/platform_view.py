"""What the platform's stream says now, for everybody in a process who has to keep to it (PL-50, LC-77).

The log is asked, not remembered hints: looking at the head of one stream is cheap beside any step, and a hint may be
lost (EV-20). So a pause holds from the moment it is recorded, for a shard that starts later too.
"""

from __future__ import annotations

import asyncio

from fleet.log.port import EventLog, Feed
from fleet.planning.platform_state import PLATFORM, FleetPause, PlatformState, fold_platform

SWEEP_S = 30.0
"""Between two looks of who waits for the end of a pause; its hint comes sooner, unless it is lost."""


class PlatformView:
    """Reads the platform's stream; each read costs one look at its head, and the events since the last."""

    def __init__(self, log: EventLog, feed: Feed) -> None:
        self._log, self._feed = log, feed
        self._state, self._hash = PlatformState(), ""
        # Of many who look at the same time one reads, and the state never goes back to an older one.
        self._reading = asyncio.Lock()

    async def state(self) -> PlatformState:
        """The platform as recorded now. StoreUnavailable."""
        head = await self._log.head(PLATFORM)
        if head.hash == self._hash or not head.version:
            return self._state if head.version else PlatformState()
        async with self._reading:
            events = await self._log.read(PLATFORM, after=self._state.version)
            if events and events[0].prev_hash == self._hash:
                self._state = fold_platform(events, self._state)
            elif events or head.hash != self._hash:
                # Nothing is known yet, or the stream is another one than it was: gone back in time (EV-19).
                events = await self._log.read(PLATFORM)
                self._state = fold_platform(events)
            self._hash = events[-1].hash if events else self._hash
            return self._state

    async def pause_of(self, project_id: str) -> FleetPause | None:
        """What holds stories of the project back now."""
        return (await self.state()).pause_of(project_id)

    async def until_running(self, project_id: str) -> None:
        """Returns once a new step may start; at once when nothing is paused."""
        if await self.pause_of(project_id) is None:
            return
        cursor = await self._feed.position()
        while await self.pause_of(project_id) is not None:
            cursor = await self._changed(cursor)

    async def _changed(self, cursor: str) -> str:
        """The cursor at which the platform's stream may say something else than before."""
        while True:
            hints, cursor = await self._feed.wait(cursor, timeout_s=SWEEP_S)
            if not hints or any(hint.stream == PLATFORM for hint in hints):
                return cursor
