"""One fault at every single call of a shard or its sandbox to any port: each run ends as if nothing had been (F1)."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import pytest

from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import FleetError, OutcomeUnknown, Retry
from fleet.kernel.ids import RunKey, StreamId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import Appended, AppendRequest, Duplicate
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import Probe, Work
from fleet.owner.workbench import seat
from fleet.sandbox.memory import MemoryRunLedger, MemorySandboxBackend, ProgramEnd
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.trees.memory import MemoryBlobStore
from tests.support.bench import ScriptedAgents
from tests.support.faulty_ports import Fault, Wire, faulty_blobs, faulty_log
from tests.support.oracle import acknowledged_are_kept, steps_count_once, stream_verifies
from tests.support.rules import step_policy
from tests.support.sim_faults import OneFault
from tests.support.sim_judge import expected_ends, judge, parks_of
from tests.support.sim_stores import Stores
from tests.support.sim_world import Aim, Outcome, Scenario, simulate
from tests.support.simulation import Crashed, Process, SimClock, SimLoop, simulated
from tests.support.story_events import STORY, story

MODES = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.LOST_REPLY)
PORTS_OF_A_STORY = frozenset(
    {"log", "lease", "inbox", "blobs", "packs", "agents", "forge", "sandbox", "ledger", "snapshots"}
)
SIDE_BY_SIDE = 6
"""Questions of a council that are asked at the same moment, at most the two papers of three voters: one crash can cost
each of them the answer on its way."""


Part = Aim | Literal["sessions"]
"""A story as far as its aim, or a whole one whose developers work in sessions."""


@cache
def scenario_of(aim: Part) -> Scenario:
    """One story, one shard, one projector, and no other trouble."""
    is_worked = aim == "sessions"
    story: Aim = "branch" if aim == "sessions" else aim
    return Scenario(f"point-{aim}", stories=(story,), shards=1, projectors=1, faults_until_s=0.0, sessions=is_worked)


def run(aim: Part, k: int, fault: Fault | None) -> tuple[Outcome, OneFault]:
    """The story whose k-th call meets this fault."""
    made: list[OneFault] = []

    def faults(loop: SimLoop) -> OneFault:
        made.append(OneFault(loop, k, fault))
        return made[0]

    return simulate("point", scenario_of(aim), faults=faults), made[0]


@cache
def calls_of(aim: Part) -> tuple[str, ...]:
    """Every call of the undisturbed story, in order."""
    _, undisturbed = run(aim, -1, None)
    return tuple(undisturbed.calls)


def problem_at(aim: Part, k: int, fault: Fault) -> str | None:
    """What is wrong with the run whose k-th call met this fault; None when all is well."""
    outcome, struck = run(aim, k, fault)
    where = f"{fault} of call {k} ({struck.fired})"
    if struck.fired is None:
        return f"{where}: the fault never struck"
    try:
        verdict = judge(outcome, expected_ends(scenario_of(aim)))
    except AssertionError as error:
        return f"{where}: {error}"
    if parks := parks_of(verdict):
        return f"{where}: parked by {parks[0]}, although nothing in this story is UNSAFE"
    if outcome.stores.agents.paid_again:
        return f"{where}: a recorded answer was paid for again: {outcome.stores.agents.paid_again}"
    repeated = {name: times for name, times in Counter(outcome.stores.agents.asked).items() if times > 1}
    if len(repeated) > SIDE_BY_SIDE or any(times > 2 for times in repeated.values()):
        return f"{where}: one fault cost more than the calls that were under way: {repeated}"
    return None


def problems(aim: Part, points: range) -> list[str]:
    """What is wrong with every mode of every one of these points."""
    found: list[str] = []
    gc.disable()
    try:
        for k in points:
            found += [p for fault in MODES if (p := problem_at(aim, k, fault)) is not None]
            if k % 8 == 0:
                gc.collect()
    finally:
        gc.enable()
    return found


def test_calls_of_a_whole_story_are_the_same_in_every_run_and_reach_every_port():
    calls = calls_of("branch")
    _, again = run("branch", -1, None)
    assert tuple(again.calls) == calls
    assert {name.split(".")[0] for name in calls} >= PORTS_OF_A_STORY


@pytest.mark.rule("PL-48", "CN-121", "RC-51")
@pytest.mark.timeout(600)
def test_fault_at_any_call_before_the_first_gate_changes_nothing_in_the_end():
    assert problems("scope", range(len(calls_of("scope")))) == []


@pytest.mark.rule("PL-48", "CN-122", "RC-51")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("aim", ["design", pytest.param("branch", marks=pytest.mark.wide)])
def test_fault_at_sampled_calls_of_a_whole_story_changes_nothing_in_the_end(aim: Aim):
    count = len(calls_of(aim))
    assert problems(aim, range(3, count, count // 16)) == []


@pytest.mark.rule("PL-48", "CN-22", "RC-50", "RC-51", "RC-36")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", [12, pytest.param(120, marks=pytest.mark.slow)])
def test_fault_at_sampled_calls_of_sessions_changes_nothing_in_the_end(points: int):
    calls = calls_of("sessions")
    # The first part of the story, up to its plan, is that of any other.
    first = next(k for k, name in enumerate(calls) if name.startswith("sandbox.") and k > len(calls) // 8)
    assert problems("sessions", range(first, len(calls), (len(calls) - first) // points)) == []


@pytest.mark.slow
@pytest.mark.rule("PL-48", "PL-43", "CN-122", "RC-51", "LC-122")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(8))
def test_fault_at_any_call_of_a_whole_story_changes_nothing_in_the_end(part: int):
    assert problems("branch", range(part, len(calls_of("branch")), 8)) == []


class NotingLog(MemoryEventLog):
    """Knows how many calls there had been when each command was first appended."""

    def __init__(self, calls: list[str]) -> None:
        super().__init__()
        self._calls = calls
        self.at: dict[str, int] = {}

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        self.at.setdefault(request.command_id.partition("/restore")[2], len(self._calls))
        return await super().append(request)


@cache
def restoration() -> range:
    """The calls from the request for a restoration to the story's next act."""
    made: list[OneFault] = []
    logs: list[NotingLog] = []

    def stores(loop: SimLoop) -> Stores:
        made.append(OneFault(loop, -1, None))
        logs.append(NotingLog(made[0].calls))
        return Stores(loop, log=logs[0])

    simulate("point", scenario_of("restored"), stores=stores, faults=lambda _: made[0])
    at = logs[0].at
    asked = next(count for name, count in at.items() if name.startswith("_story/"))
    return range(asked - 1, at["/1/merged"] + 2)


@pytest.mark.wide
@pytest.mark.rule("PL-47", "PL-48", "PL-49", "RC-51")
@pytest.mark.timeout(300)
def test_fault_at_sampled_calls_of_a_restoration_neither_loses_nor_doubles_it():
    found = restoration()
    assert {"sandbox", "ledger", "blobs", "log"} <= {calls_of("restored")[k].split(".")[0] for k in found}
    assert problems("restored", found[::5]) == []


@pytest.mark.slow
@pytest.mark.rule("PL-47", "PL-48", "PL-49", "RC-51")
@pytest.mark.timeout(1800)
def test_fault_at_any_call_of_a_restoration_neither_loses_nor_doubles_it():
    assert problems("restored", restoration()) == []


# A story of this release plans no UNSAFE step, so the journal's hand is tried alone.

DEPLOY = {"host": "staging", "revision": 7}
OPERATOR = Work(seat=seat("devops"), tool="deploy", op="release")


@dataclass
class Host:
    """A receiver without keys: it does what it is told, each time."""

    keys: list[RunKey] = field(default_factory=list[RunKey])

    def happened(self) -> Literal["happened", "not_happened"]:
        return "happened" if self.keys else "not_happened"


@dataclass
class Deployment:
    """What came of one UNSAFE step: its result, or why it waits for a person."""

    host: Host
    calls: list[str]
    fired: str | None
    result: dict[str, Any] | None
    unknown: OutcomeUnknown | None


def deployed(k: int, fault: Fault | None, *, probed: bool) -> Deployment:
    """The step under this fault, resumed until it has a result or waits for a person; the oracle has looked at it."""
    with simulated("unsafe") as loop:
        return loop.run_until_complete(_deployed(loop, OneFault(loop, k, fault), probed=probed))


async def _deployed(loop: SimLoop, faults: OneFault, *, probed: bool) -> Deployment:
    log, blobs, host, clock = MemoryEventLog(), MemoryBlobStore(), Host(), SimClock(loop)
    await story(until="scope").write_to(log)
    acknowledged: list[StoredEvent] = []
    for life in range(1, 4):
        process = Process(loop, f"council:0/{life}")
        wire = Wire(process, faults)
        backend = MemorySandboxBackend(lambda start: ProgramEnd(), blobs)
        journal = Journal(
            log=faulty_log(log, wire, acknowledged),
            blobs=faulty_blobs(blobs, wire),
            clock=clock,
            sandbox=ToolSupervisor(backend, MemoryRunLedger(clock), blobs, clock, "sandbox:none"),
            agents=ScriptedAgents(lambda request: FleetError("nobody was to be asked")),
            story_id=STORY,
            epoch=0,
            policy=step_policy(),
        )
        try:
            result = await process.spawn(_deploy(journal, wire, host, probed=probed))
        except Crashed:
            continue
        except OutcomeUnknown as error:
            await _look_at(log, acknowledged)
            return Deployment(host, faults.calls, faults.fired, None, error)
        except FleetError as error:
            if error.retry is not Retry.LATER:
                raise
            continue
        await _look_at(log, acknowledged)
        return Deployment(host, faults.calls, faults.fired, result, None)
    raise AssertionError(f"one fault ({faults.fired}) kept the step from its end for three lives")


async def _look_at(log: MemoryEventLog, acknowledged: list[StoredEvent]) -> None:
    stream = StreamId.of_story(STORY)
    events = await log.read(stream)
    acknowledged_are_kept({stream: events}, acknowledged)
    stream_verifies(stream, events, await log.head(stream))
    steps_count_once(stream, events)


async def _deploy(journal: Journal, wire: Wire, host: Host, *, probed: bool) -> dict[str, Any]:
    async def send(key: RunKey) -> dict[str, Any]:
        async def arrive() -> dict[str, Any]:
            host.keys.append(key)
            return {"revision": len(host.keys)}

        return await wire.call("host", "deploy", arrive)

    async def look() -> Literal["happened", "not_happened", "cannot_tell"]:
        return host.happened()

    await journal.load()
    probe = Probe("health", look) if probed else None
    return await journal.act_unsafe("deploy/1", DEPLOY, OPERATOR, send, probe=probe)


@pytest.mark.rule("RC-52", "RC-57")
@pytest.mark.parametrize("probed", [False, True], ids=["no-probe", "probe"])
@pytest.mark.parametrize("fault", MODES, ids=[m.replace(" ", "-") for m in MODES])
def test_fault_at_any_call_of_an_unsafe_step_never_does_it_twice(fault: Fault, probed: bool):
    calls = deployed(-1, None, probed=probed).calls
    assert len(calls) > 5
    waiting: list[str] = []
    for k in range(len(calls)):
        done = deployed(k, fault, probed=probed)
        assert done.fired == calls[k]
        assert len(done.host.keys) <= 1, done
        if done.unknown is None:
            assert len(done.host.keys) == 1, done
        else:
            waiting.append(calls[k])
    between = calls[calls.index("host.deploy") :]
    assert set(waiting) <= set(between), "only what may have been sent waits for a person"
    assert bool(waiting) is not probed, waiting
    assert len(waiting) < len(calls)
