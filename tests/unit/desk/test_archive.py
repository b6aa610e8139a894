"""A story that is over becomes a blob and a tombstone, whatever happens on the way (EV-25, EV-110, EV-255)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from fleet.audit.service.stream_export import read_export
from fleet.desk.archive import Archivist, tombstone_of
from fleet.events.codec import decode, encode
from fleet.events.envelope import GENESIS_HASH, Head, NewEvent
from fleet.events.project import StoryTombstoned
from fleet.events.story import StoryArchived, StoryCancelled
from fleet.graph.changes import Cursor
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.clock import MemoryClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import (
    ArtifactNotFound,
    CommitUnknown,
    InvalidTransition,
    LeaseHeld,
    LogRegressed,
    OwnershipLost,
    PolicyDenied,
    StoreUnavailable,
    StoryNotFound,
    UnsupportedSchema,
)
from fleet.kernel.ids import Principal, StoryId, StreamId
from fleet.log.memory import MemoryEventLog, MemoryLeaseStore
from fleet.log.port import Appended, AppendRequest, Duplicate, Lease
from fleet.story.commands.command import Caller
from fleet.trees.memory import MemoryBlobStore
from tests.support.story_events import PROJECT, STORY, StoryLog, story

PO = Caller(principal=Principal("user:ana"), roles=frozenset({"po"}))
STREAM, PROJECT_STREAM = StreamId.of_story(STORY), StreamId(f"project:{PROJECT}")


def cancelled(story_id: StoryId = STORY) -> StoryLog:
    """A story that was given up early: short, so that it can be archived often."""
    log = StoryLog(story_id)
    for _, payload in story(until="scored").decoded:
        log.add(payload)
    return log.add(StoryCancelled(reason="nobody wants it any more"))


class Crash(BaseException):
    """The process ended here; no handler of ours may survive it."""


@dataclass
class Fuse:
    """Ends the process at its call number `at`, before or after that call is carried out; later calls find it dead."""

    at: int = -1
    is_after: bool = False
    calls: list[str] = field(default_factory=list[str])

    async def call(self, name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        if self.at >= 0 and (number > self.at or (number == self.at and not self.is_after)):
            raise Crash(name)
        result = await work(*args, **kwargs)
        if number == self.at:
            raise Crash(name)
        return result


class Wired:
    """A port whose every call goes through the fuse."""

    def __init__(self, port: Any, fuse: Fuse) -> None:
        self._port, self._fuse = port, fuse

    def __getattr__(self, name: str) -> Any:
        work = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._fuse.call(f"{type(self._port).__name__}.{name}", work, *args, **kwargs)

        return call


class QuickClock(MemoryClock):
    """Whoever sleeps has slept at once."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


class Stage:
    """One closed story in a log in memory, and archivists that work on it."""

    def __init__(self, log: MemoryEventLog | None = None) -> None:
        self.clock = QuickClock()
        self.log, self.blobs = log or MemoryEventLog(), MemoryBlobStore()
        self.leases = MemoryLeaseStore(self.log, self.clock)
        self.incarnation = 0

    async def ready(self, written: StoryLog | None = None) -> Stage:
        await (written or cancelled()).write_to(self.log)
        return self

    def archivist(self, fuse: Fuse | None = None, **options: Any) -> Archivist:
        self.incarnation += 1
        ports: dict[str, Any] = {"log": self.log, "leases": self.leases, "blobs": self.blobs}
        if fuse is not None:
            ports = {name: Wired(port, fuse) for name, port in ports.items()}
        return Archivist(**{**ports, "clock": self.clock, "owner": f"archive/{self.incarnation}", **options})

    async def archive(self, fuse: Fuse | None = None, **options: Any) -> StoryTombstoned:
        return await self.archivist(fuse, **options).archive(STORY, caller=PO, proof=b"proof")

    async def check(self, written: StoryLog) -> StoryTombstoned:
        """The story is archived, once: nothing of it is in the log, everything of it in the blob."""
        found = await tombstone_of(self.log, STORY)
        assert found is not None
        export = read_export(await self.blobs.get(found.export_digest))
        assert list(export.events[:-1]) == written.events
        archived = decode(export.events[-1])
        assert isinstance(archived, StoryArchived)
        before = read_export(await self.blobs.get(archived.export_digest))
        assert before.events == export.events[:-1]
        assert (found.last_version, found.last_hash) == (export.head.version, export.head.hash)
        assert await self.log.read(STREAM) == []
        assert await self.log.streams() == [PROJECT_STREAM]
        tombstones = [e for e in await self.log.read(PROJECT_STREAM) if e.type == "StoryTombstoned"]
        assert len(tombstones) == 1
        return found


@pytest.mark.rule("EV-25", "EV-110", "EV-255", "LC-93")
async def test_archived_story_is_a_blob_and_a_tombstone_and_no_stream() -> None:
    written = story()
    stage = await Stage().ready(written)
    done = await stage.archive()
    assert done == await stage.check(written)
    export = read_export(await stage.blobs.get(done.export_digest))
    assert export.proof == b"proof"
    assert export.commands[export.events[-1].command_id] == (done.last_version, done.last_version)
    assert (export.events[-1].actor, export.events[-1].command_id) == (PO.principal, f"{STORY}/archive")
    # Every epoch of the story stays used up.
    assert (await stage.log.head(STREAM)).epoch == export.events[-1].epoch > 0


@pytest.mark.rule("EV-16", "EV-25")
async def test_archiving_again_returns_the_same_tombstone() -> None:
    stage = await Stage().ready()
    first = await stage.archive()
    assert await stage.archive() == first
    await stage.check(cancelled())


@pytest.mark.rule("LC-93")
async def test_cancelled_story_is_archived() -> None:
    stage = await Stage().ready(cancelled())
    await stage.archive()
    await stage.check(cancelled())


async def healthy_calls() -> list[str]:
    fuse = Fuse()
    await (await Stage().ready()).archive(fuse)
    return fuse.calls


@pytest.mark.rule("EV-16", "EV-25", "GL-19")
async def test_crash_at_any_call_is_mended_by_archiving_again() -> None:
    calls = await healthy_calls()
    assert {"MemoryEventLog.append", "MemoryEventLog.erase", "MemoryBlobStore.put"} <= set(calls)
    for at in range(len(calls)):
        for is_after in (False, True):
            stage, fuse = await Stage().ready(), Fuse(at, is_after)
            with pytest.raises(Crash):
                await stage.archive(fuse)
            await nothing_is_lost(stage)
            await stage.archive()
            found = await stage.check(cancelled())
            assert found.last_version == len(cancelled().events) + 1, calls[at]


async def nothing_is_lost(stage: Stage) -> None:
    """As long as the stream is not in the log, a tombstone names a blob that holds it."""
    if await stage.log.read(STREAM):
        return
    await stage.check(cancelled())


@pytest.mark.rule("EV-25")
async def test_crash_twice_at_different_calls_is_mended_too() -> None:
    calls = await healthy_calls()
    for first in range(0, len(calls), 3):
        for second in range(0, len(calls), 4):
            stage = await Stage().ready()
            with pytest.raises(Crash):
                await stage.archive(Fuse(first, is_after=True))
            fuse = Fuse(second, is_after=True)
            try:
                await stage.archive(fuse)
            except Crash:
                await stage.archive()
            await stage.check(cancelled())


class LostReplies(MemoryEventLog):
    """Stores an append, but its reply is lost, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.is_armed = False

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        outcome = await super().append(request)
        if self.is_armed and self.times:
            self.times -= 1
            raise CommitUnknown("the reply was lost")
        return outcome


@pytest.mark.rule("EV-18")
async def test_lost_replies_are_asked_again_under_the_same_command() -> None:
    log = LostReplies(times=4)
    stage = await Stage(log).ready()
    log.is_armed = True
    await stage.archive()
    assert log.times == 0
    await stage.check(cancelled())


@pytest.mark.rule("EV-18")
async def test_log_that_never_answers_leaves_the_story_where_it_is() -> None:
    log = LostReplies(times=1000)
    stage = await Stage(log).ready()
    log.is_armed = True
    with pytest.raises(CommitUnknown):
        await stage.archive()
    assert len(await log.read(STREAM)) == len(cancelled().events) + 1
    log.is_armed = False
    await stage.archive()
    await stage.check(cancelled())


@pytest.mark.parametrize("until", ["scored", "docs"])
@pytest.mark.rule("LC-93")
async def test_story_that_is_not_over_is_not_archived(until: Any) -> None:
    stage = await Stage().ready(story(until=until))
    with pytest.raises(InvalidTransition, match="only a closed or cancelled story"):
        await stage.archive()
    assert len(await stage.log.read(STREAM)) == len(story(until=until).events)
    # The lease was given back.
    await stage.leases.claim(STREAM, "main/1", ttl_s=5)


@pytest.mark.rule("LC-93")
async def test_only_a_po_archives() -> None:
    stage = await Stage().ready()
    caller = replace(PO, roles=frozenset({"developer", "qa"}))
    with pytest.raises(PolicyDenied) as caught:
        await stage.archivist().archive(STORY, caller=caller)
    assert caught.value.details["rule_id"] == "LC-93"
    assert (await stage.log.head(STREAM)).epoch == 0


async def test_unknown_story_is_not_found_and_leaves_no_trace() -> None:
    stage = await Stage().ready()
    with pytest.raises(StoryNotFound):
        await stage.archivist().archive(StoryId("st-nobody"), caller=PO)
    assert await stage.log.head(StreamId("story:st-nobody")) == Head()
    await stage.archive()
    with pytest.raises(StoryNotFound):
        await stage.archivist().archive(StoryId("st-slug"), caller=PO)


async def test_story_that_a_shard_owns_is_left_to_it() -> None:
    stage = await Stage().ready()
    lease = await stage.leases.claim(STREAM, "main/1", ttl_s=30)
    with pytest.raises(LeaseHeld):
        await stage.archive()
    await stage.leases.release(lease)
    await stage.archive()
    await stage.check(cancelled())


@pytest.mark.rule("EV-14")
async def test_archivist_that_lost_the_story_meanwhile_erases_nothing() -> None:
    stage = await Stage().ready()

    class Thief(MemoryBlobStore):
        async def put(self, data: bytes) -> Any:
            await stage.leases.claim(STREAM, "archive/99", ttl_s=30)
            return await super().put(data)

    with pytest.raises(OwnershipLost):
        await stage.archive(blobs=Thief())
    assert len(await stage.log.read(STREAM)) == len(cancelled().events)


async def test_story_that_another_archivist_erased_meanwhile_is_answered_from_its_tombstone() -> None:
    stage = await Stage().ready()

    class Late(MemoryLeaseStore):
        """Grants its first claim only after somebody else has archived the story."""

        is_first = True

        async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
            if self.is_first:
                self.is_first = False
                await stage.archive()
            return await super().claim(stream, owner, ttl_s=ttl_s)

    done = await stage.archive(leases=Late(stage.log, stage.clock))
    assert done == await stage.check(cancelled())


async def test_project_that_is_owned_for_a_moment_is_waited_for() -> None:
    stage = await Stage().ready()
    await stage.leases.claim(PROJECT_STREAM, "main/1", ttl_s=1)
    await stage.archive()
    await stage.check(cancelled())


async def test_project_that_stays_owned_keeps_the_story() -> None:
    stage = await Stage().ready()
    await stage.leases.claim(PROJECT_STREAM, "main/1", ttl_s=3000)
    with pytest.raises(LeaseHeld):
        await stage.archive()
    assert await stage.log.read(STREAM)
    assert STREAM not in await stage.log.open_streams()


async def test_stories_of_one_project_share_its_stream_and_keep_their_tombstones() -> None:
    other = StoryId("st-other1")
    stage = await Stage().ready()
    await cancelled(other).write_to(stage.log)
    await stage.archive()
    done = await stage.archivist().archive(other, caller=PO)
    assert done.story_id == other
    assert [e.type for e in await stage.log.read(PROJECT_STREAM)] == ["StoryTombstoned"] * 2
    assert (await tombstone_of(stage.log, STORY)) != done == await tombstone_of(stage.log, other)


async def test_story_made_anew_under_an_archived_id_is_archived_anew() -> None:
    stage = await Stage().ready()
    first = await stage.archive()
    lease = await stage.leases.claim(STREAM, "main/1", ttl_s=30)
    request = AppendRequest(
        stream=STREAM,
        events=[encode(payload) for _, payload in cancelled().decoded],
        expected=Head(epoch=lease.epoch),
        command_id=f"{STORY}/anew",  # pyright: ignore[reportArgumentType]
        actor=PO.principal,
        ts_ms=1,
    )
    await stage.log.append(request)
    await stage.leases.release(lease)
    second = await stage.archive()
    assert second.last_version == first.last_version
    assert second.last_hash != first.last_hash
    assert await tombstone_of(stage.log, STORY) == second


@pytest.mark.rule("EV-19")
async def test_refused_story_is_not_archived() -> None:
    stage = await Stage().ready()
    await stage.log.refuse(STREAM, reason="a checkpoint names version 99")
    with pytest.raises(LogRegressed):
        await stage.archive()
    assert len(await stage.log.read(STREAM)) == len(cancelled().events)


@pytest.mark.rule("EV-30")
async def test_story_with_a_newer_event_is_not_archived() -> None:
    stage = await Stage().ready()
    newer = AppendRequest(
        stream=STREAM,
        events=[NewEvent(type="StoryParked", schema=99, body=b'{"meta":{"origin":"owner","trace_id":""}}')],
        expected=await stage.log.head(STREAM),
        command_id=f"{STORY}/newer",  # pyright: ignore[reportArgumentType]
        actor=PO.principal,
        ts_ms=1,
    )
    await stage.log.append(newer)
    with pytest.raises(UnsupportedSchema):
        await stage.archive()
    assert len(await stage.log.read(STREAM)) == len(cancelled().events) + 1


class Forgetful(MemoryBlobStore):
    """Acknowledges what it does not keep."""

    async def put(self, data: bytes) -> Any:
        return digest_of(data)


async def test_blob_that_cannot_be_read_back_keeps_the_story() -> None:
    stage = await Stage().ready()
    with pytest.raises(ArtifactNotFound):
        await stage.archive(blobs=Forgetful())
    assert len(await stage.log.read(STREAM)) == len(cancelled().events) + 1


@pytest.mark.rule("EV-20")
async def test_story_stays_until_the_graph_holds_all_of_it() -> None:
    stage, graph = await Stage().ready(), MemoryGraph()
    with pytest.raises(StoreUnavailable, match="up to version 0 of") as caught:
        await stage.archive(graph=graph, wait_s=2)
    head = await stage.log.head(STREAM)
    assert caught.value.details == {"stream": STREAM, "projected": 0, "head": head.version}
    assert await stage.log.read(STREAM)
    await graph.apply(STREAM, [], expected=Cursor(0, GENESIS_HASH), reached=Cursor(head.version, head.hash))
    await stage.archive(graph=graph, wait_s=2)
    await stage.check(cancelled())
