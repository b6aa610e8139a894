"""A story that is over leaves the log: its bytes go to a blob, a tombstone to its project, its keys away (EV-25).

    export of versions 1..n        -> blob, named by StoryArchived, which is version n + 1
    export of versions 1..n + 1    -> blob, named by StoryTombstoned in the stream of the project
    erase                          -> only while the stream ends at n + 1, under the epoch of this very archivist

Each step is decided from what is recorded, under a command id that is always the same. Whoever runs it again after a
crash, at whatever point, comes to the same end; until the tombstone is on disk nothing of the story is gone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from fleet.audit.service.stream_export import export_stream, read_export
from fleet.events.codec import decode, encode
from fleet.events.envelope import Head, StoredEvent
from fleet.events.payload import Payload
from fleet.events.project import StoryTombstoned
from fleet.events.story import StoryArchived
from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import Clock
from fleet.kernel.errors import (
    CommitUnknown,
    InvalidTransition,
    LeaseHeld,
    OwnershipLost,
    StoreError,
    StoreUnavailable,
    StoryNotFound,
    VersionConflict,
)
from fleet.kernel.ids import CommandId, Digest, Principal, StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog, Lease, LeaseStore
from fleet.story.commands.command import Caller
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

_TRIES = 5
_PAUSE_S = 0.5


class Archivist:
    """Archives stories one at a time, as their owner for that long.

    Args:
        owner: `<name>/<incarnation>` for the leases; a newer incarnation goes on where a dead one stopped.
        graph: when given, a story is erased only after the graph holds all of it: afterwards nothing can add it.
        wait_s: how long to wait for the graph.
    """

    def __init__(
        self,
        *,
        log: EventLog,
        leases: LeaseStore,
        blobs: BlobStore,
        clock: Clock,
        owner: str,
        ttl_s: int = 30,
        graph: DecisionGraph | None = None,
        wait_s: float = 30.0,
    ) -> None:
        self._log, self._leases, self._blobs, self._clock = log, leases, blobs, clock
        self._owner, self._ttl_s = owner, ttl_s
        self._graph, self._wait_s = graph, wait_s

    async def archive(self, story_id: StoryId, *, caller: Caller, proof: bytes = b"") -> StoryTombstoned:
        """The story's stream is a blob and no longer in the log; the tombstone says which, and where it ended.

        Archiving again returns the recorded tombstone.

        Args:
            proof: a checkpoint's proof of the story, kept with its bytes (EV-32).

        Raises:
            PolicyDenied: the caller is no po (LC-93).
            StoryNotFound: there is no such story, and no tombstone of one.
            InvalidTransition: the story is neither closed nor cancelled.
            LeaseHeld: a council shard still owns the story; come again later.
            LogRegressed, LogCorrupted, UnsupportedSchema: the stream is not fit to be exported; nothing was erased.
            StoreUnavailable: a store does not answer, or the graph does not hold the whole story yet.
        """
        caller.require("po", rule_id="LC-93")
        stream = StreamId.of_story(story_id)
        if not (await self._log.head(stream)).version:
            return await self._archived_before(story_id)
        async with self._leased(stream) as lease:
            state = fold(await self._log.read(stream))
            if state is None:
                return await self._archived_before(story_id)
            return await self._archive(stream, lease, state, caller.principal, proof)

    async def _archived_before(self, story_id: StoryId) -> StoryTombstoned:
        tombstone = await tombstone_of(self._log, story_id)
        if tombstone is None:
            raise StoryNotFound(f"there is no story {story_id}, and none was archived", story_id=story_id)
        return tombstone

    async def _archive(
        self, stream: StreamId, lease: Lease, state: StoryState, actor: Principal, proof: bytes
    ) -> StoryTombstoned:
        project = StreamId(f"project:{state.project_id}")
        if state.disposition != "archived":
            _require_over(state)
            await self._record_archived(stream, lease, actor, proof)
        events = await self._log.read(stream)
        head = Head(events[-1].version, events[-1].hash, lease.epoch)
        await self._wait_for_graph(stream, head)
        proposed = StoryTombstoned(
            story_id=state.story_id,
            export_digest=await self._export(stream, events, proof),
            last_version=head.version,
            last_hash=head.hash,
        )
        tombstone = await self._tombstone(project, proposed, actor)
        await self._check_blob(tombstone, head)
        await self._log.erase(stream, expected=head)
        return tombstone

    async def _record_archived(self, stream: StreamId, lease: Lease, actor: Principal, proof: bytes) -> None:
        events = await self._log.read(stream)
        head = Head(events[-1].version, events[-1].hash, lease.epoch)
        payload = StoryArchived(export_digest=await self._export(stream, events, proof))
        command_id = CommandId(f"{stream.entity}/archive")
        await self._append(stream, head, payload, command_id=command_id, actor=actor, closes=True)

    async def _export(self, stream: StreamId, events: Sequence[StoredEvent], proof: bytes) -> Digest:
        """The digest under which the whole stream is stored; LogCorrupted when its bytes do not verify."""
        data = export_stream(events, await self._log.commands(stream), proof=proof)
        read_export(data)
        return await self._blobs.put(data)

    async def _wait_for_graph(self, stream: StreamId, head: Head) -> None:
        if self._graph is None:
            return
        until_ms = self._clock.monotonic_ms() + int(self._wait_s * 1000)
        while (reached := (await self._graph.cursor(stream)).version) < head.version:
            if self._clock.monotonic_ms() >= until_ms:
                raise StoreUnavailable(
                    f"the graph holds {stream} up to version {reached} of {head.version}, so it was not erased: "
                    "let the projector catch up, then archive again",
                    stream=stream,
                    projected=reached,
                    head=head.version,
                )
            await self._clock.sleep(_PAUSE_S)

    async def _tombstone(self, project: StreamId, proposed: StoryTombstoned, actor: Principal) -> StoryTombstoned:
        """The tombstone as it is on record now."""
        for left in reversed(range(_TRIES)):
            try:
                return await self._record_tombstone(project, proposed, actor)
            except (LeaseHeld, OwnershipLost, VersionConflict):
                # Another archivist or a council shard is at the project's stream for a moment.
                if not left:
                    raise
                await self._clock.sleep(_PAUSE_S)
        raise AssertionError("unreachable")

    async def _record_tombstone(
        self, project: StreamId, proposed: StoryTombstoned, actor: Principal
    ) -> StoryTombstoned:
        # The hash is part of it: a story made anew under this id may end at the same version.
        command_id = CommandId(f"{_prefix(proposed.story_id)}{proposed.last_version}-{proposed.last_hash[:16]}")
        async with self._leased(project) as lease:
            head = replace(await self._log.head(project), epoch=lease.epoch)
            outcome = await self._append(project, head, proposed, command_id=command_id, actor=actor)
        first = outcome.first if isinstance(outcome, Duplicate) else outcome.events[0].version
        return await _tombstone_at(self._log, project, first)

    async def _check_blob(self, tombstone: StoryTombstoned, head: Head) -> None:
        """What the tombstone names can be read, and is the whole stream. Raises ArtifactNotFound, LogCorrupted."""
        export = read_export(await self._blobs.get(tombstone.export_digest))
        assert (export.head.version, export.head.hash) == (head.version, head.hash), "the export is of another stream"

    async def _append(
        self,
        stream: StreamId,
        expected: Head,
        payload: Payload,
        *,
        command_id: CommandId,
        actor: Principal,
        closes: bool = False,
    ) -> Appended | Duplicate:
        request = AppendRequest(
            stream=stream,
            events=[encode(payload)],
            expected=expected,
            command_id=command_id,
            actor=actor,
            ts_ms=self._clock.now_ms(),
            closes=closes,
        )
        for _ in range(_TRIES - 1):
            with suppress(CommitUnknown):
                return await self._log.append(request)
        return await self._log.append(request)

    @asynccontextmanager
    async def _leased(self, stream: StreamId) -> AsyncGenerator[Lease]:
        lease = await self._leases.claim(stream, self._owner, ttl_s=self._ttl_s)
        try:
            yield lease
        finally:
            # A lease that cannot be given back ends by itself.
            with suppress(StoreError):
                await self._leases.release(lease)


async def tombstone_of(log: EventLog, story_id: StoryId) -> StoryTombstoned | None:
    """The newest tombstone of the story, in the stream of whichever project it has; None when it was never archived."""
    for project in [name for name in await log.streams() if name.startswith("project:")]:
        commands = (await log.commands(project)).items()
        versions = [first for command, (first, _) in commands if command.startswith(_prefix(story_id))]
        if versions:
            return await _tombstone_at(log, project, max(versions))
    return None


def _prefix(story_id: StoryId) -> str:
    return f"{story_id}/tombstone/"


async def _tombstone_at(log: EventLog, project: StreamId, version: int) -> StoryTombstoned:
    (event,) = await log.read(project, after=version - 1, limit=1)
    payload = decode(event)
    assert isinstance(payload, StoryTombstoned), event.event_id
    return payload


def _require_over(state: StoryState) -> None:
    if not state.closed and state.disposition != "cancelled":
        raise InvalidTransition(
            f"story {state.story_id} is in state {state.state} and {state.disposition}: only a closed or cancelled "
            "story can be archived",
            state=state.state,
            event="archive",
            allowed=[],
        )
