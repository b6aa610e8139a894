"""Context packs from the log alone: fold the story at one version and cut what a role may see (CX-22..CX-34)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cachetools import LRUCache

from fleet.context.assemble import build_pack
from fleet.context.lessons import Lesson, LessonRule, lessons_of
from fleet.context.port import CountRequest, Pack, PackActivity, PackRequest, Tokenizers
from fleet.context.row_cut import cut_to
from fleet.context.scope import ContextConfig
from fleet.context.service.counts import PackCounting
from fleet.context.service.story_views import StoryViews
from fleet.context.token_counter import Counting, TokenCounter
from fleet.events.codec import decode
from fleet.events.story import StoryClosed, StoryCreated
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, LogCorrupted, StoreUnavailable, StoryNotFound, UnsupportedSchema
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import EventLog, SnapshotStore
from fleet.models.prompts.pack_readers import PackReaders
from fleet.models.weights import TokenizerId
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

_TIMED = 512
"""Packs of each project whose time is remembered."""
_PROJECTS = 1000


@dataclass(slots=True)
class _Project:
    queries: int = 0
    hits: int = 0
    times_ms: deque[int] = field(default_factory=lambda: deque[int](maxlen=_TIMED))


class PackTally:
    """Counts packs; of more than a thousand projects those that asked last."""

    def __init__(self, *, since_ms: int) -> None:
        self._since_ms = since_ms
        self._projects = LRUCache[str, _Project](_PROJECTS)

    def gave(self, project_id: str, *, hit: bool, took_ms: int) -> None:
        """A pack of a story of this project was given."""
        one = self._projects.setdefault(project_id, _Project())
        one.queries += 1
        one.hits += hit
        one.times_ms.append(took_ms)

    def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """The sum over these projects, None for all."""
        chosen = [one for name, one in self._projects.items() if projects is None or name in projects]
        times = sorted(ms for one in chosen for ms in one.times_ms)
        return PackActivity(
            since_ms=self._since_ms,
            queries=sum(one.queries for one in chosen),
            hits=sum(one.hits for one in chosen),
            # The smallest time that 95 of 100 packs did not exceed.
            p95_ms=times[-(-len(times) * 95 // 100) - 1] if times else None,
        )


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
        self._lessons = LRUCache[StoryId, tuple[Lesson, ...]](_REMEMBERED)

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
        lessons: list[Lesson] = []
        for ended in stories[: self._rule.stories]:
            lessons += await self._of(ended.story_id)
        return tuple(lessons)

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
        """Returns the lessons of a story that ended. One that cannot be read has none; others keep their packs."""
        lessons = self._lessons.get(story_id)
        if lessons is None:
            try:
                events = await self._log.read(StreamId.of_story(story_id))
                lessons = self._lessons[story_id] = lessons_of(story_id, [(event, decode(event)) for event in events])
            except (LogCorrupted, UnsupportedSchema):
                return ()
        return lessons


MAX_WAIT_S = 2.0
"""How long a pack waits for the log to reach the asked version (CX-34)."""
_POLL_S = 0.05
_PACKS = 64


class ContextService:
    """Implements the ports Packs, TokenCounts and PackFigureSource. `as_of` 0 in a request means the latest version.

    Caches hold only what a version of a stream can never change, so they need no expiry and may vanish at any time.

    Args:
        snapshots: of the owners of stories: with them a long story need not be folded from its first event.
        tokenizers: of the models that read packs; without them every pack is counted by estimate, and a story that
            began with a tokenizer is refused.
        readers: the models that are configured now: they count for policies that a story did not write down.
    """

    def __init__(
        self,
        log: EventLog,
        blobs: BlobStore,
        config: ContextConfig,
        *,
        clock: Clock,
        snapshots: SnapshotStore | None = None,
        tokenizers: Tokenizers | None = None,
        readers: PackReaders | None = None,
    ) -> None:
        self._log, self._blobs, self._config, self._clock = log, blobs, config, clock
        self._packs = LRUCache[PackRequest, _Made](_PACKS)
        self._counters = LRUCache[tuple[StoryId, str, str | None], _Counters](_PACKS)
        self._tally = PackTally(since_ms=clock.now_ms())
        self._counting = PackCounting(blobs, tokenizers, current=readers)
        self._lessons = LessonBook(log, config.lessons)
        self._views = StoryViews(log, blobs, milestones=config.milestones, snapshots=snapshots)

    async def pack(self, request: PackRequest) -> Pack:
        """The pack; its text is in the blob store under `hash` before this returns (CX-6). See the port."""
        since_ms = self._clock.monotonic_ms()
        as_of = await self._version(request)
        key = replace(request, as_of=as_of)
        cached = self._packs.get(key)
        made = cached or await self._build(request, as_of)
        if cached is None:
            self._packs[key] = made
        took_ms = self._clock.monotonic_ms() - since_ms
        self._tally.gave(made.project_id, hit=cached is not None, took_ms=took_ms)
        return made.pack

    async def count(self, request: CountRequest) -> int:
        """See the port."""
        counting = await self._counting_of(request)
        return _most(counting.counters, request.texts)

    async def tokens(self, tokenizers: tuple[TokenizerId | None, ...], texts: tuple[str, ...]) -> int:
        """See the port TokenCounts."""
        counters = await self._counting.counters(tokenizers or (None,))
        # Whoever asks may send a megabyte: packs of stories are not to wait for it.
        return await asyncio.to_thread(_most, counters, texts)

    async def _counting_of(self, request: CountRequest) -> Counting:
        """How the role counts. What it goes by never changes once a story was started, so that it is read once."""
        key = (request.story_id, request.role, request.policy)
        counter = self._counters.get(key)
        if counter is not None and counter.since <= request.as_of:
            return counter.counting
        await self._version(PackRequest(request.story_id, request.role, "", request.as_of))
        view = await self._views.at(request.story_id, request.as_of)
        counting = await self._counting.of(view.state, request.role, request.policy)
        if view.state.start is not None:
            self._counters[key] = _Counters(request.as_of, counting)
        return counting

    async def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """See the port."""
        return self._tally.activity(projects)

    async def _build(self, request: PackRequest, as_of: int) -> _Made:
        view = await self._views.at(request.story_id, as_of)
        if request.shown is not None:
            state = cut_to(view.state, request.shown)
            # A summary is of everything that its role was told: it is shown with all of the story or not at all.
            view = replace(view, state=state, summaries=view.summaries if state is view.state else {})
        elif self._config.lessons.enabled:
            view = replace(view, lessons=await self._lessons.before(view.state))
        counting = await self._counting.of(view.state, request.role)
        built = build_pack(
            view,
            self._config,
            role=request.role,
            phase=request.phase,
            task_id=request.task_id,
            token_budget=request.token_budget,
            counting=counting,
        )
        pack = Pack(
            text=built.text,
            scopes=built.scopes,
            token_count=built.token_count,
            budget=built.budget,
            hash=await self._blobs.put(built.text.encode()),
            dropped=tuple((d.scope, len(d.ids)) for d in built.dropped),
            as_of=as_of,
            counter=built.counter,
            left_out=tuple((d.scope, d.ids) for d in built.dropped),
        )
        return _Made(view.state.project_id, pack)

    async def _version(self, request: PackRequest) -> int:
        stream = StreamId.of_story(request.story_id)
        deadline_ms = self._clock.monotonic_ms() + int(MAX_WAIT_S * 1000)
        while True:
            reached = (await self._log.head(stream)).version
            if reached == 0:
                raise StoryNotFound(
                    f"there is no story {request.story_id}: `fleet story list` shows those there are",
                    story_id=str(request.story_id),
                )
            if reached >= request.as_of:
                return request.as_of or reached
            if self._clock.monotonic_ms() >= deadline_ms:
                raise StoreUnavailable(
                    f"story {request.story_id} is at version {reached}, version {request.as_of} did not come "
                    f"within {MAX_WAIT_S:g} s: ask again later",
                    story_id=str(request.story_id),
                    version=reached,
                    as_of=request.as_of,
                )
            await self._clock.sleep(_POLL_S)


def _most(counters: Sequence[TokenCounter], texts: Sequence[str]) -> int:
    return max(sum(map(counter.count, texts)) for counter in counters)


class _Made(NamedTuple):
    """A pack, and the project of its story."""

    project_id: str
    pack: Pack


class _Counters(NamedTuple):
    """How a role counts in a story, and the earliest version at which that is known."""

    since: int
    counting: Counting
