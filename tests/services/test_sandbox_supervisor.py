"""The supervisor service: one result per key, over the ledger and the scripted backend."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import ArtifactNotFound, IdempotencyMismatch, OwnershipLost, SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.memory import MemoryRunLedger, MemorySandboxBackend, ProgramEnd, ProgramStart, by_argv
from fleet.sandbox.port import Done, Running, SandboxHealth
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import eventually

STORY = StoryId("st-auth-7")
KEY = RunKey("a" * 64)
SPEC = RunSpec(argv=("unit",))

Program = Callable[[ProgramStart], ProgramEnd | Awaitable[ProgramEnd]]


class World:
    """A ledger and a blob store, and supervisors over them."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobStore()
        self.ledger = MemoryRunLedger()
        self.gate = asyncio.Event()

    async def held(self, _: ProgramStart) -> ProgramEnd:
        await self.gate.wait()
        return ProgramEnd(stdout=b"done")

    def supervisor(self, program: Program, name: str = "sandbox:one") -> tuple[ToolSupervisor, MemorySandboxBackend]:
        backend = MemorySandboxBackend(program, self.blobs)
        return ToolSupervisor(backend, self.ledger, self.blobs, SystemClock(), name), backend


@pytest.fixture
def world() -> World:
    return World()


def passes(_: ProgramStart) -> ProgramEnd:
    return ProgramEnd(stdout=b"done")


@pytest.mark.rule("RC-54")
async def test_run_of_a_known_key_is_answered_from_the_record(world: World) -> None:
    one, backend = world.supervisor(passes)
    two, other = world.supervisor(passes, "sandbox:two")
    first = await one.run(SPEC, story=STORY, key=KEY, epoch=1)
    second = await two.run(SPEC, story=STORY, key=KEY, epoch=1)

    assert first == second
    assert (len(backend.runs), len(other.runs)) == (1, 0)


async def test_result_is_stored_before_the_ledger_says_done(world: World) -> None:
    one, _ = world.supervisor(passes)
    result = await one.run(SPEC, story=STORY, key=KEY, epoch=1)
    entry = await world.ledger.lookup(KEY)

    assert isinstance(entry, Done)
    assert await world.blobs.get(entry.result) == canonical_json(result)


@pytest.mark.rule("RC-54")
async def test_two_supervisors_race_many_keys_and_run_each_once(world: World) -> None:
    async def slow(_: ProgramStart) -> ProgramEnd:
        await asyncio.sleep(0)
        return ProgramEnd()

    pair = [world.supervisor(slow, f"sandbox:{name}") for name in ("one", "two")]
    keys = [RunKey(f"{n:064x}") for n in range(40)]
    results = await asyncio.gather(*(s.run(SPEC, story=STORY, key=k, epoch=1) for k in keys for s, _ in pair))

    assert sum(len(backend.runs) for _, backend in pair) == len(keys)
    assert all(result == results[0] for result in results)


async def test_second_caller_of_a_running_key_joins_it(world: World) -> None:
    one, backend = world.supervisor(world.held)
    calls = [asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1)) for _ in range(3)]
    await eventually(lambda: one.active == 1)
    world.gate.set()
    results = await asyncio.gather(*calls)

    assert [r.stdout.text for r in results] == ["done"] * 3
    assert len(backend.runs) == 1


async def test_run_goes_on_when_its_caller_is_cancelled(world: World) -> None:
    one, backend = world.supervisor(world.held)
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: len(backend.runs) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert one.active == 1
    world.gate.set()
    await eventually(lambda: one.active == 0)

    assert (await one.run(SPEC, story=STORY, key=KEY, epoch=1)).stdout.text == "done"
    assert len(backend.runs) == 1


async def test_run_under_way_elsewhere_is_waited_for(world: World) -> None:
    one, _ = world.supervisor(world.held)
    two, other = world.supervisor(passes, "sandbox:two")
    first = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: one.active == 1)
    second = asyncio.create_task(two.run(SPEC, story=STORY, key=KEY, epoch=1))
    await asyncio.sleep(0)
    world.gate.set()

    assert await first == await second
    assert other.runs == []


@pytest.mark.rule("RC-27")
async def test_restarted_supervisor_takes_its_own_lost_run_up_again(world: World) -> None:
    await world.ledger.claim(KEY, story=STORY, epoch=1, spec=SPEC.digest, supervisor="sandbox:one", ttl_s=600)
    one, backend = world.supervisor(passes)

    assert (await one.run(SPEC, story=STORY, key=KEY, epoch=1)).status == "passed"
    assert len(backend.runs) == 1


@pytest.mark.rule("RC-54")
async def test_run_with_an_old_epoch_is_refused_and_not_started(world: World) -> None:
    one, backend = world.supervisor(passes)
    await one.run(SPEC, story=STORY, key=KEY, epoch=5)

    with pytest.raises(OwnershipLost):
        await one.run(SPEC, story=STORY, key=RunKey("b" * 64), epoch=4)
    assert len(backend.runs) == 1


@pytest.mark.rule("RC-12")
async def test_same_key_with_another_specification_is_a_mismatch(world: World) -> None:
    one, _ = world.supervisor(world.held)
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: one.active == 1)

    with pytest.raises(IdempotencyMismatch):
        await one.run(RunSpec(argv=("other",)), story=STORY, key=KEY, epoch=1)
    world.gate.set()
    await call


@pytest.mark.rule("RC-18")
async def test_cancelled_run_is_recorded_as_cancelled(world: World) -> None:
    one, backend = world.supervisor(world.held)
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: len(backend.runs) == 1)

    assert await one.cancel(KEY)
    assert (await call).reason == "cancelled"
    assert not await one.cancel(KEY)
    assert (await one.run(SPEC, story=STORY, key=KEY, epoch=1)).reason == "cancelled"


async def test_refused_run_frees_its_key(world: World) -> None:
    one, _ = world.supervisor(by_argv({("unit",): ProgramEnd()}))
    tree = Digest("sha256:" + "0" * 64)

    with pytest.raises(ArtifactNotFound):
        await one.run(RunSpec(argv=("unit",), tree=tree), story=STORY, key=KEY, epoch=1)
    assert await world.ledger.lookup(KEY) is None
    assert (await one.run(SPEC, story=STORY, key=RunKey("c" * 64), epoch=1)).status == "passed"


class NoSandbox:
    """A backend on a machine without user namespaces."""

    async def run(self, spec: RunSpec, *, run_id: str, **_: object) -> RunResult:
        raise SandboxUnavailable("user namespaces are off", missing="userns")

    async def cancel(self, run_id: str) -> bool:
        return False

    async def health(self) -> SandboxHealth:
        return SandboxHealth(status="down", backend="none")

    async def sweep(self) -> int:
        return 3


@pytest.mark.rule("RC-32")
async def test_unavailable_sandbox_frees_the_key_and_says_so(world: World) -> None:
    one = ToolSupervisor(NoSandbox(), world.ledger, world.blobs, SystemClock(), "sandbox:one")

    with pytest.raises(SandboxUnavailable, match="user namespaces"):
        await one.run(SPEC, story=STORY, key=KEY, epoch=1)
    assert await world.ledger.lookup(KEY) is None
    assert (await one.health()).status == "down"
    assert await one.sweep() == 3


async def test_result_that_another_recorded_first_is_the_one_returned(world: World) -> None:
    one, backend = world.supervisor(world.held)
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: len(backend.runs) == 1)
    theirs = RunResult(status="passed", reason="ok", exit_code=0, backend="theirs")
    digest = await world.blobs.put(canonical_json(theirs))
    await world.ledger.finish(KEY, epoch=1, supervisor="sandbox:two", result=digest)
    world.gate.set()

    assert (await call).backend == "theirs"
    assert not isinstance(await world.ledger.lookup(KEY), Running)


async def test_command_that_no_script_knows_is_not_found(world: World) -> None:
    one, _ = world.supervisor(by_argv({}))

    assert (await one.run(SPEC, story=STORY, key=KEY, epoch=1)).exit_code == 127
