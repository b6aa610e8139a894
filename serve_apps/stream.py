"""Server-sent events: one story's stream as frames (AP-100..AP-103)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from fleet.errors import InvalidInput
from fleet.events import EVENT_TYPES, StoredEvent, published
from fleet.ids import StoryId
from fleet.services.planning_desk import PlanningDesk

__all__ = ["event_frames", "frame", "resume_point"]


def resume_point(story_id: StoryId, last_event_id: str | None) -> int:
    """The version after which to go on: 0 for a new client. InvalidInput for an id of another stream or form."""
    if not last_event_id:
        return 0
    stream, _, version = last_event_id.rpartition("/")
    known = stream in ("", f"story:{story_id}", story_id)
    if not known or not version.isdecimal() or len(version) > 15:
        raise InvalidInput(
            f"{last_event_id[:80]!r} is no event id of this stream; it looks like story:{story_id}/12",
            field="Last-Event-ID",
        )
    return int(version)


def frame(event: StoredEvent) -> str:
    """One event as a frame: id, group, envelope of EV-12."""
    group = EVENT_TYPES[event.type].group if event.type in EVENT_TYPES else "platform"
    data = json.dumps(published(event), ensure_ascii=False, separators=(",", ":"))
    return f"id: {event.event_id}\nevent: {group}\ndata: {data}\n\n"


async def event_frames(desk: PlanningDesk, story_id: StoryId, *, after: int, heartbeat_s: int) -> AsyncIterator[str]:
    """Frames until the client goes away; a comment says that the line lives when nothing happens.

    The log is read at the client's own pace, so a slow client costs no memory here (AP-103).
    """
    yield "retry: 3000\n\n"
    async for event in desk.watch(story_id, after=after, idle_s=heartbeat_s):
        yield ": still here\n\n" if event is None else frame(event)
