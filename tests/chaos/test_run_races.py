"""F13: two supervisors and one key. One of them runs the command, both answer with its result."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import OwnershipLost
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.runs.spec import RunSpec
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.sandbox.port import Done, Running
from fleet.sandbox.redis import RedisRunLedger
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from tests.support.chaos_servers import connected
from tests.support.chaos_stories import story_name
from tests.support.stores import empty_database, eventually, own_database

pytestmark = pytest.mark.timeout(600)


class FastClock(SystemClock):
    """The machine's clock, with pauses a hundred times shorter, so that hundreds of races take seconds."""

    async def sleep(self, seconds: float) -> None:
        """Return after a hundredth of `seconds`."""
        await asyncio.sleep(seconds / 100)


class Place:
    """What both supervisors share: the ledger's server and the blobs. Every start of a command is counted."""

    def __init__(self, life: str = "only") -> None:
        self.life = life
        self.blobs = MemoryBlobStore()
        self.started: Counter[str] = Counter()
        self.may_end = asyncio.Event()
        self.may_end.set()

    def supervisor(self, client: Redis, name: str) -> tuple[ToolSupervisor, MemorySandboxBackend]:
        """A supervisor over a backend of its own, whose runs tell who ran them."""

        async def program(start: ProgramStart) -> ProgramEnd:
            self.started[start.env["KEY"]] += 1
            await asyncio.sleep(0)
            await self.may_end.wait()
            # The answer differs from run to run, as that of a real command does.
            return ProgramEnd(stdout=f"{name} {self.life} {self.started.total()}".encode())

        backend = MemorySandboxBackend(program, self.blobs)
        return ToolSupervisor(backend, RedisRunLedger(client, margin_s=2), self.blobs, FastClock(), name), backend


def key_of(number: int | str) -> RunKey:
    return RunKey(hashlib.sha256(f"race {number}".encode()).hexdigest())


def spec_of(key: RunKey) -> RunSpec:
    return RunSpec(argv=("make", "test"), env={"KEY": key})


@pytest.fixture
async def clients(redis_url: str) -> AsyncGenerator[tuple[Redis, Redis]]:
    """Two connections to one empty ledger, as two supervisors have them."""
    url = own_database(redis_url)
    async with empty_database(url) as one, connected(url) as two:
        yield one, two


@pytest.mark.parametrize("races", [50, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.rule("RC-51", "RC-54")
async def test_two_supervisors_racing_for_one_key_run_it_once_and_agree(
    clients: tuple[Redis, Redis], races: int
) -> None:
    place, story, draw = Place(), story_name("race"), random.Random(13)
    pair = [place.supervisor(client, f"sandbox:{n}") for n, client in enumerate(clients)]
    won: Counter[str] = Counter()
    for number in range(races):
        key = key_of(number)

        async def ask(supervisor: ToolSupervisor, late_ms: int, key: RunKey = key) -> bytes:
            await asyncio.sleep(late_ms / 1000)
            return canonical_json(await supervisor.run(spec_of(key), story=story, key=key, epoch=1))

        before = [len(backend.runs) for _, backend in pair]
        answers = await asyncio.gather(*(ask(supervisor, draw.choice((0, 0, 1))) for supervisor, _ in pair))
        assert answers[0] == answers[1]
        ran = [len(backend.runs) - count for (_, backend), count in zip(pair, before, strict=True)]
        assert sorted(ran) == [0, 1]
        won[f"sandbox:{ran.index(1)}"] += 1
    assert set(place.started.values()) == {1}
    assert len(place.started) == races
    # Both were first at times, or the race was none.
    assert set(won) == {"sandbox:0", "sandbox:1"}


@pytest.mark.rule("RC-51", "RC-54")
async def test_run_of_a_supervisor_that_died_running_is_taken_over_after_its_deadline(
    clients: tuple[Redis, Redis],
) -> None:
    place, story, key = Place(), story_name("died"), key_of("died")
    ledger = RedisRunLedger(clients[0])
    # The first supervisor claimed the key and died with the command: nothing is left of it but this entry.
    await ledger.claim(key, story=story, epoch=1, spec=spec_of(key).digest, supervisor="sandbox:dead", ttl_s=1)
    assert isinstance(await ledger.lookup(key), Running)
    survivor, backend = place.supervisor(clients[1], "sandbox:alive")
    asked = asyncio.create_task(survivor.run(spec_of(key), story=story, key=key, epoch=1))
    assert await eventually(lambda: len(backend.runs) == 1, within_s=10)
    result = await asked
    assert place.started == {key: 1}
    assert isinstance(await ledger.lookup(key), Done)
    again, other = place.supervisor(clients[0], "sandbox:dead")
    assert await again.run(spec_of(key), story=story, key=key, epoch=1) == result
    assert other.runs == []


@pytest.mark.rule("RC-51", "RC-54")
async def test_run_of_a_supervisor_that_comes_back_is_run_again_at_once_and_counts_once(
    clients: tuple[Redis, Redis],
) -> None:
    before, after, story, key = Place("first"), Place("second"), story_name("back"), key_of("back")
    before.may_end.clear()
    first, backend = before.supervisor(clients[0], "sandbox:same")
    after.blobs = before.blobs
    asked = asyncio.create_task(first.run(spec_of(key), story=story, key=key, epoch=1))
    assert await eventually(lambda: len(backend.runs) == 1, within_s=5)
    # Its second life does not wait for the deadline of the first: the processes of that one are gone.
    second, _ = after.supervisor(clients[1], "sandbox:same")
    async with asyncio.timeout(5):
        result = await second.run(spec_of(key), story=story, key=key, epoch=1)
    # And if they were not gone after all, their late end changes nothing.
    before.may_end.set()
    assert await asked == result
    assert before.started == after.started == {key: 1}
    found = await RedisRunLedger(clients[0]).lookup(key)
    assert isinstance(found, Done)
    assert await after.blobs.get(found.result) == canonical_json(result)


@pytest.mark.rule("RC-54", "EV-14")
async def test_supervisor_asked_by_an_old_owner_starts_nothing(clients: tuple[Redis, Redis]) -> None:
    place, story = Place(), StoryId(story_name("fenced"))
    new, _ = place.supervisor(clients[0], "sandbox:0")
    old, backend = place.supervisor(clients[1], "sandbox:1")
    await new.run(spec_of(key_of("new")), story=story, key=key_of("new"), epoch=2)
    for key in (key_of("new"), key_of("late")):
        with pytest.raises(OwnershipLost):
            await old.run(spec_of(key), story=story, key=key, epoch=1)
    assert backend.runs == []
