"""Deliberation: what a council costs beside its calls, with members that answer at once.

Five members in Ray actors hold a council of three rounds (drafts, critiques, ballots in both orders: 20 calls). The
yardstick is the same calls to the same actors in the same rounds, without a council around them: no procedure, no
prompt, no journal. Log and blobs are in memory; what their durability costs is measured by `appends`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

from benchmarks.figures import Figure
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.council.roster import seats
from fleet.events.council import CouncilBudget, CouncilOpened, RosterMember
from fleet.events.payload import Payload
from fleet.events.story import AcceptanceCriterion, StoryCreated
from fleet.events.task import TreeMerged
from fleet.forge.memory import MemoryForge
from fleet.kernel.clock import SystemClock
from fleet.kernel.collector import expect_long_life
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.log.memory import MemoryEventLog
from fleet.log.port import EventLog
from fleet.models.chat import TokenUsage
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.owner.definitions import Definitions
from fleet.owner.duties.councils import advance_council
from fleet.owner.journal.journal import Journal
from fleet.owner.journal.steps import StepPolicy
from fleet.owner.workbench import Workbench
from fleet.report.service.reports import ReportService
from fleet.story.intents import AdvanceCouncil
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, encode_tree
from fleet.wiring.endpoints import load_definitions
from fleet.wiring.sandbox.plugins import active_policy

MEMBERS = ("architect", "developer", "devops", "data", "qa")
AT_ONCE, TRIES = 100, 3
COUNCIL = EntityId("co-bench1")
CRITERION = EntityId("ac-1")
DONE = digest_of(b"")


class Member:
    """A role agent whose model answers at once; in an actor of its own."""

    async def ask(self, request: AgentRequest) -> AgentAnswer:
        """The answer to one request."""
        return answer_of(request)


def answer_of(request: AgentRequest) -> AgentAnswer:
    """What a mock member says: fixed drafts and critiques, and a vote for every candidate."""
    return AgentAnswer(
        value=_value(request),
        prompt=DONE,
        reply=DONE,
        usage=TokenUsage(tokens_in=10, tokens_out=5),
        engine="instant",
        model="instant",
        revision="1",
        latency_ms=0,
    )


def _value(request: AgentRequest) -> dict[str, Any]:
    match request.kind:
        case "propose":
            criteria = [{"ac": CRITERION, "how": "by a test"}]
            interface = f"slugify(text) -> str, as {request.role} sees it"
            return {"summary": interface, "interface": interface, "path": "a.py", "criteria": criteria, "risk": "none"}
        case "critique":
            return {"severity": "minor", "problem": "digits are not mentioned"}
        case _:
            labels = [n for n in "ABCDE" if f"Candidate {n}:" in request.own]
            votes = [{"label": n, "vote": "approve", "reason": "it fits"} for n in labels]
            return {"votes": votes, "ranking": sorted(labels, key=lambda n: request.own.split(f"Candidate {n}:")[1])}


class Actors:
    """Port Agents over the five actors. Keeps the requests of the council under way, for the yardstick."""

    def __init__(self, handles: dict[str, Any]) -> None:
        self._handles, self.requests = handles, list[AgentRequest]()

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See the port."""
        self.requests.append(request)
        return await self.bare(request)

    async def bare(self, request: AgentRequest) -> AgentAnswer:
        """The same call without anything around it."""
        return await self._handles[request.role].ask.remote(request)


async def measure(folder: Path) -> list[Figure]:
    """Wall time of one council and of a hundred at once, each against its bare calls; best of three, in turn."""
    from cluster.local.ray_head import RayHead

    head = RayHead(folder, dashboard=False, cpus=2, store_mb=80)
    head.start()
    try:
        return await _measured()
    finally:
        head.stop()


async def _measured() -> list[Figure]:
    import ray

    actor: Any = ray.remote(Member).options(num_cpus=0, max_concurrency=1000)
    agents = Actors({role: actor.remote() for role in MEMBERS})
    await hold_council(await council_bench("st-warm-1", agents))
    expect_long_life()  # as in the actor of a shard
    rounds = _rounds(agents.requests)
    figures: list[Figure] = []
    for count, label in ((1, "one council, 20 calls"), (AT_ONCE, f"{AT_ONCE} councils at once, {20 * AT_ONCE} calls")):
        ours: list[float] = []
        bare: list[float] = []
        for number in range(TRIES):
            names = [f"st-{count}-{number}-{n}" for n in range(count)]
            benches = [await council_bench(name, agents) for name in names]
            bare.append(await _timed([lambda: _bare(agents, rounds)] * count))
            ours.append(await _timed([lambda bench=bench: hold_council(bench) for bench in benches]))
        figures.append(Figure(f"{label}", min(ours) * 1e3, "ms", "bare actor calls", min(bare) * 1e3))
    return figures


def _rounds(requests: list[AgentRequest]) -> list[list[AgentRequest]]:
    kinds = dict.fromkeys(r.kind for r in requests)
    found = [[r for r in requests if r.kind == kind] for kind in kinds]
    assert [len(r) for r in found] == [5, 5, 10], "drafts, critiques, ballots in both orders"
    return found


async def _bare(agents: Actors, rounds: list[list[AgentRequest]]) -> None:
    for requests in rounds:
        await asyncio.gather(*(agents.bare(r) for r in requests))


async def _timed(work: list[Callable[[], Awaitable[None]]]) -> float:
    before = time.perf_counter()
    await asyncio.gather(*(one() for one in work))
    return time.perf_counter() - before


async def hold_council(bench: Workbench) -> None:
    """The council of the bench has decided."""
    await advance_council(bench, AdvanceCouncil(COUNCIL))
    assert bench.state.councils[COUNCIL].status == "DECIDED"


@dataclass(frozen=True)
class _Rules:
    definitions: Definitions
    policy: StepPolicy
    context: ContextConfig


@cache
def _rules() -> _Rules:
    files = ConfigFiles(packaged_directory())
    found = load_definitions(files)
    policy = StepPolicy(active_policy(files), found.fsm)
    return _Rules(found, policy, files.load("context.yaml", ContextConfig))


async def council_bench(name: str, agents: Agents, log: EventLog | None = None) -> Workbench:
    """A story whose council of five has just been opened; in a log in memory unless one is given."""
    log = log or MemoryEventLog()
    blobs, clock, rules = MemoryBlobStore(), SystemClock(), _rules()
    story_id = StoryId(name)
    journal = Journal(
        log=log,
        blobs=blobs,
        clock=clock,
        sandbox=cast(Any, None),
        agents=agents,
        story_id=story_id,
        epoch=0,
        policy=rules.policy,
    )
    await journal.load()
    tree = await blobs.put(encode_tree({"a.py": FileEntry("100644", await blobs.put(b"x = 1\n"))}))
    merged = TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20)
    await journal.record("create", created(), merged, _opened(), actor=Principal("user:bench"))
    return Workbench(
        journal=journal,
        rules=rules.definitions,
        packs=ContextService(log, blobs, rules.context, clock=clock),
        forge=MemoryForge(blobs),
        blobs=blobs,
        clock=clock,
        reports=ReportService(log, blobs),
    )


def created() -> Payload:
    """The story of a benchmark."""
    return StoryCreated(
        project_id=EntityId("pr-one1"),
        epic_id=EntityId("ep-one1"),
        title="Make slugs",
        description="Editors want a slug for each title.",
        acceptance_criteria=(AcceptanceCriterion(ac_id=CRITERION, text="Given 'A b', slugify returns 'a-b'"),),
        constraints={},
        tags=(),
        rigor="L1",
        lifecycle="agile",
        language="en",
        priority=3,
        requester=Principal("user:bench"),
        content_digest=DONE,
        config={},
    )


def _opened() -> Payload:
    members = seats(MEMBERS, config=_rules().definitions.council)
    return CouncilOpened(
        council_id=COUNCIL,
        kind="selection",
        output_kind="design",
        roster=tuple(RosterMember.model_validate(m.model_dump()) for m in members),
        rubric_digest=DONE,
        rule_version=1,
        quorum=3,
        pass_threshold="majority",
        rounds=1,
        budget=CouncilBudget(tokens=200_000, wall_s=900),
        seed=7,
        deadline_at=0,
    )
