"""A log in memory one of whose streams somebody altered: reading it ends as it does on the real store."""

from __future__ import annotations

from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.rules import corrupted
from tests.support.story_events import StoryLog, created_payload

DAMAGED = StoryId("st-damaged1")


class DamagedLog(MemoryEventLog):
    """A log whose stream of story DAMAGED no longer verifies once it is `altered`."""

    is_altered = False

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        if self.is_altered and stream == StreamId.of_story(DAMAGED):
            raise corrupted(stream, after + 1, "version 1 does not match its own hash")
        return await super().read(stream, after=after, limit=limit)

    async def alter(self) -> None:
        """The story is there, and from now on cannot be read."""
        await StoryLog(DAMAGED).add(created_payload()).write_to(self)
        self.is_altered = True
