"""Server-sent events: one story's stream, or several at once (AP-100..AP-104)."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from fleet.context.row_cut import RowCut
from fleet.desk.planning import PlanningDesk
from fleet.events.codec import published
from fleet.events.envelope import StoredEvent
from fleet.events.registry import EVENT_TYPES
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Principal, StoryId
from serve_apps.sight import Sight
from serve_apps.stream.backlog import Backlog
from serve_apps.stream.sse import HEARTBEAT, RETRY, sse_frame

_CURSOR = "c1."
_ENTRY = struct.Struct(">6sI")


def resume_point(story_id: StoryId, last_event_id: str | None) -> int:
    """The version after which to go on: 0 for a new client. InvalidInput for an id of another stream or form."""
    if not last_event_id:
        return 0
    stream, _, version = last_event_id.rpartition("/")
    known = stream in ("", f"story:{story_id}", story_id)
    if not known or not (version.isascii() and version.isdecimal()) or len(version) > 15:
        raise InvalidInput(
            f"{last_event_id[:80]!r} is no event id of this stream; it looks like story:{story_id}/12",
            field="Last-Event-ID",
        )
    return int(version)


def group_of(event: StoredEvent) -> str:
    """The group of the event's type (AP-101)."""
    return EVENT_TYPES[event.type].group if event.type in EVENT_TYPES else "platform"


def frame(event: StoredEvent, *, event_id: str | None = None) -> str:
    """One event as a frame: id, group, envelope of EV-12."""
    return sse_frame(published(event), event=group_of(event), event_id=event_id or event.event_id)


async def event_frames(
    desk: PlanningDesk,
    story_id: StoryId,
    *,
    after: int,
    heartbeat_s: int,
    types: Collection[str] = (),
    choice: Choice | None = None,
    backlog: Backlog | None = None,
) -> AsyncIterator[str]:
    """Frames until the client goes away; a comment says that the line lives when nothing happens.

    A client that falls behind what is recorded by more than the backlog holds gets `overflow` as the last frame
    (AP-103); without one the log is read at the client's own pace. A lost right, which `choice` tells, ends it with
    `denied`.
    """
    yield RETRY
    async for event in _through(backlog, desk.watch(story_id, after=after, idle_s=heartbeat_s)):
        if event is None:
            yield HEARTBEAT
        elif choice is not None and not await choice.is_open(story_id):
            yield sse_frame({"story_id": story_id}, event="denied")
            return
        elif (not types or event.type in types) and (choice is None or await choice.shows(event)):
            yield frame(event)
    for text in _overflow(backlog):
        yield text


def _through(backlog: Backlog | None, events: AsyncIterator[StoredEvent | None]) -> AsyncIterator[StoredEvent | None]:
    return events if backlog is None else backlog.through(events)


def _overflow(backlog: Backlog | None) -> Iterator[str]:
    """The last frame for a client that was too slow. It has no id: the client comes again with the last it has."""
    if backlog is not None and backlog.overflowed.is_set():
        yield sse_frame({"queue": backlog.most}, event="overflow")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stories somebody watches: those that are named, and those of projects; only what they may see."""

    sight: Sight
    who: Principal
    stories: frozenset[StoryId] = frozenset()
    projects: frozenset[str] = frozenset()
    cuts: dict[StoryId, RowCut] = field(default_factory=dict[StoryId, RowCut])
    """What was seen of each story when its last event came, so that not all of them are read for each."""

    async def shows(self, event: StoredEvent) -> bool:
        """Whether an event of a watched story names nothing that is hidden now."""
        story_id = StoryId(event.stream.entity)
        cut = await self.sight.cut_again(self.who, story_id, self.cuts.get(story_id))
        if cut is None:
            self.cuts.pop(story_id, None)
            return True
        self.cuts[story_id] = cut
        return cut.takes(event)

    async def takes(self, story_id: StoryId) -> bool:
        """Whether the story is watched."""
        if not await self.sight.takes(self.who, story_id):
            return False
        return story_id in self.stories or await self.sight.desk.project_of(story_id) in self.projects

    async def is_open(self, story_id: StoryId) -> bool:
        """Whether events of this one watched story are still shown."""
        return self.sight.sees_everything(self.who) or await self.takes(story_id)

    async def is_withdrawn(self, story_id: StoryId) -> bool:
        """Whether what was asked for by name is hidden now: a story, or all that the watched projects hold.

        A story that only left the rows of the caller's roles is left out, and its project is watched on (CX-17).
        """
        return story_id in self.stories or not any(self.sight.sees(self.who, name) for name in self.projects)


async def start_of(desk: PlanningDesk, choice: Choice, cursor: str | None) -> dict[StoryId, int]:
    """Where a watch of several stories begins: behind the cursor; now without one; at every first event for `0`.

    InvalidInput for what is no cursor.
    """
    if cursor == "0":
        return {}
    heads = await desk.heads(choice.takes)
    if not cursor:
        return heads
    marks = _decode(cursor)
    return {story_id: marks[key] for story_id in heads if (key := _short(story_id)) in marks}


def encode_cursor(reached: Mapping[StoryId, int]) -> str:
    """One text that says how far each of several stories was read (AP-102)."""
    raw = b"".join(sorted(_ENTRY.pack(_short(story_id), version) for story_id, version in reached.items()))
    return _CURSOR + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(cursor: str) -> dict[bytes, int]:
    text = cursor.removeprefix(_CURSOR)
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if cursor.startswith(_CURSOR) and base64.urlsafe_b64encode(raw).decode().rstrip("=") == text:
            return {bytes(key): version for key, version in _ENTRY.iter_unpack(raw)}
    except (ValueError, struct.error):
        pass
    raise InvalidInput(f"{cursor[:40]!r} is no cursor of several streams", field="Last-Event-ID")


def _short(story_id: StoryId) -> bytes:
    """Stands for the story in a cursor: so few bytes that the id of an event stays small with hundreds of stories."""
    return hashlib.blake2s(story_id.encode(), digest_size=6).digest()


async def many_frames(
    desk: PlanningDesk,
    choice: Choice,
    *,
    after: dict[StoryId, int],
    heartbeat_s: int,
    types: Collection[str] = (),
    backlog: Backlog | None = None,
) -> AsyncIterator[str]:
    """Frames of several stories, as `event_frames`; the id of each is a cursor of all of them."""
    reached = dict(after)
    # A client that loses its line before the first event resumes from here, and misses nothing.
    yield f"{RETRY.rstrip()}\nid: {encode_cursor(reached)}\n\n"
    async for event in _through(backlog, desk.watch_many(choice.takes, after=reached, idle_s=heartbeat_s)):
        if event is None:
            yield HEARTBEAT
            continue
        story_id = StoryId(event.stream.entity)
        if not await choice.takes(story_id):
            if not await choice.is_withdrawn(story_id):
                continue
            yield sse_frame({"story_id": story_id}, event="denied")
            return
        reached[story_id] = event.version
        if (not types or event.type in types) and await choice.shows(event):
            yield frame(event, event_id=encode_cursor(reached))
    for text in _overflow(backlog):
        yield text
