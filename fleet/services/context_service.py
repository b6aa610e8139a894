"""Context packs from the log alone: fold the story at one version and cut what a role may see (CX-22..CX-34)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

from fleet.context import ContextConfig, Counting, TokenCounter, build_pack, cut_to
from fleet.errors import StoreUnavailable, StoryNotFound
from fleet.ids import StoryId, StreamId
from fleet.models import PackReaders, TokenizerId
from fleet.ports import (
    BlobStore,
    Clock,
    CountRequest,
    EventLog,
    Pack,
    PackActivity,
    PackRequest,
    SnapshotStore,
    Tokenizers,
)
from fleet.services.lessons import LessonBook
from fleet.services.pack_activity import PackTally
from fleet.services.pack_counting import PackCounting
from fleet.services.story_views import StoryViews

__all__ = ["MAX_WAIT_S", "ContextService"]

MAX_WAIT_S = 2.0
"""How long a pack waits for the log to reach the asked version (CX-34)."""
_POLL_S = 0.05
_PACKS = 64

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


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
        self._packs = _Recent[PackRequest, _Made](_PACKS)
        self._counters = _Recent[tuple[StoryId, str, str | None], _Counters](_PACKS)
        self._tally = PackTally(since_ms=clock.now_ms())
        self._counting = PackCounting(blobs, tokenizers, current=readers)
        self._lessons = LessonBook(log, config.lessons)
        self._views = StoryViews(log, blobs, milestones=config.milestones, snapshots=snapshots)

    async def pack(self, request: PackRequest) -> Pack:
        """The pack; its text is in the blob store under `hash` before this returns (CX-6). See the port."""
        since_ms = self._clock.monotonic_ms()
        as_of = await self._version(request)
        key = replace(request, as_of=as_of)
        known = self._packs.get(key)
        made = known or await self._build(request, as_of)
        if known is None:
            self._packs.put(key, made)
        took_ms = self._clock.monotonic_ms() - since_ms
        self._tally.gave(made.project_id, hit=known is not None, took_ms=took_ms)
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
        """How the role counts; what it goes by never changes once a story was started, so that it is read once."""
        key = (request.story_id, request.role, request.policy)
        known = self._counters.get(key)
        if known is not None and known.since <= request.as_of:
            return known.counting
        await self._version(PackRequest(request.story_id, request.role, "", request.as_of))
        view = await self._views.at(request.story_id, request.as_of)
        counting = await self._counting.of(view.state, request.role, request.policy)
        if view.state.start is not None:
            self._counters.put(key, _Counters(request.as_of, counting))
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


class _Recent(Generic[_Key, _Value]):
    """The values last used, at most `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[_Key, _Value] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: _Key, value: _Value) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)
