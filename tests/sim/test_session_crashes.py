"""A crash of the owner or the supervisor at every append and around every effect of work sessions of many kinds.

The calls of one session that matter are counted in a run without any fault: each append, each reply, each command on
its way to the supervisor, in its ledger and in its sandbox, and each blob that is kept. Then the session is run again
for each of them, and the process that makes the call dies before it arrives, or after it was carried out and before
anybody knows. So between an effect and its record there is a crash on either side.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog, MemoryLeaseStore
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.memory import MemoryRunLedger, MemorySandboxBackend
from fleet.sandbox.port import Sandbox
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.evolve.story import fold
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.port import BlobStore
from tests.support.acting import written
from tests.support.faulty_ports import (
    Fault,
    Wire,
    faulty_agents,
    faulty_blobs,
    faulty_ledger,
    faulty_log,
    faulty_sandbox,
)
from tests.support.oracle import acknowledged_are_kept, steps_count_once, stream_verifies
from tests.support.rules import files
from tests.support.session_kinds import (
    KINDS,
    Candidates,
    PayingAgents,
    Ports,
    SessionKind,
    begin_life,
    finished_in,
    kind_worked,
    tokens_of,
)
from tests.support.sessions import FILES, convened_in_sessions, shell
from tests.support.sim_faults import OneFault
from tests.support.simulation import Crashed, Process, SimClock, SimLoop, simulated
from tests.support.story_events import STORY

MODES = (Fault.CRASH_BEFORE, Fault.CRASH_AFTER)
EFFECTS = frozenset(
    {
        *("log.append", "agents.ask", "blobs.put"),
        *("sandbox.run", "sandbox.cancel", "ledger.claim", "ledger.finish", "ledger.forget", "backend.run"),
    }
)
"""Calls that change something; a crash around one that only reads is a crash before the next of these."""
STREAM = StreamId.of_story(STORY)
MOST_LIVES = 6
OVERHEARD = frozenset({"told", "stopped"})
"""Kinds in which a person speaks while a reply is thought of: asked for it again, the engine is told what was said."""
POINTS = 2_000


class EffectFault(OneFault):
    """As `OneFault`, of the calls in `EFFECTS` alone."""

    def at(self, process: Process, port: str, op: str) -> Fault | None:
        """The fault at the k-th of them."""
        return super().at(process, port, op) if f"{port}.{op}" in EFFECTS else None


@dataclass
class Worked:
    """One run of a kind, at its end."""

    candidates: Candidates
    agents: PayingAgents
    faults: EffectFault
    lives: int
    events: list[StoredEvent]
    runs: int
    tokens: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def ends(self) -> dict[str, tuple[str, int | None]]:
        """How each step ended; not those in which it was read what people said, which may stand a turn earlier."""
        found = finished_in(self.events)
        steps = [step for step in found if not step.endswith("/told")]
        return {step: (found[step]["outcome"], found[step].get("exit_code")) for step in steps}

    @property
    def prompts(self) -> set[object]:
        """What the engine was asked."""
        return {(request.own, request.turns) for request in self.agents.requests}


def worked(kind: SessionKind, k: int, fault: Fault | None) -> Worked:
    """The kind's sessions, with this fault at the k-th effect; the oracle has looked at their story."""
    with simulated("sessions") as loop:
        return loop.run_until_complete(_worked(loop, kind, EffectFault(loop, k, fault)))


class StruckBackend(MemorySandboxBackend):
    """A sandbox whose supervisor may die before a command, or after it and before anybody knows."""

    def __init__(self, blobs: BlobStore, wire: Wire) -> None:
        super().__init__(shell, blobs)
        self._wire = wire

    async def run(self, spec: RunSpec, **how: Any) -> RunResult:
        """See `SandboxBackend.run`."""
        inner = super().run
        return await self._wire.call("backend", "run", lambda: inner(spec, **how))


class Host:
    """The process of the supervisor; a new one comes in the place of one that died."""

    def __init__(self, loop: SimLoop, faults: EffectFault, blobs: MemoryBlobStore, ledger: MemoryRunLedger) -> None:
        self._loop, self._faults, self._blobs, self._ledger = loop, faults, blobs, ledger
        self.backends: list[MemorySandboxBackend] = []
        self.there = self._started(1)

    def _started(self, life: int) -> tuple[Process, Sandbox]:
        process = Process(self._loop, f"sandbox:n1/{life}")
        process.clock.gate = process.pass_gate
        process.when_killed = lambda: setattr(self, "there", self._started(life + 1))
        wire = Wire(process, self._faults)
        blobs = faulty_blobs(self._blobs, wire)
        self.backends.append(StruckBackend(blobs, wire))
        return process, ToolSupervisor(
            self.backends[-1], faulty_ledger(self._ledger, wire), blobs, process.clock, "sandbox:n1"
        )


async def _worked(loop: SimLoop, kind: SessionKind, faults: EffectFault) -> Worked:
    clock, log, blobs = SimClock(loop), MemoryEventLog(), MemoryBlobStore()
    await convened_in_sessions(await written(blobs, FILES)).write_to(log)
    host, agents = Host(loop, faults, blobs, MemoryRunLedger(clock)), PayingAgents(kind, log)
    leases, acknowledged = MemoryLeaseStore(log, clock), list[StoredEvent]()
    for number in range(1, MOST_LIVES + 1):
        process = Process(loop, f"council:0/{number}")
        process.clock.gate = process.pass_gate
        epoch = (await leases.claim(STREAM, process.name, ttl_s=600)).epoch
        work = _life(kind, process, Wire(process, faults), Stores(log, blobs, host, agents, acknowledged), epoch)
        try:
            candidates = await process.spawn(work)
        except (Crashed, asyncio.CancelledError):
            assert not process.is_alive
            continue
        events = await log.read(STREAM)
        acknowledged_are_kept({STREAM: events}, acknowledged)
        stream_verifies(STREAM, events, await log.head(STREAM))
        steps_count_once(STREAM, events, may_ask_anew=kind.name in OVERHEARD)
        state = fold(events)
        assert state is not None
        runs = sum(len(backend.runs) for backend in host.backends)
        return Worked(candidates, agents, faults, number, events, runs, tokens_of(state))
    raise AssertionError(f"one fault ({faults.fired}) kept {kind.name} from its end for {MOST_LIVES} lives")


@dataclass
class Stores:
    """What outlives an owner."""

    log: MemoryEventLog
    blobs: MemoryBlobStore
    host: Host
    agents: PayingAgents
    acknowledged: list[StoredEvent]


async def _life(kind: SessionKind, process: Process, wire: Wire, stores: Stores, epoch: int) -> Candidates:
    """One life of the owner."""
    config = files().load("context.yaml", ContextConfig)
    stores.agents.life = life = await begin_life(
        kind,
        Ports(
            log=faulty_log(stores.log, wire, stores.acknowledged),
            blobs=faulty_blobs(stores.blobs, wire),
            clock=process.clock,
            sandbox=faulty_sandbox(lambda: stores.host.there, wire),
            agents=faulty_agents(stores.agents, wire),
            packs=ContextService(stores.log, stores.blobs, config, clock=process.clock),
        ),
        epoch=epoch,
    )
    return await kind_worked(kind, life, tries=4)


@cache
def undisturbed(name: str) -> Worked:
    """The kind without any fault."""
    return worked(KINDS[name], -1, None)


def points_of(name: str) -> int:
    """Places at which the sessions of this kind can be struck."""
    return len(MODES) * len(undisturbed(name).faults.calls)


def problem_at(name: str, point: int) -> str | None:
    """What is wrong with the sessions that were struck at this point; None when all is well."""
    kind, plain, (k, mode) = KINDS[name], undisturbed(name), divmod(point, len(MODES))
    where = f"{name}, {MODES[mode]} of call {k} ({plain.faults.calls[k]})"
    try:
        struck = worked(kind, k, MODES[mode])
    except (AssertionError, FleetError) as error:
        return f"{where}: {error!r}"
    again = {step: times for step, times in Counter(struck.agents.asked).items() if times > 1}
    # Commands that were under way when the fault struck: of two engineers, or two looks of one reply.
    at_once = 2 if kind.work.__name__ == "side_by_side" or name == "parallel" else 1
    checks = {
        "the fault never struck": struck.faults.fired is not None,
        "other candidates": struck.candidates == plain.candidates,
        f"a recorded reply was paid for again: {struck.agents.paid_again}": not struck.agents.paid_again,
        f"more was asked again than was under way: {again}": len(again) <= at_once and set(again.values()) <= {2},
        "a command ended otherwise, or counted otherwise": struck.ends == plain.ends,
        f"{struck.runs} commands for {plain.runs}": plain.runs <= struck.runs <= plain.runs + at_once,
        "tokens counted otherwise": struck.tokens == plain.tokens,
        "the engine was asked something else": kind.name in OVERHEARD or struck.prompts == plain.prompts,
    }
    return next((f"{where}: {what}" for what, is_well in checks.items() if not is_well), None)


def problems(name: str, points: range) -> list[str]:
    """What is wrong at each of these points."""
    gc.disable()
    try:
        return [told for point in points if (told := problem_at(name, point)) is not None]
    finally:
        gc.enable()
        gc.collect()


def test_kinds_of_sessions_have_two_thousand_points_and_every_effect_is_among_them():
    assert len(KINDS) >= 20
    assert sum(map(points_of, KINDS)) >= POINTS
    struck = Counter(call for name in KINDS for call in undisturbed(name).faults.calls)
    assert {"log.append", "agents.ask", "sandbox.run", "ledger.claim", "ledger.finish", "backend.run"} <= struck.keys()


@pytest.mark.rule("RC-50", "RC-51", "RC-54", "RC-36", "GL-19", "CN-22")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", KINDS)
def test_crash_at_sampled_points_of_sessions_changes_nothing_in_the_end(name: str):
    # Each kind at other places of its course; the steps are odd, so that both modes are among them.
    first = 2 * (list(KINDS).index(name) % 7)
    assert problems(name, range(first, points_of(name), points_of(name) // 4 | 1)) == []


@pytest.mark.slow
@pytest.mark.rule("RC-50", "RC-51", "RC-54", "RC-36", "GL-19", "CN-22")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", KINDS)
def test_crash_at_every_point_of_sessions_changes_nothing_in_the_end(name: str):
    assert problems(name, range(points_of(name))) == []
