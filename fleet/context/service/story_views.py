"""What packs are cut from: views of stories, moved on by what is new in the log instead of folded again (CX-33, CX-44).

A view is begun from the nearest older one that is held, else from the owner's snapshot, else from the first event. All
three ways give the same view.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from fleet.context.view import Milestone, StoryView, milestones
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import EventLog, SnapshotStore
from fleet.story.evolve.story import fold
from fleet.story.snapshot import confirmed_state, state_schema
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

_HELD = 8
_FOLD_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class _Held:
    """A view and the hash of the event that it ends at."""

    view: StoryView
    hash: str


class StoryViews:
    """Views of the stories last asked for, at most eight. A version of a stream never changes, so none goes stale.

    Args:
        milestones: how many a view shows.
        snapshots: of the owners of stories; without them a story that is not held is folded from its first event.
    """

    def __init__(
        self, log: EventLog, blobs: BlobStore, *, milestones: int, snapshots: SnapshotStore | None = None
    ) -> None:
        self._log, self._blobs, self._snapshots = log, blobs, snapshots
        self._milestones = milestones
        self._held = LRUCache[tuple[StoryId, int], _Held](_HELD)

    async def at(self, story_id: StoryId, as_of: int) -> StoryView:
        """The view of the story at this version, which its log holds already."""
        key = (story_id, as_of)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = await self._made(story_id, as_of)
        return held.view

    async def _made(self, story_id: StoryId, as_of: int) -> _Held:
        older = [held for (story, version), held in self._held.items() if story == story_id and version < as_of]
        nearest = max(older, key=lambda held: held.view.state.version, default=None)
        moved = await self._moved(nearest, as_of) if nearest is not None else None
        return moved or await self._from_snapshot(story_id, as_of) or await self._from_start(story_id, as_of)

    async def _moved(self, held: _Held, as_of: int) -> _Held | None:
        """The view with what is new; None when the log does not go on from where it ends."""
        state = held.view.state
        stream = StreamId.of_story(state.story_id)
        events = await self._log.read(stream, after=state.version, limit=as_of - state.version)
        if not events or events[0].prev_hash != held.hash:
            return None
        shown = (*held.view.milestones, *milestones(events, last=self._milestones, gates=_gates(state)))
        return await self._held_at(await _folded(events, state), shown[-self._milestones :], hash=events[-1].hash)

    async def _from_snapshot(self, story_id: StoryId, as_of: int) -> _Held | None:
        """Begun from the snapshot; None when there is none that the log confirms."""
        stream = StreamId.of_story(story_id)
        snapshot = None
        if self._snapshots is not None:
            with contextlib.suppress(FleetError):
                snapshot = await self._snapshots.get(stream)
        if snapshot is None or snapshot.schema != state_schema() or not 0 < snapshot.version <= as_of:
            return None
        tail = await self._log.read(stream, after=snapshot.version - 1, limit=as_of - snapshot.version + 1)
        if (state := confirmed_state(snapshot, tail)) is None:
            return None
        state = await _folded(tail[1:], state)
        return await self._held_at(state, await self._looked_back(tail, state), hash=tail[-1].hash)

    async def _looked_back(self, tail: Sequence[StoredEvent], state: StoryState) -> tuple[Milestone, ...]:
        """The last milestones of `state`, of which those before the tail are read one by one."""
        versions = state.milestones[-self._milestones :]
        older = [version for version in versions if version < tail[0].version]
        stream = tail[0].stream
        read = [await self._log.read(stream, after=version - 1, limit=1) for version in older]
        events = [*(event for page in read for event in page), *tail]
        return milestones(events, last=self._milestones, gates=_gates(state))

    async def _from_start(self, story_id: StoryId, as_of: int) -> _Held:
        events = await self._log.read(StreamId.of_story(story_id), limit=as_of)
        shown = milestones(events, last=self._milestones)
        return await self._held_at(await _folded(events, None), shown, hash=events[-1].hash)

    async def _held_at(self, state: StoryState, shown: tuple[Milestone, ...], *, hash: str) -> _Held:
        summaries = {role: (await self._blobs.get(one.blob)).decode() for role, one in state.summaries.items()}
        return _Held(StoryView(state=state, milestones=shown, summaries=summaries), hash)


def _gates(state: StoryState) -> Mapping[str, str]:
    return {name: approval.request.gate for name, approval in state.approvals.items()}


async def _folded(events: Sequence[StoredEvent], state: StoryState | None) -> StoryState:
    for start in range(0, len(events), _FOLD_AT_ONCE):
        state = fold(events[start : start + _FOLD_AT_ONCE], state)
        # Other packs are built in this loop; a long fold must not keep them waiting.
        await asyncio.sleep(0)
    assert state is not None, "the log has a head but no events"
    return state
