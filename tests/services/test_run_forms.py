"""The outer form of runs: submit, progress, lines, cancel through any supervisor, secrets, a full queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fleet.kernel.clock import MemoryClock, SystemClock
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import (
    ArtifactNotFound,
    InvalidInput,
    LogCorrupted,
    NotFound,
    PolicyDenied,
    SandboxUnavailable,
    StoreUnavailable,
)
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import Grantee, OutputStream, RunResult, RunSpec
from fleet.policy.secret_grants import SecretAccess, SecretGrant, SecretPolicy
from fleet.sandbox.memory import MemoryRunLedger, MemoryRunLogs, MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.sandbox.port import Done, LogSink, Lost, RunLogs, Running, RunProgress, SandboxBackend, SandboxHealth
from fleet.sandbox.service.tool_supervisor import SupervisorLimits, ToolSupervisor
from fleet.secrets.memory import MemorySecrets
from fleet.secrets.port import SecretDelivery
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.memory import MemoryBlobStore
from tests.support.sandbox import eventually

STORY = StoryId("st-auth-7")
KEY = RunKey("a" * 64)
SPEC = RunSpec(argv=("unit",))
QUICK = SupervisorLimits(watch_s=0.02, renew_s=0.02)
VALUE = "s3cret-of-the-test"

Program = Callable[[ProgramStart], ProgramEnd | Awaitable[ProgramEnd]]


class World:
    """A ledger, lines and blobs, and supervisors over them."""

    def __init__(self) -> None:
        self.blobs = MemoryBlobStore()
        self.store_clock = MemoryClock()
        self.ledger = MemoryRunLedger(self.store_clock)
        self.logs = MemoryRunLogs()
        self.gate = asyncio.Event()
        self.accesses: list[SecretAccess] = []

    async def held(self, _: ProgramStart) -> ProgramEnd:
        await self.gate.wait()
        return ProgramEnd(stdout=b"one\ntwo\n", stderr=b"three\n")

    def supervisor(
        self,
        program: Program | None = None,
        name: str = "sandbox:one",
        *,
        limits: SupervisorLimits = QUICK,
        logs: RunLogs | None = None,
    ) -> ToolSupervisor:
        backend = MemorySandboxBackend(program or self.held, self.blobs)
        return ToolSupervisor(
            backend, self.ledger, self.blobs, SystemClock(), name, logs=logs or self.logs, limits=limits
        )

    def with_secrets(self, program: Program, backend: SandboxBackend | None = None) -> ToolSupervisor:
        """A supervisor that may hand `deploy-token` to devops for kubectl.apply."""
        known = KnownSecrets()
        grant = SecretGrant(
            secret="deploy-token", roles=frozenset({"devops"}), tool="kubectl", ops=frozenset({"apply"})
        )

        async def record(line: SecretAccess) -> None:
            self.accesses.append(line)

        provider = MemorySecrets()
        provider.put("deploy-token", VALUE)
        broker = SecretBroker(
            {"deploy-token": provider},
            SecretPolicy(grants=(grant,)),
            clock=SystemClock(),
            record=record,
            known_secrets=known,
        )
        return ToolSupervisor(
            backend or MemorySandboxBackend(program, self.blobs),
            self.ledger,
            self.blobs,
            SystemClock(),
            "sandbox:one",
            logs=self.logs,
            secrets=broker,
            known=known,
            limits=QUICK,
        )


@pytest.fixture
def world() -> World:
    return World()


def passes(_: ProgramStart) -> ProgramEnd:
    return ProgramEnd(stdout=b"done\n")


async def submitted(supervisor: ToolSupervisor, spec: RunSpec = SPEC, key: RunKey = KEY) -> RunProgress:
    return await supervisor.submit(spec, story=STORY, key=key, epoch=1)


async def final(supervisor: ToolSupervisor, key: RunKey = KEY) -> RunResult:
    found = await supervisor.progress(key, wait_s=10)
    assert found.result is not None
    return found.result


# Submit and progress.


@pytest.mark.rule("RC-20", "RC-21")
async def test_submitted_run_is_told_as_running_until_it_has_its_one_result(world: World) -> None:
    one = world.supervisor()
    assert await submitted(one) == RunProgress("running")
    assert await submitted(one) == RunProgress("running")
    assert await one.progress(KEY) == RunProgress("running")
    world.gate.set()
    result = await final(one)
    assert result.status == "passed"
    assert await submitted(one) == RunProgress("passed", result)
    assert (await one.health()).total == 1


@pytest.mark.rule("RC-20")
async def test_short_run_is_over_when_submit_returns(world: World) -> None:
    assert (await submitted(world.supervisor(passes))).status == "passed"


@pytest.mark.rule("RC-21", "RC-26")
async def test_result_is_answered_by_another_supervisor_and_after_a_restart(world: World) -> None:
    one, two = world.supervisor(), world.supervisor(name="sandbox:two")
    await submitted(one)
    assert await submitted(two) == RunProgress("running")
    assert await two.progress(KEY) == RunProgress("running")
    waiting = asyncio.create_task(final(two))
    await asyncio.sleep(0)
    world.gate.set()
    result = await final(one)
    assert await waiting == result
    assert await final(world.supervisor()) == result


@pytest.mark.rule("RC-26")
async def test_unknown_key_is_not_found(world: World) -> None:
    one = world.supervisor()
    with pytest.raises(NotFound, match="no run has key"):
        await one.progress(KEY)
    with pytest.raises(NotFound):
        await one.logs(KEY)
    assert not await one.cancel(KEY)


async def test_submitted_run_that_is_refused_at_once_says_so_and_frees_its_key(world: World) -> None:
    one = world.supervisor(passes)
    with pytest.raises(ArtifactNotFound):
        await submitted(one, RunSpec(argv=("unit",), tree=Digest("sha256:" + "0" * 64)))
    assert await world.ledger.lookup(KEY) is None
    with pytest.raises(InvalidInput):
        await submitted(one, RunSpec(argv=("unit",), env={"LD_PRELOAD": "x"}))


class Slow:
    """A backend that says late that it cannot hold the run, or never."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.lines: LogSink | None = None
        self.refused_cancels = 0

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        self.lines = log
        await asyncio.sleep(0.2 if self.error else 60)
        raise self.error or AssertionError

    async def cancel(self, run_id: str) -> bool:
        self.refused_cancels += 1
        return self.refused_cancels > 3

    async def health(self) -> SandboxHealth:
        return SandboxHealth(status="ok", backend="slow")

    async def sweep(self) -> int:
        return 0


@pytest.mark.rule("RC-19")
@pytest.mark.parametrize(
    ("error", "reason"),
    [(SandboxUnavailable("user namespaces are off"), "sandbox_lost"), (ArtifactNotFound("no such blob"), "config")],
)
async def test_submitted_run_that_fails_later_has_a_final_result_that_says_why(
    world: World, error: Exception, reason: str
) -> None:
    one = ToolSupervisor(Slow(error), world.ledger, world.blobs, SystemClock(), "sandbox:one")
    assert await submitted(one) == RunProgress("running")
    result = await final(one)
    assert (result.status, result.reason, result.exit_code) == ("error", reason, None)
    assert result.limits["refused"] == str(error)
    assert isinstance(await world.ledger.lookup(KEY), Done)


async def test_progress_of_a_run_that_freed_its_key_is_not_found(world: World) -> None:
    one = ToolSupervisor(Slow(SandboxUnavailable("off")), world.ledger, world.blobs, SystemClock(), "sandbox:one")
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: one.active == 1)
    with pytest.raises(NotFound):
        await one.progress(KEY, wait_s=5)
    with pytest.raises(SandboxUnavailable):
        await call


# Supervisors that die.


async def claimed(world: World, *, is_detached: bool) -> None:
    await world.ledger.claim(
        KEY, story=STORY, epoch=1, spec=SPEC.digest, supervisor="sandbox:one", ttl_s=600, is_detached=is_detached
    )


@pytest.mark.rule("RC-27")
async def test_submitted_run_of_an_earlier_life_is_recorded_as_lost_for_good(world: World) -> None:
    await claimed(world, is_detached=True)
    one = world.supervisor(passes)
    lost = await final(one)
    assert (lost.status, lost.reason) == ("error", "sandbox_lost")
    assert await submitted(one) == RunProgress("error", lost)
    assert (await one.logs(KEY)).is_over
    assert not await one.cancel(KEY)


@pytest.mark.rule("RC-27")
async def test_submitted_run_of_a_silent_supervisor_is_lost_once_its_deadline_has_passed(world: World) -> None:
    await claimed(world, is_detached=True)
    two = world.supervisor(name="sandbox:two")
    assert (await two.progress(KEY)).status == "running"
    world.store_clock.advance(601)
    assert await world.ledger.lookup(KEY) == Lost("sandbox:one")
    assert (await final(two)).reason == "sandbox_lost"


@pytest.mark.rule("RC-27", "RC-51")
async def test_run_that_a_caller_waits_for_is_pending_after_a_crash_and_runs_again(world: World) -> None:
    await claimed(world, is_detached=False)
    one = world.supervisor(passes)
    assert await one.progress(KEY) == RunProgress("pending")
    assert not await one.cancel(KEY)
    assert (await one.run(SPEC, story=STORY, key=KEY, epoch=1)).status == "passed"


async def test_run_that_waits_long_for_its_turn_keeps_its_deadline_ahead(world: World) -> None:
    one = world.supervisor()
    await submitted(one)
    world.store_clock.advance(SPEC.limits.overall_s)
    before = world.store_clock.now_ms()
    async with asyncio.timeout(10):
        while True:
            found = await world.ledger.lookup(KEY)
            assert isinstance(found, Running)
            if found.deadline_ms >= before + SPEC.limits.overall_s * 1000:
                break
            await asyncio.sleep(0.01)
    world.gate.set()
    assert (await final(one)).status == "passed"


# Cancel.


@pytest.mark.rule("RC-18", "RC-24", "RC-26")
async def test_cancel_through_another_supervisor_ends_the_run(world: World) -> None:
    one, two = world.supervisor(), world.supervisor(name="sandbox:two")
    await submitted(one)
    assert await two.cancel(KEY)
    assert await two.cancel(KEY)
    result = await final(two)
    assert (result.status, result.reason) == ("cancelled", "cancelled")
    assert not await two.cancel(KEY)
    assert await final(one) == result


@pytest.mark.rule("RC-24")
async def test_cancel_of_a_final_run_changes_nothing(world: World) -> None:
    one = world.supervisor(passes)
    result = (await submitted(one)).result
    assert not await one.cancel(KEY)
    assert await final(world.supervisor(name="sandbox:two")) == result


@pytest.mark.rule("RC-24")
async def test_cancel_before_the_backend_knows_the_run_is_repeated_until_it_does(world: World) -> None:
    backend = Slow()
    one = ToolSupervisor(backend, world.ledger, world.blobs, SystemClock(), "sandbox:one", limits=QUICK)
    call = asyncio.create_task(one.run(SPEC, story=STORY, key=KEY, epoch=1))
    await eventually(lambda: backend.lines is not None)
    assert await one.cancel(KEY)
    await eventually(lambda: backend.refused_cancels == 4)
    call.cancel()
    for task in asyncio.all_tasks():
        if task.get_name() == f"run {KEY[:12]}":
            task.cancel()
    await eventually(lambda: one.active == 0)
    assert await world.ledger.lookup(KEY) is None


class Down:
    """A ledger and lines that do not answer for a while."""

    def __init__(self, inner: object) -> None:
        self.inner, self.is_down = inner, False

    def __getattr__(self, op: str) -> object:
        async def call(*args: object, **kwargs: object) -> object:
            if self.is_down:
                raise StoreUnavailable("no answer (injected)")
            return await getattr(self.inner, op)(*args, **kwargs)

        return call


async def test_cancel_request_is_found_once_the_ledger_answers_again(world: World) -> None:
    down = Down(world.ledger)
    one = ToolSupervisor(
        MemorySandboxBackend(world.held, world.blobs),
        down,  # pyright: ignore[reportArgumentType]
        world.blobs,
        SystemClock(),
        "sandbox:one",
        limits=QUICK,
    )
    await submitted(one)
    down.is_down = True
    assert await world.supervisor(name="sandbox:two").cancel(KEY)
    await asyncio.sleep(0.05)
    down.is_down = False
    assert (await final(one)).reason == "cancelled"


# Lines.


@pytest.mark.rule("RC-22", "RC-35")
async def test_lines_are_live_and_the_same_from_the_record(world: World) -> None:
    backend = Slow()
    one = ToolSupervisor(backend, world.ledger, world.blobs, SystemClock(), "sandbox:one", logs=world.logs)
    await submitted(one)
    assert backend.lines is not None
    line = LogLine(n=1, ts_ms=1, stream="stdout", line="hello")
    backend.lines(line)
    two = world.supervisor(name="sandbox:two")
    page = await two.logs(KEY, wait_s=10)
    assert page.lines == (line,)
    assert not page.is_over
    assert (await two.logs(KEY, after=1, wait_s=0.05)).lines == ()


@pytest.mark.rule("RC-22")
async def test_lines_of_a_run_that_is_over_come_page_by_page_from_its_log(world: World) -> None:
    one = world.supervisor()
    await submitted(one)
    reader = asyncio.create_task(one.logs(KEY, wait_s=30))
    await asyncio.sleep(0)
    world.gate.set()
    assert [line.line for line in (await reader).lines] == ["one", "two", "three"]
    await final(one)
    two = ToolSupervisor(MemorySandboxBackend(passes, world.blobs), world.ledger, world.blobs, SystemClock(), "two")
    first = await two.logs(KEY, limit=2)
    assert ([(line.n, line.line) for line in first.lines], first.is_over) == ([(1, "one"), (2, "two")], False)
    last = await two.logs(KEY, after=2)
    assert ([(line.stream, line.line) for line in last.lines], last.is_over) == ([("stderr", "three")], True)
    live = await world.logs.read(KEY)
    assert (len(live.lines), live.is_over) == (3, True)


async def test_lines_without_a_store_come_once_the_run_is_over(world: World) -> None:
    one = ToolSupervisor(
        MemorySandboxBackend(world.held, world.blobs), world.ledger, world.blobs, SystemClock(), "sandbox:one"
    )
    await submitted(one)
    assert await one.logs(KEY) == await one.logs(KEY, wait_s=0.01)
    reader = asyncio.create_task(one.logs(KEY, wait_s=30))
    await asyncio.sleep(0)
    world.gate.set()
    page = await reader
    assert (len(page.lines), page.is_over) == (3, True)


async def test_store_of_lines_that_is_down_costs_live_lines_and_nothing_else(world: World) -> None:
    down = Down(world.logs)
    down.is_down = True
    one = world.supervisor(passes, logs=down)  # pyright: ignore[reportArgumentType]
    assert (await submitted(one)).status == "passed"
    assert [line.line for line in (await one.logs(KEY)).lines] == ["done"]
    assert (await world.logs.read(KEY)).lines == ()


async def test_end_mark_of_an_earlier_life_does_not_end_the_lines_of_this_one(world: World) -> None:
    await world.logs.end(KEY)
    one = world.supervisor()
    await submitted(one)
    assert await one.logs(KEY, wait_s=0.05) == await one.logs(KEY)
    reader = asyncio.create_task(one.logs(KEY, wait_s=30))
    await asyncio.sleep(0)
    world.gate.set()
    assert len((await reader).lines) == 3


async def test_log_that_is_damaged_is_an_error_that_names_it(world: World) -> None:
    blob = await world.blobs.put(b"no json\n")
    result = RunResult(status="passed", reason="ok", exit_code=0, log=blob)
    digest = await world.blobs.put(canonical_json(result))
    await world.ledger.finish(KEY, epoch=1, supervisor="x", result=digest)
    with pytest.raises(LogCorrupted, match=str(blob)):
        await world.supervisor().logs(KEY)


# Secrets.

GRANTEE = Grantee(role="devops", tool="kubectl", op="apply")


def prints_its_secret(start: ProgramStart) -> ProgramEnd:
    return ProgramEnd(stdout=f"token {start.env.get('TOKEN')} {start.argv}\n".encode())


def with_token(grantee: Grantee | None) -> RunSpec:
    return RunSpec(argv=("deploy",), env={"TOKEN": "secret://deploy-token", "PLAIN": "x"}, grantee=grantee)


@pytest.mark.rule("RT-65")
async def test_granted_secret_reaches_the_program_and_nothing_that_comes_back(world: World) -> None:
    seen: list[str] = []

    def program(start: ProgramStart) -> ProgramEnd:
        seen.append(start.env["TOKEN"])
        return prints_its_secret(start)

    one = world.with_secrets(program)
    result = await one.run(with_token(GRANTEE), story=STORY, key=KEY, epoch=1)
    assert seen == [VALUE]
    assert VALUE not in result.model_dump_json()
    assert result.log is not None
    assert VALUE.encode() not in await world.blobs.get(result.log)
    assert VALUE not in str(await world.logs.read(KEY))
    assert [(a.name, a.role, a.outcome) for a in world.accesses] == [("deploy-token", "devops", "resolved")]


@pytest.mark.rule("RT-65")
async def test_reference_without_a_grantee_is_refused_before_anything_is_claimed(world: World) -> None:
    one = world.with_secrets(passes)
    for call in (one.run, one.submit):
        with pytest.raises(PolicyDenied, match="deploy-token"):
            await call(with_token(None), story=STORY, key=KEY, epoch=1)
    assert await world.ledger.lookup(KEY) is None
    assert world.accesses == []


@pytest.mark.rule("RT-65")
async def test_sandbox_that_serves_no_secrets_refuses_them(world: World) -> None:
    with pytest.raises(PolicyDenied, match="serves none"):
        await submitted(world.supervisor(passes), with_token(GRANTEE))


@pytest.mark.rule("RT-65")
async def test_grantee_without_a_grant_is_denied_and_the_key_is_free(world: World) -> None:
    one = world.with_secrets(passes)
    with pytest.raises(PolicyDenied, match="may not use secret"):
        await submitted(one, with_token(Grantee(role="qa", tool="kubectl", op="apply")))
    assert await world.ledger.lookup(KEY) is None
    assert [a.outcome for a in world.accesses] == ["denied"]


async def test_grantee_of_a_run_without_references_costs_no_access(world: World) -> None:
    one = world.with_secrets(passes)
    spec = RunSpec(argv=("unit",), grantee=GRANTEE)
    assert (await one.run(spec, story=STORY, key=KEY, epoch=1)).status == "passed"
    assert world.accesses == []


class Careless(Slow):
    """A backend that hands a secret back, as no backend may."""

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        assert secrets is not None
        assert log is not None
        text = secrets.secret_env["TOKEN"].reveal()
        log(LogLine(n=1, ts_ms=1, stream="stdout", line=text))
        log(LogLine(n=2, ts_ms=1, stream="stdout", line="plain"))
        stream = OutputStream(head=text, tail=text)
        return RunResult(status="passed", reason="ok", exit_code=0, stdout=stream, stderr=stream)


@pytest.mark.rule("RT-65", "RC-35")
async def test_text_that_a_backend_let_through_is_redacted_once_more(world: World) -> None:
    one = world.with_secrets(passes, Careless())
    result = await one.run(with_token(GRANTEE), story=STORY, key=KEY, epoch=1)
    assert VALUE not in result.model_dump_json()
    lines = (await world.logs.read(KEY)).lines
    assert [line.line == "plain" for line in lines] == [False, True]
    assert VALUE not in str(lines)


# A full queue, and what health says.


@pytest.mark.rule("RC-25")
async def test_full_supervisor_refuses_one_more_and_says_so_in_its_health(world: World) -> None:
    one = world.supervisor(limits=SupervisorLimits(max_runs=2))
    keys = [RunKey(c * 64) for c in "abc"]
    for key in keys[:2]:
        await submitted(one, key=key)
    health = await one.health()
    assert (health.active, health.total, health.capacity) == (2, 2, 2)
    with pytest.raises(SandboxUnavailable, match="try again later"):
        await submitted(one, key=keys[2])
    assert await submitted(one, key=keys[1]) == RunProgress("running")
    world.gate.set()
    results = [await final(one, key) for key in keys[:2]]
    assert {r.status for r in results} == {"passed"}
    assert await submitted(one, key=keys[2])
    assert (await one.health()).total == 3


async def test_full_supervisor_still_answers_from_the_record(world: World) -> None:
    await submitted(world.supervisor(passes))
    full = world.supervisor(limits=SupervisorLimits(max_runs=1))
    await submitted(full, key=RunKey("b" * 64))
    assert (await submitted(full)).status == "passed"
