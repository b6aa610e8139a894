"""Lessons of the closed stories of a project, for a story that began after they had ended."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from fleet.context import Lesson, LessonRule, lessons_of
from fleet.errors import FleetError
from fleet.events import StoryClosed, StoryCreated, decode
from fleet.ids import StoryId, StreamId
from fleet.ports import EventLog
from fleet.story import StoryState

__all__ = ["LessonBook"]

_REMEMBERED = 5_000


@dataclass(frozen=True, slots=True)
class _Ended:
    """A closed story: of which project, and when it ended."""

    story_id: StoryId
    project_id: str
    ended_ms: int


class LessonBook:
    """What stories that are over taught. A closed stream never changes, so what was read of one is kept.

    The same story gets the same lessons at every time and on every machine: only stories that were closed before it
    was created count, by the times in the log.
    """

    def __init__(self, log: EventLog, rule: LessonRule) -> None:
        self._log, self._rule = log, rule
        self._ended: dict[StreamId, _Ended | None] = {}
        self._lessons: OrderedDict[StoryId, tuple[Lesson, ...]] = OrderedDict()

    async def before(self, state: StoryState) -> tuple[Lesson, ...]:
        """The lessons for this story, those of the story that ended last first; none when they are switched off."""
        if not self._rule.enabled:
            return ()
        stories = [
            ended
            for ended in await self._closed()
            if ended.project_id == state.project_id and ended.ended_ms < state.created_ms
        ]
        stories.sort(key=lambda ended: (-ended.ended_ms, ended.story_id))
        found: list[Lesson] = []
        for ended in stories[: self._rule.stories]:
            found += await self._of(ended.story_id)
        return tuple(found)

    async def _closed(self) -> list[_Ended]:
        still_open = set(await self._log.open_streams())
        streams = [s for s in await self._log.streams() if s.startswith("story:") and s not in still_open]
        for stream in streams:
            if stream not in self._ended:
                self._ended[stream] = await self._look(stream)
        return [ended for stream in streams if (ended := self._ended[stream]) is not None]

    async def _look(self, stream: StreamId) -> _Ended | None:
        """When it ended; None for a story that was given up, or that cannot be read."""
        head = await self._log.head(stream)
        try:
            first = await self._log.read(stream, limit=1)
            last = await self._log.read(stream, after=max(0, head.version - 1))
            created, closed = (decode(events[0]) if events else None for events in (first, last))
        except FleetError:
            return None
        if not isinstance(created, StoryCreated) or not isinstance(closed, StoryClosed):
            return None
        return _Ended(StoryId(stream.entity), created.project_id, last[0].ts_ms)

    async def _of(self, story_id: StoryId) -> tuple[Lesson, ...]:
        if story_id not in self._lessons:
            events = await self._log.read(StreamId.of_story(story_id))
            self._lessons[story_id] = lessons_of(story_id, [(event, decode(event)) for event in events])
        self._lessons.move_to_end(story_id)
        while len(self._lessons) > _REMEMBERED:
            self._lessons.popitem(last=False)
        return self._lessons[story_id]
