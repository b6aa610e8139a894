"""Runs that another supervisor claimed: waited for while it may have them, taken over once it surely has not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.memory import MemoryPeers, MemoryRunLedger, MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.sandbox.port import Done, Running, RunProgress
from fleet.sandbox.service.tool_supervisor import SupervisorLimits, ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import eventually

STORY, KEY, SPEC = StoryId("st-auth-7"), RunKey("a" * 64), RunSpec(argv=("unit",))
ONE, TWO, THREE = "sandbox:one", "sandbox:two", "sandbox:three"
QUICK = SupervisorLimits(watch_s=0.02, renew_s=0.02)


class World:
    """One ledger, supervisors that know each other, and what each of them ran."""

    def __init__(self) -> None:
        self.ledger, self.blobs, self.peers = MemoryRunLedger(), MemoryBlobStore(), MemoryPeers()
        self.gate, self.ran = asyncio.Event(), list[str]()

    def supervisor(self, name: str) -> ToolSupervisor:
        async def program(_: ProgramStart) -> ProgramEnd:
            self.ran.append(name)
            await self.gate.wait()
            return ProgramEnd(stdout=name.encode())

        found = ToolSupervisor(
            MemorySandboxBackend(program, self.blobs),
            self.ledger,
            self.blobs,
            SystemClock(),
            name,
            peers=self.peers,
            limits=QUICK,
        )
        self.peers.add(name, found)
        return found

    async def claimed(self, *, is_detached: bool = False) -> Running:
        """The entry of a run that supervisor one began."""
        await self.ledger.claim(
            KEY, story=STORY, epoch=1, spec=SPEC.digest, supervisor=ONE, ttl_s=600, is_detached=is_detached
        )
        found = await self.ledger.lookup(KEY)
        assert isinstance(found, Running)
        return found

    def asked(self, supervisor: ToolSupervisor) -> asyncio.Task[RunResult]:
        return asyncio.create_task(supervisor.run(SPEC, story=STORY, key=KEY, epoch=1))


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.rule("RC-27", "RC-54")
async def test_run_of_a_supervisor_that_is_gone_for_good_is_run_at_once_by_the_next(world: World) -> None:
    await world.claimed()
    world.peers.end(ONE)
    world.gate.set()
    async with asyncio.timeout(5):
        result = await world.asked(world.supervisor(TWO))
    assert (result.stdout.text, world.ran) == (TWO, [TWO])


@pytest.mark.rule("RC-27", "RC-54")
async def test_run_of_a_supervisor_that_starts_again_waits_for_it(world: World) -> None:
    await world.claimed()
    world.peers.add(ONE, None)
    waiting = world.asked(world.supervisor(TWO))
    await asyncio.sleep(0.05)
    assert world.ran == []
    world.gate.set()
    result = await world.asked(world.supervisor(ONE))
    assert await waiting == result
    assert world.ran == [ONE]


@pytest.mark.rule("RC-51", "RC-54")
async def test_run_that_an_earlier_life_of_another_claimed_is_taken_over_once_that_one_lives(world: World) -> None:
    await world.claimed()
    world.supervisor(ONE)
    world.gate.set()
    async with asyncio.timeout(5):
        assert (await world.asked(world.supervisor(TWO))).stdout.text == TWO


@pytest.mark.rule("RC-54")
async def test_run_that_is_under_way_elsewhere_is_never_taken_over(world: World) -> None:
    one, two = world.supervisor(ONE), world.supervisor(TWO)
    first = world.asked(one)
    await eventually(lambda: world.ran == [ONE])
    second = world.asked(two)
    await asyncio.sleep(0.05)
    assert await two.progress(KEY) == RunProgress("running")
    world.gate.set()
    assert await first == await second
    assert world.ran == [ONE]


@pytest.mark.rule("RC-51", "RC-54")
async def test_many_that_take_over_one_run_agree_on_one_result(world: World) -> None:
    await world.claimed()
    world.peers.end(ONE)
    calls = [world.asked(world.supervisor(name)) for name in (TWO, THREE)] + [world.asked(world.supervisor(TWO))]
    await eventually(lambda: bool(world.ran))
    world.gate.set()
    results = await asyncio.gather(*calls)
    assert len({result.stdout.text for result in results}) == 1
    assert isinstance(await world.ledger.lookup(KEY), Done)


@pytest.mark.rule("RC-27")
async def test_detached_run_of_a_supervisor_that_is_gone_is_recorded_as_lost(world: World) -> None:
    await world.claimed(is_detached=True)
    two = world.supervisor(TWO)
    assert await two.progress(KEY) == RunProgress("running")
    world.peers.end(ONE)
    found = await two.progress(KEY, wait_s=5)
    assert found.result is not None
    assert (found.status, found.result.reason) == ("error", "sandbox_lost")
    assert not await two.cancel(KEY)


@pytest.mark.rule("RC-27")
async def test_submitted_again_a_run_of_a_supervisor_that_is_gone_starts_anew(world: World) -> None:
    await world.claimed(is_detached=True)
    world.peers.end(ONE)
    world.gate.set()
    found = await world.supervisor(TWO).submit(SPEC, story=STORY, key=KEY, epoch=1)
    assert (found.status, world.ran) == ("passed", [TWO])


@pytest.mark.rule("RC-21", "RC-24")
async def test_run_that_nobody_has_is_pending_and_cannot_be_cancelled(world: World) -> None:
    await world.claimed()
    two = world.supervisor(TWO)
    assert await two.cancel(KEY)
    world.peers.end(ONE)
    assert await two.progress(KEY) == RunProgress("pending")
    assert not await two.cancel(KEY)


class Ended:
    """A peer that says that it has no run, and before it says so, something happens."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.happens = happens

    async def holds(self, key: RunKey) -> bool:
        outcome = self.happens()
        if asyncio.iscoroutine(outcome):
            await outcome
        return False


@pytest.mark.rule("RC-54")
async def test_result_that_is_recorded_while_its_supervisor_is_asked_stays(world: World) -> None:
    await world.claimed(is_detached=True)
    result = RunResult(status="passed", reason="ok", exit_code=0)
    digest = await world.blobs.put(result.model_dump_json().encode())
    end = lambda: world.ledger.finish(KEY, epoch=1, supervisor=ONE, result=digest)  # noqa: E731
    world.peers.add(ONE, Ended(end))  # pyright: ignore[reportArgumentType]
    assert (await world.supervisor(TWO).progress(KEY)).status == "passed"
    assert (await world.asked(world.supervisor(THREE))).status == "passed"
    assert world.ran == []
