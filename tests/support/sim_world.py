"""A small fleet in one simulated run: council shards, a sandbox, projectors, people, over stores that never lie.

    outcome = simulate(seed, LEAN)

Everything of the product is real but for the stores, which are the in-memory twins behind faulty wires, the role agents
and the programs of the sandbox, which are scripted. What goes wrong, and when, is drawn from the seed alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, cast

from fleet.context.service.packs import ContextService
from fleet.desk.planning import Pending, PlanningDesk
from fleet.desk.platform import PlatformDesk
from fleet.events.envelope import StoredEvent
from fleet.forge.port import Forge
from fleet.graph.port import DecisionGraph
from fleet.graph.service.projector import Projector
from fleet.kernel.errors import FleetError, StoreUnavailable
from fleet.kernel.ids import StoryId, StreamId
from fleet.owner.brief_claims import BriefClaims
from fleet.owner.budgets import Budgeting
from fleet.owner.definitions import Definitions
from fleet.owner.journal.journal import Journal
from fleet.owner.platform_view import PlatformView
from fleet.owner.shard import CouncilShard
from fleet.owner.workbench import Workbench
from fleet.projects.platform_commands import AnyPlatformCommand, DelegationRules, PauseFleet, ResumeFleet
from fleet.projects.platform_owner import PlatformOwner
from fleet.report.service.reports import ReportService
from fleet.sandbox.memory import MemorySandboxBackend, ProgramEnd, ProgramStart
from fleet.sandbox.port import Sandbox
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.story.commands.catalogue import parse_command
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from tests.support import sim_story
from tests.support.bench import definitions
from tests.support.faulty_ports import (
    FaultyPort,
    Wire,
    faulty_agents,
    faulty_blobs,
    faulty_feed,
    faulty_inbox,
    faulty_leases,
    faulty_ledger,
    faulty_log,
    faulty_port,
    faulty_sandbox,
)
from tests.support.rules import fsm, step_policy
from tests.support.sim_faults import RandomFaults
from tests.support.sim_stores import Stores
from tests.support.simulation import Process, SimLoop, simulated

Aim = Literal["scope", "design", "branch", "restored"]
"""Where a story ends: a person cancels it at the gate of its scope or of its design, or it goes to its branch alone.

`restored` goes there with two tasks and a person at its gates, who sees the documents and then sets the tree back to
where the first task left it, once.
"""


@dataclass(frozen=True)
class Scenario:
    """What is run: how many of each, for how long things go wrong, and how soon all must be healed after that."""

    name: str
    stories: tuple[Aim, ...]
    shards: int = 2
    projectors: int = 1
    faults_until_s: float = 45.0
    heals_in_s: float = 300.0
    ttl_s: int = 15
    forward_at: int = 0
    """Version from which on the person of a `restored` story wants back what was undone; 0 is never."""
    pauses: int = 0
    """How often an admin pauses the fleet and lets it go on again; with 0 nobody looks whether it is paused."""
    artifacts: Literal["on", "off"] = "on"
    """Whether the documents of a story go into its tree too (PL-53)."""
    sessions: bool = False
    """Whether developers work in sessions, and not with one reply."""


_SOON = definitions().context.compression.model_copy(update={"steps": 2, "written_by": "model"})
_RULES = replace(definitions(), context=definitions().context.model_copy(update={"compression": _SOON}))
"""Histories are summed up after two steps, or no story here would be long enough for it; with a model's words."""


def _rules(artifacts: Literal["on", "off"]) -> Definitions:
    return replace(_RULES, planning=_RULES.planning.model_copy(update={"artifacts": artifacts}))


LEAN = Scenario("lean", stories=("design", "scope"), faults_until_s=30.0)
FULL = Scenario("full", stories=("branch", "scope"), shards=3, projectors=2, faults_until_s=90.0)


@dataclass
class Outcome:
    """One run, at its end."""

    seed: int | str
    scenario: Scenario
    stores: Stores
    acknowledged: list[StoredEvent]
    trace: str
    faults: list[str]
    seen: Counter[str]
    stories: tuple[StoryId, ...]
    pauses: list[tuple[int, int]]
    healed: bool
    virtual_s: float
    last: list[str] = field(default_factory=list[str], repr=False)
    failures: list[str] = field(default_factory=list[str])

    def told(self) -> str:
        """The faults of the run, and how to run it again."""
        lines = "\n".join(self.faults) or "no fault"
        again = (
            f"FLEET_SIM_FIRST={self.seed} FLEET_SIM_SEEDS=1 pytest tests/sim/test_simulation.py "
            f"-k {self.scenario.name} -p no:randomly"
        )
        return f"seed {self.seed} ({self.scenario.name}), {self.virtual_s:.1f} s simulated\n{lines}\nagain: {again}"


class World:
    """The processes of one run and what connects them."""

    def __init__(self, loop: SimLoop, scenario: Scenario, stores: Stores, faults: RandomFaults) -> None:
        self.loop, self.scenario, self.stores, self.faults = loop, scenario, stores, faults
        self.acknowledged: list[StoredEvent] = []
        self.stories = tuple(StoryId(f"st-sim{n}") for n, _ in enumerate(scenario.stories, 1))
        self.shards: dict[str, tuple[Process, CouncilShard]] = {}
        self.sandbox = self._new_sandbox(1)
        self.budgeting: Budgeting | None = sim_story.session_budgeting() if scenario.sessions else None
        """Of the shards that start from now on."""
        self.pauses: list[tuple[int, int]] = []
        """When an admin was told that the fleet is paused, and when it was asked to go on, in ms of the store."""
        self._incarnations: Counter[str] = Counter()
        self._ended: set[StoryId] = set()
        self._projecting: list[Process] = []

    # What lives in each process.

    def _process(self, name: str) -> tuple[Process, Wire]:
        process = Process(self.loop, name)
        process.clock.gate = process.pass_gate
        return process, Wire(process, self.faults)

    def _new_sandbox(self, life: int) -> tuple[Process, ToolSupervisor]:
        process, wire = self._process(f"sandbox:n1/{life}")
        process.when_killed = lambda: self._later(lambda: self._renew_sandbox(life + 1))
        chance = self.faults.chance

        async def program(start: ProgramStart) -> ProgramEnd:
            await asyncio.sleep(chance.uniform(0.2, 3.0))
            return sim_story.toolchain(start)

        blobs = faulty_blobs(self.stores.blobs, wire)
        supervisor = ToolSupervisor(
            MemorySandboxBackend(program, blobs),
            faulty_ledger(self.stores.ledger, wire),
            blobs,
            process.clock,
            "sandbox:n1",
        )
        return process, supervisor

    def _renew_sandbox(self, life: int) -> None:
        self.sandbox = self._new_sandbox(life)

    def start_shard(self, name: str) -> None:
        """The next incarnation of this shard runs."""
        self._incarnations[name] += 1
        incarnation = str(self._incarnations[name])
        process, wire = self._process(f"{name}/{incarnation}")
        process.when_killed = lambda: self._later(lambda: self._restart_shard(name, process))
        log, blobs = faulty_log(self.stores.log, wire, self.acknowledged), faulty_blobs(self.stores.blobs, wire)
        agents, forge = (
            faulty_agents(self.stores.agents, wire),
            faulty_port(cast("Forge", self.stores.forge), wire, "forge"),
        )
        snapshots = faulty_port(self.stores.snapshots, wire, "snapshots")
        sandbox = faulty_sandbox(lambda: cast("tuple[Process, Sandbox]", self.sandbox), wire)
        packs = faulty_port(
            ContextService(self.stores.log, self.stores.blobs, sim_story.context_config(), clock=process.clock),
            wire,
            "packs",
        )

        platform = self._platform(wire, chance=self.faults.chance) if self.scenario.pauses else None
        leases = faulty_leases(self.stores.leases, wire)

        async def make_bench(story_id: StoryId, epoch: int) -> Workbench:
            journal = Journal(
                log=log,
                blobs=blobs,
                clock=process.clock,
                sandbox=sandbox,
                agents=agents,
                story_id=story_id,
                epoch=epoch,
                policy=step_policy(),
                snapshots=snapshots,
                budgeting=self.budgeting,
                platform=platform,
                packs=packs,
            )
            await journal.load()
            return Workbench(
                journal=journal,
                rules=_rules(self.scenario.artifacts),
                packs=packs,
                forge=forge,
                blobs=blobs,
                clock=process.clock,
                reports=ReportService(log, blobs),
            )

        shard = CouncilShard(
            name=name,
            incarnation=incarnation,
            log=log,
            leases=leases,
            inbox=faulty_inbox(self.stores.inbox, wire),
            clock=process.clock,
            make_bench=make_bench,
            commands=sim_story.commands(),
            ttl_s=self.scenario.ttl_s,
            sweep_s=3.0,
            projects=PlatformOwner(
                log=log,
                claims=BriefClaims(log, leases, process.clock, process.name),
                view=platform,
                rules=DelegationRules(fsm(), ("reviewer",), process.clock.now_ms),
                roles_of=lambda _: frozenset({"admin"}),
            )
            if platform
            else None,
        )
        self.shards[name] = (process, shard)
        process.spawn(self._run_shard(process, shard), name=process.name)

    def _platform(self, wire: Wire, *, chance: Random) -> PlatformView:
        """What the platform's stream says, over a log that fails and a feed that loses hints."""
        feed = faulty_feed(self.stores.feed, wire, chance, lose=0.2, repeat=0.2)
        return PlatformView(faulty_log(self.stores.log, wire, self.acknowledged), feed)

    async def _run_shard(self, process: Process, shard: CouncilShard) -> None:
        try:
            await shard.run()
        except Exception as error:
            # A real process would end and be started again; that is a defect all the same.
            self.loop.failures.append(f"{process.name} ended with {error!r}")
            process.kill()

    def _restart_shard(self, name: str, dead: Process) -> None:
        if self.shards[name][0] is dead:
            self.start_shard(name)

    def start_projector(self, number: int) -> None:
        """A projector runs; it is started again when it dies."""
        process, wire = self._process(f"projector:{number}/{self.faults.chance.randrange(10_000)}")
        process.when_killed = lambda: self._later(lambda: self.start_projector(number))
        chance = self.faults.chance
        projector = Projector(
            faulty_log(self.stores.log, wire, []),
            self._graph(wire),
            feed=faulty_feed(self.stores.hints, wire, chance, lose=0.2, repeat=0.2),
            letters=faulty_port(self.stores.letters, wire, "letters"),
            clock=process.clock,
            consumer=process.name,
            sweep_s=10.0,
            poll_s=4.0,
            seed=number,
        )
        process.spawn(projector.run(), name=process.name)

    def _graph(self, wire: Wire) -> DecisionGraph:
        async def watch(op: str, outcome: Any) -> Any:
            wire.faults.seen["cursor lost race"] += op == "apply" and outcome is False
            return outcome

        return cast("DecisionGraph", FaultyPort(self.stores.graph, wire, "graph", watch=watch))

    def _later(self, start: Callable[[], None]) -> None:
        """Something that died is started again after a while, as Ray does it."""
        self.loop.call_later(self.faults.chance.uniform(0.5, 6.0), start)

    # What goes wrong besides calls.

    async def strike(self) -> None:
        """Now and then a process is killed, frozen, cut off or replaced, or a clock jumps."""
        chance, faults = self.faults.chance, self.faults
        strikes = chance.choice((0, 1, 2, 4))
        for _ in range(strikes):
            await asyncio.sleep(chance.uniform(0, 2 * self.scenario.faults_until_s / (strikes + 1)))
            if faults.is_over:
                return
            name = chance.choice(sorted(self.shards))
            process = self.shards[name][0]
            match chance.randrange(6):
                case 0:
                    faults.note(f"{process.name}: killed")
                    faults.seen["killed at any moment"] += 1
                    process.kill()
                case 1:
                    seconds = chance.choice((0.5, 1.2, 2.5)) * self.scenario.ttl_s
                    faults.note(f"{process.name}: frozen for {seconds:.1f} s")
                    process.freeze(seconds)
                    if chance.random() < 0.5:
                        self._replace(name, process, seconds)
                case 2:
                    faults.cut_off(process, chance.uniform(0.7, 2.0) * self.scenario.ttl_s)
                    self._watch_fence(name)
                case 3:
                    seconds = chance.choice((-600, -30, 30, 600))
                    faults.note(f"{process.name}: its clock jumps by {seconds} s")
                    faults.seen["clock of a shard jumped"] += 1
                    process.clock.jump(seconds)
                case 4:
                    faults.note("the store's clock jumps by 3600 s")
                    faults.seen["clock of the store jumped"] += 1
                    self.stores.clock.jump(3600)
                case _:
                    faults.note(f"{self.sandbox[0].name}: killed")
                    faults.seen["sandbox killed"] += 1
                    self.sandbox[0].kill()

    def _replace(self, name: str, zombie: Process, wakes_in_s: float) -> None:
        """The frozen shard is taken for dead and replaced; it wakes up all the same, and is killed some time later."""
        self.faults.seen["zombie"] += 1
        zombie.when_killed = lambda: None
        self.loop.call_later(1.0, lambda: self.start_shard(name))
        self.loop.call_later(wakes_in_s + self.faults.chance.uniform(1, 6), zombie.kill)

    def _watch_fence(self, name: str) -> None:
        process, shard = self.shards[name]
        before = set(shard.status().stories)

        def look() -> None:
            # Gone from the shard although it lives and nobody else was granted the lease yet: it let go by itself.
            if before and process.is_alive and not before & set(shard.status().stories):
                self.faults.seen["self-fenced"] += 1

        self.loop.call_later(0.9 * self.scenario.ttl_s, look)

    # What people do.

    async def person(self, number: int, story_id: StoryId) -> None:
        """One person brings one story to its end, and comes again whatever happens."""
        process, wire = self._process(f"client:{number}")
        log = faulty_log(self.stores.log, wire, [])
        desk = PlanningDesk(
            log=log,
            inbox=faulty_inbox(self.stores.inbox, wire),
            feed=faulty_port(self.stores.feed, wire, "feed"),
            clock=process.clock,
            fsm=fsm(),
        )
        chance = self.faults.chance
        state: StoryState | None = None
        asked = Counter[str]()
        while True:
            try:
                state = fold(await log.read(StreamId.of_story(story_id), after=state.version if state else 0), state)
                if self._is_over(state):
                    self._ended.add(story_id)
                    return
                command = self._next_command(number, state)
                if command is not None:
                    name, body = command
                    key = f"{story_id}/{name}/{state.version if state and name != 'start_story' else 0}"
                    await self._send(desk, story_id, name, body, f"{key}/{asked[key]}", asked, key)
            except StoreUnavailable:
                pass
            await asyncio.sleep(chance.uniform(0.5, 2.5))

    async def _send(
        self,
        desk: PlanningDesk,
        story_id: StoryId,
        name: str,
        body: dict[str, Any],
        key: str,
        asked: Counter[str],
        stem: str,
    ) -> None:
        chance = self.faults.chance
        try:
            for _ in range(chance.choice((1, 1, 2, 3))):
                await desk.command(
                    story_id, parse_command(name, body), principal=sim_story.PERSON, key=key, timeout_s=5.0
                )
        except StoreUnavailable:
            raise
        except FleetError as error:
            # An answer: asked again under a new key, if the state still wants it.
            self.faults.seen[f"refused: {error.code}"] += 1
            asked[stem] += 1

    async def admin(self) -> None:
        """Pauses the fleet now and then, and lets it go on after a while."""
        process, wire = self._process("client:admin")
        chance = self.faults.chance
        desk = PlatformDesk(
            view=self._platform(wire, chance=chance),
            inbox=faulty_inbox(self.stores.inbox, wire),
            clock=process.clock,
        )
        for number in range(self.scenario.pauses):
            await asyncio.sleep(chance.uniform(2.0, 12.0))
            await self._told(desk, PauseFleet(reason="something looks wrong"), f"pause/{number}")
            began_ms = self.stores.clock.now_ms()
            await asyncio.sleep(chance.uniform(5.0, 40.0))
            self.pauses.append((began_ms, self.stores.clock.now_ms()))
            await self._told(desk, ResumeFleet(), f"resume/{number}")

    async def _told(self, desk: PlatformDesk, sent: AnyPlatformCommand, key: str) -> None:
        """The command was carried out, however often it takes to be told so."""
        while True:
            try:
                found = await desk.command(sent, principal=sim_story.PERSON, key=f"admin/{key}", timeout_s=5.0)
            except StoreUnavailable:
                await asyncio.sleep(1.0)
            else:
                if not isinstance(found, Pending):
                    return

    def _is_over(self, state: StoryState | None) -> bool:
        return state is not None and (state.closed or state.disposition == "cancelled")

    def _next_command(self, number: int, state: StoryState | None) -> tuple[str, dict[str, Any]] | None:
        """What a person would do now, None when it is not their turn."""
        aim = self.scenario.stories[number - 1]
        if state is None:
            return "create_story", {"story": sim_story.story_text(number, tasks=2 if aim == "restored" else 1)}
        if state.disposition == "parked":
            # A person looks after a parked story when the trouble is over.
            return ("unpark", {"note": "the trouble is over"}) if self.faults.is_over else None
        if state.start is None:
            delegate = {"branch": ["po", "qa"], "restored": ["qa"]}.get(aim, [])
            return "start_story", {"repo": sim_story.REPOSITORY, "delegate": delegate}
        pending = [a.request.gate for a in state.approvals.values() if a.status == "requested" and not a.voided]
        if aim == "restored":
            return _of_restored(state, pending, self.scenario.forward_at)
        if f"approve_{aim}" in pending:
            return "cancel", {"reason": f"the {aim} was all that was wanted"}
        if "approve_scope" in pending and aim == "design":
            return "approve", {"gate": "approve_scope"}
        return None

    # The run.

    async def run(self) -> bool:
        """True once every story ended and the graph caught up; False when that took too long."""
        for number in range(self.scenario.shards):
            self.start_shard(f"council:{number}")
        for number in range(self.scenario.projectors):
            self.start_projector(number)
        people = [asyncio.create_task(self.person(n, s)) for n, s in enumerate(self.stories, 1)]
        if self.scenario.pauses:
            people.append(asyncio.create_task(self.admin()))
        striking = asyncio.create_task(self.strike())
        until = self.scenario.faults_until_s + self.scenario.heals_in_s
        try:
            while self.loop.time() < until:
                await asyncio.sleep(1.0)
                if all(p.done() for p in people) and await self._is_projected():
                    return True
            return False
        finally:
            for task in (*people, striking):
                task.cancel()
            await asyncio.gather(*people, striking, return_exceptions=True)

    async def _is_projected(self) -> bool:
        for stream in await self.stores.log.streams():
            if (await self.stores.graph.cursor(stream)).version != (await self.stores.log.head(stream)).version:
                return False
        return True


def _of_restored(state: StoryState, pending: list[str], forward_at: int) -> tuple[str, dict[str, Any]] | None:
    if state.restoration is not None:
        return None
    first, second = [*state.checkpoints, "", ""][:2]
    if "docs_ready" in pending and not state.restorations_asked:
        return "restore_story", {"checkpoint": first, "reason": "the second step broke the first"}
    is_undone = state.restorations_asked == 1 and state.tree != state.checkpoints[second].tree
    if is_undone and forward_at and state.version >= forward_at:
        return "restore_story", {"checkpoint": second, "reason": "the second step was right after all"}
    return ("approve", {"gate": pending[0]}) if pending else None


def simulate(
    seed: int | str,
    scenario: Scenario,
    *,
    stores: Callable[[SimLoop], Stores] = Stores,
    faults: Callable[[SimLoop], RandomFaults] | None = None,
) -> Outcome:
    """One run of the scenario under this seed, from nothing to its end."""
    name = f"{scenario.name}/{seed}"
    with simulated(name) as loop:
        drawn = RandomFaults(loop, name, until_s=scenario.faults_until_s, ttl_s=scenario.ttl_s)
        world = World(loop, scenario, stores(loop), faults(loop) if faults else drawn)
        healed = loop.run_until_complete(world.run())
        outcome = Outcome(
            seed=seed,
            scenario=scenario,
            stores=world.stores,
            acknowledged=world.acknowledged,
            trace=loop.trace.digest,
            faults=world.faults.list,
            seen=world.faults.seen,
            stories=world.stories,
            pauses=world.pauses,
            healed=healed,
            virtual_s=loop.time(),
            last=loop.trace.last,
        )
    outcome.failures = loop.failures
    return outcome
