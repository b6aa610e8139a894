"""Who may work on a story, and what happens to the one who may not any more (EV-4, EV-19, GL-19, LC-94)."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from fleet.audit.memory import MemoryWitness
from fleet.events.codec import decode
from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.events.step import StepFinished
from fleet.events.story import StoryParked
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import LogRegressed, OwnershipLost, StoreUnavailable, UnsupportedSchema
from fleet.kernel.ids import SYSTEM, CommandId, StoryId, StreamId
from fleet.log.memory import MemoryEventLog, MemoryLeaseStore
from fleet.log.port import AppendRequest, Lease
from fleet.owner.shard import CouncilShard
from fleet.owner.takeover import Patience, incarnations_of
from fleet.owner.workbench import Workbench
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from tests.support.town import ONE, STREAM_ONE, STREAM_TWO, TWO, Town, crash, running

URL = "/srv/text"


class Mill:
    """A program that runs until it is let go. `starts` counts its runs."""

    def __init__(self) -> None:
        self.starts = 0
        self.go = asyncio.Event()

    async def __call__(self, start: ProgramStart) -> ProgramEnd:
        self.starts += 1
        await self.go.wait()
        return ProgramEnd(exit_code=1, stderr=b"nothing was checked out\n")


class Works(Town):
    """A town whose stories are started on a repository and whose runs are ground by one mill."""

    def __init__(self, log: MemoryEventLog | None = None) -> None:
        super().__init__(log=log)
        self.mill = Mill()
        self.backend._program = self.mill  # pyright: ignore[reportPrivateUsage]
        self.forge.add_repository(URL, branches={"main": "0a" * 20})

    async def begin(self, story_id: StoryId) -> None:
        """The story is started and its first run is under way, unless its owner ends before."""
        await self.create(story_id)
        await self.do(story_id, "start_story", {"repo": URL, "delegate": ["po", "qa"]}, key="start")

    async def state(self, story_id: StoryId) -> Any:
        return await self.desk.state(story_id)

    async def parks(self, story_id: StoryId) -> list[StoryParked]:
        return [p for p in map(decode, await self.events(story_id)) if isinstance(p, StoryParked)]


class Cut(MemoryLeaseStore):
    """A lease store that can be out of reach; `claims` lists who asked for what."""

    is_cut = renewals_are_cut = False

    def __init__(self, town: Town) -> None:
        super().__init__(town.log, town.clock)
        self.claims: list[tuple[str, str]] = []

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        self.claims.append((stream, owner))
        self._require()
        return await super().claim(stream, owner, ttl_s=ttl_s)

    async def renew(self, lease: Lease) -> None:
        self._require()
        if self.renewals_are_cut:
            raise StoreUnavailable("the store does not answer")
        await super().renew(lease)

    def _require(self) -> None:
        if self.is_cut:
            raise StoreUnavailable("the store does not answer")


class Late(MemoryLeaseStore):
    """The answer to a claim of a story waits for `go`; `claimed` says that one does."""

    def __init__(self, town: Town) -> None:
        super().__init__(town.log, town.clock)
        self.claimed, self.go = asyncio.Event(), asyncio.Event()

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        lease = await super().claim(stream, owner, ttl_s=ttl_s)
        if stream.startswith("story:"):
            self.claimed.set()
            await self.go.wait()
        return lease


@pytest.mark.rule("EV-4", "GL-19")
@pytest.mark.parametrize("ended_by", ["drain", "newer incarnation"])
async def test_story_that_a_shard_opens_while_it_stops_is_given_back_at_once(ended_by: str):
    town = Works()
    leases = town.leases = Late(town)
    old = town.shard(incarnation="a1")
    async with running(old):
        asked = asyncio.create_task(town.create(ONE))
        await town.until(leases.claimed.is_set)
        if ended_by == "drain":
            await old.drain()
        else:
            newer = asyncio.create_task(town.shard(incarnation="a2", sweep_s=3600).run())
            await town.until(lambda: old.status().state == "superseded")
            newer.cancel()  # it came, which is all that counts here
            await asyncio.gather(newer, return_exceptions=True)
        leases.go.set()
        await town.pass_time(1)
        assert old.status().stories == ()
        # Nobody has to wait until a lease ends.
        assert await leases.claim(STREAM_ONE, "council:1/b1", ttl_s=15)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


@pytest.mark.rule("EV-4", "GL-19")
async def test_shard_that_stops_takes_none_of_the_stories_that_its_sweep_had_found_before():
    town = Works()
    async with running(town.shard("council:0", "a1")):
        for story_id in (ONE, TWO):
            await town.create(story_id)
    leases = town.leases = Late(town)
    stopping = town.shard("council:1", "b1")
    async with running(stopping):
        await town.until(leases.claimed.is_set, within_s=60)
        await stopping.drain()
        leases.go.set()
        await town.pass_time(5)
    # Nothing that it would have to give back is on record, and whoever comes next has to wait for no lease.
    for story_id, stream in ((ONE, STREAM_ONE), (TWO, STREAM_TWO)):
        assert {taken.owner for taken in await town.owners(story_id)} == {"council:0/a1"}
        assert await leases.claim(stream, "council:2/c1", ttl_s=15)


@pytest.mark.rule("EV-4", "GL-19")
async def test_shard_that_cannot_renew_lets_its_story_go_before_the_lease_ends():
    town = Works()
    leases = town.leases = Cut(town)
    shard = town.shard(sweep_s=3600)
    async with running(shard):
        await town.begin(ONE)
        await town.until(lambda: town.mill.starts == 1)
        before = await town.types(ONE)
        leases.is_cut = True
        await town.pass_time(6)
        assert shard.status().stories == (ONE,)
        await town.pass_time(5.5)
        assert shard.status().stories == ()
        # The lease itself lives on: nobody else can have started anything yet.
        assert (await town.types(ONE), town.sandbox.active) == (before, 0)


@pytest.mark.rule("EV-4", "EV-230", "LC-94")
async def test_shard_that_is_back_takes_its_story_up_again_without_blaming_it():
    town = Works()
    leases = town.leases = Cut(town)
    shard = town.shard()
    async with running(shard):
        await town.begin(ONE)
        await town.until(lambda: town.mill.starts == 1)
        leases.is_cut = True
        await town.pass_time(20)
        leases.is_cut = False
        await town.until(lambda: shard.status().stories == (ONE,), within_s=20)
        assert [(t.owner, t.cause) for t in await town.owners(ONE)] == [
            ("council:0/a1", "new"),
            ("council:0/a1", "expired"),
        ]
        assert (await town.state(ONE)).takeovers_without_progress == 0
        await town.until(lambda: town.mill.starts == 2)
        town.mill.go.set()


@pytest.mark.rule("GL-19")
async def test_runs_of_a_lost_story_are_killed_and_the_next_owner_runs_them_anew():
    town = Works()
    first, second = town.shard(sweep_s=3600), town.shard("council:1", "b1")
    async with running(first) as task:
        await town.begin(ONE)
        await town.until(lambda: town.mill.starts == 1)
        town.leases._held.clear()  # pyright: ignore[reportPrivateUsage]
        async with running(second):
            await town.until(lambda: second.status().stories == (ONE,), within_s=20)
            await town.until(lambda: first.status().stories == (), within_s=10)
            await town.until(lambda: town.mill.starts == 2, within_s=20)
            assert town.sandbox.active == 1
            town.mill.go.set()
            await town.pass_time(5)
            finished = [p for p in map(decode, await town.events(ONE)) if isinstance(p, StepFinished)]
            assert {p.outcome for p in finished} == {"failed"}
        assert not task.done()


@pytest.mark.rule("LC-93")
async def test_runs_of_a_cancelled_story_are_killed_and_its_lease_is_free():
    town = Works()
    shard = town.shard()
    async with running(shard):
        await town.begin(ONE)
        await town.until(lambda: town.mill.starts == 1)
        await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        await town.pass_time(2)
        assert (shard.status().stories, town.sandbox.active) == ((), 0)
        assert (await town.types(ONE))[-1] == "StoryCancelled"
        # The same command again is answered, and the story stays out of the open set.
        await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        assert await town.log.open_streams() == []
        await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=15)


@pytest.mark.rule("GL-19")
async def test_shard_that_finds_a_newer_incarnation_of_itself_stops_all_its_work():
    town = Town()
    old, new = town.shard(incarnation="a1"), town.shard(incarnation="a2")
    async with running(old) as task:
        await town.create(ONE)
        await town.create(TWO)
        async with running(new):
            await town.until(lambda: len(new.status().stories) == 2, within_s=20)
            await town.until(task.done, within_s=20)
            assert (old.status().state, old.status().stories, new.status().state) == ("superseded", (), "ready")
            before = [len(await town.owners(s)) for s in (ONE, TWO)]
            await town.pass_time(20)
            assert [len(await town.owners(s)) for s in (ONE, TWO)] == before == [2, 2]
            result = await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
            assert result["disposition"] == "cancelled"


def test_name_that_counts_incarnations_is_one_of_a_stream_without_a_story():
    assert incarnations_of("council:0") == "project:pr-incarnations-of-council-0"
    assert incarnations_of("council:eu--1") == "project:pr-incarnations-of-council-eu-1"


@pytest.mark.rule("EV-4")
@pytest.mark.parametrize("is_late", [True, False])
async def test_shard_whose_renewals_are_late_takes_no_more_stories(is_late: bool):
    town = Works()
    leases = town.leases = Cut(town)
    shard = town.shard(sweep_s=13)
    async with running(shard):
        await town.begin(ONE)
        await town.create(TWO)
        await town.until(lambda: town.mill.starts == 1)
        # The second story is lost, which the renewal after 5 s shows, and is free again.
        leases._held.pop(STREAM_TWO)  # pyright: ignore[reportPrivateUsage]
        await town.until(lambda: shard.status().stories == (ONE,), within_s=60)
        leases.claims.clear()
        leases.renewals_are_cut = is_late
        await town.pass_time(9)
        assert shard.status().stories[0] == ONE
        assert ((STREAM_TWO, shard.owner_id) in leases.claims) is not is_late
        town.mill.go.set()


@pytest.mark.rule("LC-94")
async def test_sweep_takes_no_more_stories_at_once_than_allowed():
    town = Town()
    async with running(town.shard()) as task:
        for number in range(5):
            await town.create(StoryId(f"st-many{number}"))
        await crash(task)
    shard = town.shard(incarnation="a2", sweep_s=60, max_claims=2)
    async with running(shard):
        await town.pass_time(1)
        assert len(shard.status().stories) == 2
        await town.pass_time(60)
        assert len(shard.status().stories) == 4


@pytest.mark.rule("EV-4")
async def test_stream_of_a_living_owner_is_tried_again_when_its_lease_would_end():
    town = Town()
    async with running(town.shard()):
        await town.create(ONE)
        leases = town.leases = Cut(town)
        await leases.claim(STREAM_ONE, "council:0/a1", ttl_s=30)
        leases.claims.clear()
        other = town.shard("council:1", "b1", sweep_s=1)
        async with running(other):
            await town.pass_time(29)
            tries = [stream for stream, _ in leases.claims if stream == STREAM_ONE]
            assert len(tries) == 1
            await town.until(lambda: other.status().stories == (ONE,), within_s=60)


def test_patience_grows_with_each_failure_up_to_its_cap_and_is_never_the_same_for_all():
    clock = MemoryClock()
    patience = Patience(clock, Random(7))
    waits: list[float] = []
    for number in range(1, 9):
        assert patience.failed(STREAM_ONE, base_s=1, cap_s=20) == number
        before = clock.monotonic_ms()
        while not patience.is_due(STREAM_ONE):
            clock.advance(0.1)
        waits.append((clock.monotonic_ms() - before) / 1000)
    assert waits[0] <= 1.1
    assert waits[3] > 3
    assert max(waits) <= 20.1
    assert len({round(w, 1) for w in waits[5:]}) > 1
    assert patience.is_due(STREAM_TWO)
    patience.postpone(STREAM_TWO, by_ms=1000)
    assert not patience.is_due(STREAM_TWO)
    patience.forget(STREAM_TWO)
    assert patience.is_due(STREAM_TWO)


def test_patience_of_one_seed_is_the_same_each_time():
    def waits(seed: str) -> list[int]:
        clock = MemoryClock()
        patience = Patience(clock, Random(seed))
        for _ in range(5):
            patience.failed(STREAM_ONE, base_s=1, cap_s=60)
        return [w.until_ms for w in patience._waits.values()]  # pyright: ignore[reportPrivateUsage]

    assert waits("council:0/a1") == waits("council:0/a1") != waits("council:1/b1")


async def taken_by_a_dead_shard(town: Town, *stories: StoryId) -> None:
    """These stories exist, and their owner is dead."""
    async with running(town.shard(incarnation="a0")) as task:
        for story_id in stories:
            await town.create(story_id)
        await crash(task)


class Spoiled(Town):
    """A town in which one story cannot be opened."""

    error: Exception = RuntimeError("a defect of the fold")
    spoiled = ONE
    opened = 0

    async def bench(self, story_id: StoryId = ONE, epoch: int = 0) -> Workbench:
        if story_id == self.spoiled:
            self.opened += 1
            raise self.error
        return await super().bench(story_id, epoch)


@pytest.mark.rule("LC-94")
async def test_story_that_cannot_be_folded_is_parked_after_three_tries_and_the_others_go_on():
    town = Spoiled()
    town.spoiled = StoryId("st-nobody1")
    await taken_by_a_dead_shard(town, ONE, TWO)
    town.spoiled = ONE
    shard = town.shard(incarnation="a2")
    async with running(shard) as task:
        await town.until(lambda: ONE in shard.status().left_alone, within_s=60)
        assert (shard.status().stories, task.done()) == ((TWO,), False)
        assert (shard.status().left_alone[ONE], town.opened) == ("a defect of the fold", 3)
        await town.pass_time(60)
        assert town.opened == 3
    state = await town.desk.state(ONE)
    assert state.park is not None
    assert (state.park.cause, "RuntimeError: a defect of the fold" in state.park.detail) == ("internal_error", True)
    # The next incarnation tries again, and does not park it once more.
    again = town.shard(incarnation="a3")
    async with running(again):
        await town.until(lambda: ONE in again.status().left_alone, within_s=60)
    assert (await town.types(ONE)).count("StoryParked") == 1


@pytest.mark.rule("EV-30", "LC-94")
async def test_story_that_a_newer_version_wrote_is_parked_at_once_and_nothing_is_skipped():
    town = Spoiled()
    town.spoiled = StoryId("st-nobody1")
    await taken_by_a_dead_shard(town, ONE, TWO)
    town.spoiled, town.error = ONE, UnsupportedSchema("story:st-one1/4 has schema 9, this reader knows 1")
    shard = town.shard(incarnation="a2")
    async with running(shard):
        await town.until(lambda: ONE in shard.status().left_alone, within_s=20)
        assert (town.opened, shard.status().stories) == (1, (TWO,))
        # A command finds it out anew, and says so.
        with pytest.raises(UnsupportedSchema):
            await town.do(ONE, "unpark", {"note": "is it readable now?"}, key="unpark")
        town.spoiled = StoryId("st-nobody1")
        assert (await town.do(ONE, "unpark", {"note": "the reader is new now"}, key="again"))["disposition"] == "active"
        assert shard.status().left_alone == {}
    (parked,) = [p for p in map(decode, await town.events(ONE)) if isinstance(p, StoryParked)]
    assert (parked.cause, parked.code) == ("unsupported_schema", "unsupported_schema")


@pytest.mark.rule("LC-94")
async def test_defect_in_the_task_of_a_story_ends_neither_the_shard_nor_its_other_stories():
    class Unparkable(Town):
        """The work on one story fails, and so does parking it."""

        async def bench(self, story_id: StoryId = ONE, epoch: int = 0) -> Workbench:
            bench = await super().bench(story_id, epoch)
            return _Broken(bench) if story_id == ONE and bench.journal.exists else bench  # type: ignore[return-value]

    class _Broken:
        def __init__(self, bench: Workbench) -> None:
            self._bench = bench

        def __getattr__(self, name: str) -> Any:
            if name == "clock":
                raise RuntimeError("a defect of ours")
            if name == "rules":
                raise KeyError("rules")
            return getattr(self._bench, name)

    town = Unparkable()
    await taken_by_a_dead_shard(town, ONE, TWO)
    shard = town.shard(incarnation="a2")
    async with running(shard) as task:
        await town.until(lambda: ONE in shard.status().left_alone, within_s=60)
        assert (shard.status().stories, task.done()) == ((TWO,), False)
    parks = [p for p in map(decode, await town.events(ONE)) if isinstance(p, StoryParked)]
    assert [p.cause for p in parks] == ["internal_error"]


class Moody(MemoryEventLog):
    """Reading some streams fails as if the store were away."""

    away: frozenset[StreamId] = frozenset()
    reads = 0

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        if stream in self.away:
            self.reads += 1
            raise StoreUnavailable("the store does not answer")
        return await super().read(stream, after=after, limit=limit)


@pytest.mark.rule("EV-23", "LC-94")
async def test_stream_that_does_not_answer_does_not_hold_up_the_others_and_is_not_blamed():
    log = Moody()
    town = Town(log=log)
    await taken_by_a_dead_shard(town, ONE, TWO)
    log.away = frozenset({STREAM_ONE})
    shard = town.shard(incarnation="a2")
    async with running(shard):
        await town.until(lambda: shard.status().stories == (TWO,), within_s=10)
        await town.pass_time(60)
        assert (log.reads > 3, shard.status().left_alone) == (True, {})
        log.away = frozenset()
        await town.until(lambda: len(shard.status().stories) == 2, within_s=10)


async def test_store_that_is_away_ends_the_sweep_instead_of_being_asked_for_every_stream():
    log = Moody()
    town = Town(log=log)
    stories = [StoryId(f"st-many{n}") for n in range(6)]
    await taken_by_a_dead_shard(town, *stories)
    log.away = frozenset(StreamId.of_story(s) for s in stories)
    shard = town.shard(incarnation="a2", sweep_s=60)
    async with running(shard):
        await town.pass_time(30)
        assert log.reads == 3


async def attested(town: Town, witness: MemoryWitness, *, version: int | None = None, hash: str = "") -> Head:
    """The checkpoint names the present head of the story, or another one."""
    head = await town.log.head(STREAM_ONE)
    found = Head(version=version or head.version, hash=hash or head.hash)
    witness.heads[STREAM_ONE] = found
    return found


@pytest.mark.rule("EV-19")
@pytest.mark.parametrize(
    ("change", "what"), [({"version": 99}, "ends before it"), ({"hash": "f" * 64}, "holds another event there")]
)
async def test_story_that_is_behind_its_checkpoint_is_refused_and_not_worked_on(change: dict[str, Any], what: str):
    town, witness = Town(), MemoryWitness()
    await taken_by_a_dead_shard(town, ONE, TWO)
    await attested(town, witness, **change)
    town.witness = witness
    shard = town.shard(incarnation="a2")
    before = await town.types(ONE)
    async with running(shard):
        await town.until(lambda: shard.status().stories == (TWO,), within_s=20)
        await town.pass_time(20)
        assert what in (await town.log.refused())[STREAM_ONE]
        assert (await town.types(ONE), shard.status().stories) == (before, (TWO,))
        with pytest.raises(LogRegressed, match="fleet accept-loss"):
            await town.do(ONE, "cancel", {"reason": "nobody needs it any more"}, key="stop")
        # Once an operator has accepted the loss, the record of it excuses what the checkpoint says.
        witness.heads.clear()
        await town.log.accept_loss(STREAM_ONE)
        await town.until(lambda: len(shard.status().stories) == 2, within_s=20)


@pytest.mark.rule("EV-19")
async def test_story_that_holds_what_was_attested_is_worked_on():
    town, witness = Town(), MemoryWitness()
    await taken_by_a_dead_shard(town, ONE)
    await attested(town, witness)
    town.witness = witness
    shard = town.shard(incarnation="a2")
    async with running(shard):
        await town.until(lambda: shard.status().stories == (ONE,), within_s=20)
        assert await town.log.refused() == {}


@pytest.mark.rule("EV-19")
async def test_owner_of_a_stream_that_somebody_refused_stops_and_goes_on_after_the_loss_was_accepted():
    town = Works()
    shard = town.shard()
    async with running(shard):
        await town.begin(ONE)
        await town.until(lambda: town.mill.starts == 1)
        await town.log.refuse(STREAM_ONE, reason="the projection is ahead of the log")
        town.mill.go.set()
        await town.until(lambda: shard.status().stories == (), within_s=10)
        assert (await town.types(ONE))[-1] == "StepStarted"
        await town.log.accept_loss(STREAM_ONE)
        await town.until(lambda: shard.status().stories == (ONE,), within_s=20)


@pytest.mark.rule("LC-94")
async def test_story_whose_owner_died_three_times_in_one_step_is_parked_by_the_fourth_before_it_works():
    town = Works()
    for life in range(1, 4):
        async with running(town.shard(incarnation=f"a{life}")) as task:
            if life == 1:
                await town.begin(ONE)
            await town.until(lambda life=life: town.mill.starts == life, within_s=60)
            await end_of_the_machine(town, task)
    fourth = town.shard(incarnation="a4")
    async with running(fourth):
        await town.until(lambda: fourth.status().stories == (ONE,), within_s=60)
        await town.pass_time(5)
        (park,) = await town.parks(ONE)
        assert (park.cause, town.mill.starts) == ("crash_loop", 3)
        assert "base/git-checkout" in park.detail
        assert [t.cause for t in await town.owners(ONE)] == ["new", "restart", "restart", "restart"]
        # A person lets it go on: the count begins anew, and the work is done.
        await town.do(ONE, "unpark", {"note": "the memory was doubled"}, key="unpark")
        await town.until(lambda: town.mill.starts == 4, within_s=20)
        town.mill.go.set()


async def end_of_the_machine(town: Works, task: asyncio.Task[None]) -> None:
    """The shard dies, and so do all runs: their keys are free again."""
    await crash(task)
    for run in list(town.sandbox._work.live.values()):  # pyright: ignore[reportPrivateUsage]
        run.task.cancel()
        await asyncio.gather(run.task, return_exceptions=True)


@pytest.mark.rule("LC-94")
async def test_story_that_kills_its_owners_does_not_park_its_neighbours():
    """ONE kills the process as soon as it runs; TWO is a long run that gets nowhere because of that."""
    town = Works()
    deaths = 0
    async with running(town.shard(incarnation="a1")) as task:
        await town.begin(ONE)
        await town.begin(TWO)
        await town.until(lambda: town.mill.starts == 2, within_s=60)
        await end_of_the_machine(town, task)
    for incarnation in range(2, 12):
        if await town.parks(ONE):
            break
        shard = town.shard(incarnation=f"a{incarnation}")
        async with running(shard) as task:
            for _ in range(400):
                await town.pass_time(0.5)
                if works_on(shard, ONE) or await town.parks(ONE):
                    break
                if len(shard.status().stories) == 1 and shard.status().stories == (TWO,):
                    town.mill.go.set()  # TWO is on probation, and gets on
            if await town.parks(ONE):
                break
            deaths += 1
            town.mill.go.clear()
            await end_of_the_machine(town, task)
    assert [p.cause for p in await town.parks(ONE)] == ["crash_loop"]
    assert [p.cause for p in await town.parks(TWO) if p.cause == "crash_loop"] == []
    assert deaths <= 4


def works_on(shard: CouncilShard, story_id: StoryId) -> bool:
    """Whether the story is in the hands of the shard."""
    return story_id in shard.status().stories


@pytest.mark.rule("AP-43")
async def test_command_waits_for_a_lease_that_ends_soon():
    town = Town()
    await town.leases.claim(STREAM_ONE, "council:9/z1", ttl_s=10)
    async with running(town.shard()):
        assert (await town.create(ONE))["state"] == "DRAFT"


@pytest.mark.rule("AP-43", "EV-23")
async def test_command_waits_out_an_outage_of_the_store():
    log = Moody()
    town = Town(log=log)
    log.away = frozenset({STREAM_ONE})
    async with running(town.shard()):
        asked = asyncio.create_task(town.create(ONE))
        await town.pass_time(10)
        assert not asked.done()
        log.away = frozenset()
        await town.until(asked.done, within_s=60)
        assert asked.result()["state"] == "DRAFT"


@pytest.mark.rule("EV-4")
async def test_lease_of_a_story_that_takes_long_to_load_is_renewed_before_it_is_worked_on():
    class Slow(Town):
        async def bench(self, story_id: StoryId = ONE, epoch: int = 0) -> Workbench:
            bench = await super().bench(story_id, epoch)
            if bench.journal.exists:
                self.clock.advance(9)
            return bench

    town = Slow()
    await taken_by_a_dead_shard(town, ONE)
    shard = town.shard(incarnation="a2", sweep_s=3600)
    async with running(shard):
        await town.until(lambda: shard.status().stories == (ONE,), within_s=60)
        await town.pass_time(3)
        assert shard.status().stories == (ONE,)


async def test_fenced_append_of_a_stranger_is_an_ownership_error():
    town = Town()
    await taken_by_a_dead_shard(town, ONE)
    head = await town.log.head(STREAM_ONE)
    with pytest.raises(OwnershipLost):
        await town.log.append(
            AppendRequest(
                stream=STREAM_ONE,
                events=[NewEvent(type="StoryClosed", schema=1, body=b"{}", causation="")],
                expected=Head(head.version, head.hash, head.epoch - 1),
                command_id=CommandId("st-one1/x/y"),
                actor=SYSTEM,
                ts_ms=0,
            )
        )
