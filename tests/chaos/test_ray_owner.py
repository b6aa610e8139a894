"""The owner of a story is killed, frozen and doubled: real council actors on a real Ray (F2, F12, F14).

`make test` has the shortest, and one of a whole run in `tests/ray/test_fleet_run.py`; `make test-wide` has more.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.errors import OwnershipLost
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.log.redis.connection import connect_redis
from fleet.sandbox.redis import RedisRunLedger
from fleet.story.state import StoryState
from tests.support.oracle import check
from tests.support.ray_fleet import (
    OWN_TO_A_RUN,
    Client,
    RayFleet,
    acknowledged_is_kept,
    end_without_faults,
    owners_of,
    ray_fleet,
    until,
)
from tests.support.ray_log_proxy import Append
from tests.support.team_models import demo_repository, demo_story

TTL_S = 4
PROMPT_S = TTL_S + 16
"""How soon a story has an owner again, in the long runs: they have the machine for themselves."""
TAKEOVER_S = TTL_S + 90
"""That somebody takes over is what is tested; how fast on an idle machine is a figure, not a test."""
RESTART_S = 300
EACH_S = 0.1
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayFleet]:
    """One fleet with two council shards for all tests of this module; afterwards nothing of it is left."""
    with ray_fleet(tmp_path_factory.mktemp("f"), shards=2, ttl_s=TTL_S) as found:
        yield found


@pytest.fixture(autouse=True)
def no_rules(fleet: RayFleet) -> Iterator[None]:
    """A test leaves no rule of its own in the way of the next."""
    yield
    fleet.proxy.before = fleet.proxy.after = None


def draft(number: int) -> dict[str, Any]:
    """The text of a story that nobody starts."""
    return {**demo_story(), "title": f"As a reader, I want draft number {number} of a story"}


class KillOwner:
    """A rule that kills the owner's process at chosen appends: after they are stored, before anybody is told."""

    def __init__(self, fleet: RayFleet, story_id: StoryId, *, every: int, offset: int, most: int) -> None:
        self._fleet, self._stream = fleet, f"story:{story_id}"
        self._every, self._offset, self._most = every, offset, most
        self._seen = 0
        self.killed: dict[int, float] = {}
        """Epoch that ended -> when."""

    async def __call__(self, append: Append) -> bool:
        owner = self._fleet.proxy.owners(self._stream).get(append.epoch)
        if append.stream != self._stream or append.outcome != "OK" or owner is None or append.owner is not None:
            return True
        self._seen += 1
        if self._seen % self._every != self._offset or len(self.killed) == self._most or "StoryClosed" in append.types:
            return True
        self._fleet.send(owner[1], signal.SIGKILL)
        self.killed[append.epoch] = time.time() * 1000
        return False


async def run_killed(
    fleet: RayFleet, root: Path, *, every: int, offset: int = 0, most: int = 10_000, within_s: float, takeover_s: float
) -> KillOwner:
    """The example story came to its end although its owner was killed again and again; the oracle holds."""
    async with fleet.client() as client:
        story_id = await client.create(demo_story())
        repo = await asyncio.to_thread(demo_repository, root / "stage")
        fleet.proxy.after = rule = KillOwner(fleet, story_id, every=every, offset=offset, most=most)
        await client.start(story_id, repo)
        state = await client.settled(story_id, within_s=within_s)
        fleet.proxy.after = None
        assert state.closed, (state.park, rule.killed)
        events = await client.events(story_id)
        taken = {e.epoch: e.ts_ms for e in events if e.type == "OwnershipTaken"}
        # More, when a claim lost its reply on a busy machine.
        assert len(taken) > len(rule.killed)
        assert rule.killed.keys() < taken.keys()
        # Not the very next epoch: a claim whose reply was lost is made again and raises it once more.
        waited = {e: min(ts for epoch, ts in taken.items() if epoch > e) - at for e, at in rule.killed.items()}
        late = {e: ms for e, ms in waited.items() if ms > takeover_s * 1000}
        assert late == {}, f"takeovers that took longer than {takeover_s} s: {late}"
        started = Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepStarted")
        finished = Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepFinished")
        assert set(started.values()) == set(finished.values()) == {1}
        assert started.keys() == finished.keys()
        assert acknowledged_is_kept(fleet.proxy.of(f"story:{story_id}"), events) > 100
        expected = await end_without_faults(root / "plain", story_id)
        await verify(fleet, client, expected={story_id: expected}, fired={"kill": len(rule.killed)})
    return rule


async def verify(
    fleet: RayFleet, client: Client, *, expected: dict[StoryId, StoryState] | None = None, **more: Any
) -> None:
    """The oracle over the whole log of the fleet."""
    await check(client.log, acknowledged=(), expected=expected, ignore=OWN_TO_A_RUN, may_park=fleet.may_park, **more)


@pytest.mark.wide
@pytest.mark.rule("GL-19", "EV-4")
async def test_council_killed_three_times_takes_the_story_up_and_ends_as_without_faults(
    fleet: RayFleet, tmp_path: Path
) -> None:
    rule = await run_killed(fleet, tmp_path, every=40, most=3, within_s=400, takeover_s=TAKEOVER_S)
    assert len(rule.killed) == 3


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("offset", [0, 1, 2])
async def test_council_killed_at_every_third_append_takes_the_story_up_each_time(
    fleet: RayFleet, tmp_path: Path, offset: int
) -> None:
    # Three stories of which each is hit at another third of the appends: together at every boundary between two
    # events. One story alone would be parked: three kills without a finished step are a crash loop (LC-94).
    rule = await run_killed(fleet, tmp_path, every=3, offset=offset, within_s=1200, takeover_s=PROMPT_S)
    assert len(rule.killed) > 40


class HoldStep:
    """A rule that stops the owner's process at one append and holds that append, or its reply, until `release`.

    The next owner comes to the same append and has to wait as well, until the first one was answered.
    """

    def __init__(self, fleet: RayFleet, story_id: StoryId, *, step: str, kind: str) -> None:
        self._fleet, self._stream = fleet, f"story:{story_id}"
        self._step, self._kind = step, kind
        self._released = False
        self.held: Append | None = None
        self.pid = 0

    async def __call__(self, append: Append) -> bool:
        owner = self._fleet.proxy.owners(self._stream).get(append.epoch)
        if self.held is None and owner and append.types == (self._kind,) and self._step in append.command_id:
            self.pid = owner[1]
            self._fleet.send(self.pid, signal.SIGSTOP)
            self.held = append
            await self._until(lambda: self._released)
        elif self.held is not None and append.command_id == self.held.command_id:
            await self._until(lambda: self.held is not None and bool(self.held.outcome))
        return True

    async def _until(self, what: Callable[[], bool]) -> None:
        while not what():
            await asyncio.sleep(0.01)

    def release(self) -> None:
        """The append, or its reply, goes on its way, and the process too."""
        self._released = True
        self._fleet.send(self.pid, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.rule("GL-19", "EV-3")
@pytest.mark.parametrize("where", ["before", "after"])
async def test_frozen_owner_is_fenced_when_it_comes_back_and_gives_the_story_up(
    fleet: RayFleet, tmp_path: Path, where: str
) -> None:
    """F12. `before`: its append was under way. `after`: it was stored, and the reply was under way."""
    async with fleet.client() as client:
        story_id = await client.create(demo_story())
        stream = f"story:{story_id}"
        repo = await asyncio.to_thread(demo_repository, tmp_path / "stage")
        kind = "StepFinished" if where == "before" else "StepStarted"
        rule = HoldStep(fleet, story_id, step="/agent-task/", kind=kind)
        setattr(fleet.proxy, where, rule)
        await client.start(story_id, repo, delegate=("qa",))
        await until(lambda: rule.held, within_s=400, why="a tool step of the story was reached")
        held = rule.held
        assert held is not None
        frozen = time.monotonic()
        zombie = fleet.proxy.owners(stream)[held.epoch]
        first_epoch = held.epoch

        async def taken_over() -> bool:
            return any(epoch > first_epoch for epoch, _ in owners_of(await client.events(story_id)))

        await until(taken_over, within_s=PROMPT_S, why="another shard took the story over")
        await asyncio.sleep(max(0.0, 2 * TTL_S - (time.monotonic() - frozen)))
        assert fleet.proxy.owners(stream)[max(fleet.proxy.owners(stream))][0] != zombie[0]
        rule.release()
        await until(lambda: held.outcome, within_s=5, why="the held append was answered")
        assert held.outcome == ("FENCED" if where == "before" else "OK")

        def is_gone() -> bool:
            told = [c for c in fleet.councils() if c is not None and c["owner"].startswith(f"{zombie[0]}/{zombie[1]}-")]
            return bool(told) and story_id not in told[0]["stories"]

        await until(is_gone, within_s=2, why="the frozen owner has given the story up")
        state = await client.settled(story_id, within_s=400)
        assert client.desk.waiting_for(state) is not None
        tried = [a for a in fleet.proxy.of(stream) if a.epoch == first_epoch]
        assert [a for a in tried[tried.index(held) + 1 :] if a.outcome == "OK"] == []
        await tool_run_is_refused(fleet, story_id, epoch=first_epoch)
        events = await client.events(story_id)
        assert acknowledged_is_kept(fleet.proxy.of(stream), events) > 5
        await verify(fleet, client, fired={"freeze": 1}, sometimes={"takeover": len(owners_of(events)) > 1})


async def tool_run_is_refused(fleet: RayFleet, story_id: StoryId, *, epoch: int) -> None:
    """The ledger, which every supervisor asks first, has seen a newer epoch of the story (RC-54)."""
    redis = connect_redis(fleet.redis_url)
    try:
        with pytest.raises(OwnershipLost):
            await RedisRunLedger(redis).claim(
                RunKey("ab" * 32),
                story=story_id,
                epoch=epoch,
                spec=Digest("sha256:" + "0" * 64),
                supervisor="s",
                ttl_s=9,
            )
    finally:
        await redis.aclose()


async def shards_killed_at_random(fleet: RayFleet, root: Path, *, drafts: int, kills: int, seed: int) -> None:
    """F14. Shards are killed at random while one story is worked on and many are open; then each has one owner."""
    choose = random.Random(seed)
    async with fleet.client() as client:
        stories = [await client.create(draft(seed * 1000 + n)) for n in range(drafts)]
        working = await client.create(demo_story())
        repo = await asyncio.to_thread(demo_repository, root / "stage")
        await client.start(working, repo)
        for _ in range(kills):
            await asyncio.sleep(choose.uniform(0.3, 2.5))
            living = [c for c in await asyncio.to_thread(fleet.councils) if c is not None]
            if living:
                fleet.send(int(choose.choice(living)["owner"].split("/")[1].split("-")[0]), signal.SIGKILL)
        wanted = Counter(stories)

        def both_live() -> bool:
            return None not in fleet.councils()

        # The last kills may leave no shard at all: until Ray has started them again nobody is there to take over.
        await until(both_live, within_s=RESTART_S, why="Ray has started both shards again")
        back = time.monotonic()

        def each_has_one_owner() -> bool:
            told = [c for c in fleet.councils() if c is not None]
            held = Counter(StoryId(s) for c in told for s in c["stories"] if s in wanted)
            return len(told) == 2 and held == wanted

        # Each takeover folds a story and writes one event: many at once take their time on a busy machine.
        within_s = TAKEOVER_S + EACH_S * drafts
        await until(each_has_one_owner, within_s=within_s, why="each open story has exactly one living owner")
        took = time.monotonic() - back
        state = await client.settled(working, within_s=400)
        assert state.closed or (state.park is not None and state.park.cause == "crash_loop"), state.park
        for story_id in stories:
            only_owners_wrote(fleet, story_id, await client.events(story_id))
        only_owners_wrote(fleet, working, await client.events(working))
        assert took <= within_s
        takeovers = sum([len(owners_of(await client.events(s))) - 1 for s in stories])
        if not state.closed:
            fleet.may_park.add(working)
        await verify(fleet, client, fired={"kill": kills}, sometimes={"takeover of an idle story": takeovers > 0})


def only_owners_wrote(fleet: RayFleet, story_id: StoryId, events: list[Any]) -> None:
    """Who lost a claim has tried nothing, and each epoch has the one owner that the stream names."""
    tried = fleet.proxy.of(f"story:{story_id}")
    owners = owners_of(events)
    assert len({epoch for epoch, _ in owners}) == len(owners)
    assert {a.epoch for a in tried} <= {epoch for epoch, _ in owners}
    assert [a for a in tried if a.outcome == "FENCED"] == []


@pytest.mark.wide
@pytest.mark.rule("EV-4")
async def test_stories_of_shards_killed_at_random_end_with_one_owner_each(fleet: RayFleet, tmp_path: Path) -> None:
    await shards_killed_at_random(fleet, tmp_path, drafts=8, kills=5, seed=14)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_two_hundred_stories_of_shards_killed_at_random_end_with_one_owner_each(
    fleet: RayFleet, tmp_path: Path, seed: int
) -> None:
    await shards_killed_at_random(fleet, tmp_path, drafts=200, kills=25, seed=seed)


async def until_parked(client: Client, story_id: StoryId) -> StoryState:
    """The story, once it is parked."""

    async def parked() -> StoryState | None:
        state = await client.desk.state(story_id)
        return state if state.disposition == "parked" else None

    return await until(parked, within_s=400, why=f"story {story_id} is parked")


@pytest.mark.rule("LC-94")
async def test_story_that_kills_its_shard_is_parked_and_its_neighbours_are_not(fleet: RayFleet, tmp_path: Path) -> None:
    async with fleet.client() as client:
        neighbours = [await client.create(draft(100 + n)) for n in range(6)]
        story_id = await client.create(demo_story())
        stream, killed = f"story:{story_id}", list[int]()

        async def kill_in_the_step(append: Append) -> bool:
            owner = fleet.proxy.owners(stream).get(append.epoch)
            if append.stream != stream or owner is None or append.types != ("StepFinished",):
                return True
            # Its shards die with every neighbour: those are idle, so only this story is counted.
            fleet.send(owner[1], signal.SIGKILL)
            killed.append(append.epoch)
            return False

        fleet.proxy.before = kill_in_the_step
        repo = await asyncio.to_thread(demo_repository, tmp_path / "stage")
        await client.start(story_id, repo)
        state = await until_parked(client, story_id)
        fleet.proxy.before = None
        assert state.park is not None
        assert state.park.cause == "crash_loop"
        fleet.may_park.add(story_id)
        assert len(killed) == 3

        async def hit() -> list[StoryId]:
            return [n for n in neighbours if len(owners_of(await client.events(n))) > 1]

        taken = await until(hit, within_s=TAKEOVER_S, why="a neighbour was in a shard that died, and was taken over")
        for neighbour in neighbours:
            assert (await client.desk.state(neighbour)).disposition == "active"
        await client.start(taken[0], await asyncio.to_thread(demo_repository, tmp_path / "other"), delegate=())
        state = await client.settled(taken[0], within_s=400)
        assert client.desk.waiting_for(state) is not None
        await verify(fleet, client, fired={"kill": len(killed)})
