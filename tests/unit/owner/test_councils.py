"""Councils on a task, from their opening to their outcome, with scripted members and a scripted sandbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from fleet.council.rounds import FRESH_TEMPERATURE
from fleet.events.codec import decode
from fleet.events.council import CouncilDecided, DraftFailed, EvidenceRecorded, RepairReceived, TestsFiltered
from fleet.events.step import SessionEnded, StepStarted
from fleet.events.task import TaskAdded, TreeMerged
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ReplyMalformed
from fleet.kernel.ids import EntityId
from fleet.log.memory import MemoryEventLog
from fleet.models.chat import ToolUse
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.profiles import Budgets, ModelsConfig
from fleet.models.replies.session_reply import SessionReply
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.councils import advance_council, open_design_council, open_task_council
from fleet.owner.workbench import Workbench
from fleet.report.councils import council_summaries
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.story.intents import AdvanceCouncil, OpenDesignCouncil, OpenTaskCouncil
from fleet.story.state import CouncilRecord
from fleet.trees.tree import FileEntry, encode_tree
from fleet.workspace.service import specs
from tests.support import sim_story
from tests.support.acting import Crash, MortalLog
from tests.support.bench import ScriptedAgents, World
from tests.support.sessions import models as session_models
from tests.support.story_events import PLAN, PO, TASK, StoryLog, created_payload, task_of

PATH = "textkit/words.py"
BASE = b"def shout(text: str) -> str:\n    return text.upper()\n"
Answer = Callable[[AgentRequest], Any]


@dataclass
class HangingVoters(ScriptedAgents):
    """Agents of which the voters never answer."""

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request.kind == "vote":
            self.asked.append(request_id)
            await asyncio.Event().wait()
        return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)


ENGINEERS = 3


@dataclass
class HangingEngineers(ScriptedAgents):
    """Engineers who write a working module with their first reply and never give a second one, while time goes by."""

    pass_time: Callable[[float], None] = lambda _: None
    hung: int = 0

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request.kind == "engineer" and request.turns:
            self.asked.append(request_id)
            self.hung += 1
            # Only when all three have a whole turn: who is still in its first one is cut off with less.
            if self.hung >= ENGINEERS:
                self.pass_time(5.0)
            await asyncio.Event().wait()
        return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)


def engineered(request: AgentRequest) -> dict[str, Any]:
    """A reply that writes the whole module."""
    content = BASE.decode() + edit("session")["edits"][0]["content"]
    args = json.dumps({"path": "textkit/slugs.py", "content": content})
    look = ToolUse(id="u1", name="read", arguments=json.dumps({"path": PATH}))
    write = ToolUse(id="u2", name="write", arguments=args)
    whole = ToolUse(id="u3", name="write", arguments=json.dumps({"path": PATH, "content": content}))
    return SessionReply(text="", uses=(look, write, whole)).model_dump(mode="json")


def edit(remark: str, *, wrong: bool = False) -> dict[str, Any]:
    """A draft that differs from others by its remark."""
    code = f"def slugify(text: str) -> str:  # {remark}{' # a slip' if wrong else ''}\n    return text.lower()\n"
    return {"edits": [{"path": PATH, "mode": "definitions", "content": code}]}


def scripted(**answers: Answer) -> Answer:
    """The team of the simulation, in which these kinds of work are answered otherwise."""
    return lambda request: answers.get(request.kind, sim_story.answer)(request)


async def bench_of(
    answer: Answer,
    *,
    rigor: str = "L1",
    agents: Any = None,
    limits: BudgetLimits | None = None,
    models: ModelsConfig | None = None,
    store: MemoryEventLog | None = None,
) -> tuple[World, Workbench]:
    """A story in DESIGN with one task of its plan, and who was asked."""
    budgeting = Budgeting(limits=Budgets(council=limits), models=models) if limits else None
    world = World(agents=agents or ScriptedAgents(answer), program=toolchain, budgeting=budgeting, log=store)
    blob = await world.blobs.put(BASE)
    tree = await world.blobs.put(encode_tree({PATH: FileEntry("100644", blob)}))
    log = StoryLog().add(created_payload(rigor=rigor), actor=PO)
    log.add(
        TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20),
        TaskAdded(plan_id=PLAN, task=task_of(TASK, paths=(PATH,))),
    )
    if models is not None:
        log.move("BACKLOG", "start_build", "BUILD")
    await log.write_to(world.log)
    return world, await world.bench()


async def hold(bench: Workbench, *, design: bool = False) -> CouncilRecord:
    """The council's record once it is over."""
    if design:
        await open_design_council(bench, OpenDesignCouncil(attempt=1))
    else:
        await open_task_council(bench, OpenTaskCouncil(task_id=TASK, attempt=1))
    (council_id,) = bench.state.councils
    await advance_council(bench, AdvanceCouncil(council_id=EntityId(council_id)))
    return bench.state.councils[council_id]


async def payloads(world: World, kind: type[Any]) -> list[Any]:
    """The events of one type."""
    return [p for p in map(decode, await world.events()) if isinstance(p, kind)]


def toolchain(start: ProgramStart) -> ProgramEnd:
    """The toolchain of the simulation, in which an edit of this remark does not apply, and a test needs an edit."""
    if any(b"no such place" in text for text in start.inputs.values()):
        report = {"applied": False, "problems": [{"path": PATH, "message": "no"}], "normal_digest": "0" * 64}
        return ProgramEnd(written={specs.EDITS: json.dumps(report | {"diff_lines": 0}).encode()})
    if start.files.get(PATH) == BASE and any(part.endswith("run_tests.py") for part in start.argv):
        start = replace(start, files={**start.files, PATH: BASE + b"# a slip\n"})
    return sim_story.toolchain(start)


def kinds(world: World) -> list[str]:
    """The kinds of work that were asked for."""
    return [r.kind for r in world.agents.requests]


@pytest.mark.rule("CN-34", "CN-36", "CN-40")
async def test_drafts_of_equal_meaning_are_one_candidate_with_all_its_authors():
    world, bench = await bench_of(scripted(draft=lambda r: edit("same")))
    record = await hold(bench)
    (candidate,) = record.deliberation.candidates()
    assert candidate.authors == ("developer-001", "developer-002", "developer-003")
    assert [p.evidence.cluster_size for p in await payloads(world, EvidenceRecorded)] == [3, 3, 3]
    steps = [s.step_id for s in await payloads(world, StepStarted) if s.step_id.endswith("/apply-edits")]
    assert len(steps) == 1
    (decided,) = await payloads(world, CouncilDecided)
    assert (decided.decided_in, "vote" in kinds(world)) == ("P3", False)


@pytest.mark.rule("CN-34")
async def test_drafts_whose_equal_form_only_execution_shows_are_one_candidate_all_the_same():
    def draft(request: AgentRequest) -> dict[str, Any]:
        empty = {"path": "textkit/other.py", "mode": "definitions", "content": ""}
        return {"edits": [*edit("same")["edits"], *([] if request.variant else [empty])]}

    _, bench = await bench_of(scripted(draft=draft))
    record = await hold(bench)
    state = record.deliberation
    assert len({v.digest for v in state.versions()}) == 2
    assert len(state.candidates()) == 1
    assert record.status == "DECIDED"


@pytest.mark.rule("CN-13", "CN-40")
async def test_lowest_rigor_convenes_nobody_but_one_author_and_one_author_of_tests():
    world, bench = await bench_of(scripted(), rigor="L0")
    record = await hold(bench)
    assert [(m.member_id, m.can_propose) for m in record.opened.roster] == [("developer-001", True), ("qa-001", False)]
    assert sorted(kinds(world)) == ["draft", "tests"]
    (decided,) = await payloads(world, CouncilDecided)
    assert decided.decided_in == "P3"


@pytest.mark.rule("CN-13", "CN-46")
async def test_lowest_rigor_takes_the_architects_design_when_its_form_is_right():
    world, bench = await bench_of(scripted(propose=proposal), rigor="L0")
    record = await hold(bench, design=True)
    assert (record.status, kinds(world)) == ("DECIDED", ["propose"])
    (decided,) = await payloads(world, CouncilDecided)
    assert (decided.decided_in, decided.tally["excused"]) == ("P3", 1)


def proposal(request: AgentRequest) -> dict[str, Any]:
    value = sim_story.answer(request)
    return value | {"criteria": [{"ac": c.ac_id, "how": "a test"} for c in created_payload().acceptance_criteria]}


@pytest.mark.rule("CN-41", "CN-42")
async def test_repair_with_strictly_better_evidence_is_kept_and_measured_against_the_same_tests():
    def draft(request: AgentRequest) -> dict[str, Any]:
        return edit(f"draft {request.variant}", wrong=request.variant > 0)

    world, bench = await bench_of(scripted(draft=draft, repair=lambda r: edit("mended", wrong=r.variant > 1)))
    record = await hold(bench)
    repairs = sorted(await payloads(world, RepairReceived), key=lambda r: r.kept)
    assert [(r.round, r.kept) for r in repairs] == [(1, "new"), (1, "old")]
    assert record.deliberation.version(repairs[0].candidate_id).changed_in == 1
    last = (await payloads(world, EvidenceRecorded))[-1].evidence
    assert (last.round, last.trusted_passed, last.trusted_total, last.cluster_size) == (1, 2, 2, 2)
    assert (await payloads(world, CouncilDecided))[0].decided_in == "P3"
    asked = {r.variant: r.own for r in world.agents.requests if r.kind == "repair"}
    assert set(asked) == {1, 2}
    assert all(f"draft {variant}" in own and "test_ac_2" in own for variant, own in asked.items())


def broken(request: AgentRequest) -> dict[str, Any]:
    return edit(f"no such place {request.variant}")


@pytest.mark.rule("CN-33")
async def test_tests_are_filtered_when_a_repair_first_passes_its_gates():
    def draft(request: AgentRequest) -> dict[str, Any]:
        return edit("anew") if request.sampling.temperature == FRESH_TEMPERATURE else broken(request)

    world, bench = await bench_of(scripted(draft=draft, repair=lambda r: edit("mended")))
    record = await hold(bench)
    anew = [r for r in world.agents.requests if r.kind == "draft"][3:]
    assert (len(anew), kinds(world).count("repair")) == (2, 1)
    assert len({r.sampling.seed for r in world.agents.requests if r.kind == "draft"}) == 5
    names = [e.type for e in await world.events() if e.type in ("RepairReceived", "TestsFiltered", "EvidenceRecorded")]
    assert names == [*["EvidenceRecorded"] * 3, *["RepairReceived"] * 3, "TestsFiltered", *["EvidenceRecorded"] * 3]
    assert record.status == "DECIDED"
    assert record.chosen.evidence is not None
    assert (record.chosen.evidence.trusted_passed, record.chosen.evidence.trusted_total) == (2, 2)


def by_rules(bench: Workbench, version: int) -> Workbench:
    """The same, where councils are opened by this version of the rules."""
    council = bench.rules.council.model_copy(update={"rule_version": version})
    return replace(bench, rules=replace(bench.rules, council=council))


@pytest.mark.rule("CN-32", "CN-33", "CN-58")
async def test_generated_tests_run_on_the_tree_without_a_candidate_too_and_what_passes_there_is_told():
    world, bench = await bench_of(scripted())
    record = await hold(by_rules(bench, 4))
    (filtered,) = await payloads(world, TestsFiltered)
    assert filtered.on_base is not None
    assert set(filtered.on_base) == set(filtered.kept)
    assert sorted(end == "passed" for end in filtered.on_base.values()) == [False, True]
    assert not filtered.dropped, "a test is not dropped for how it ends there"
    assert len([s for s in await payloads(world, StepStarted) if "/evidence/base/" in s.step_id]) == 1
    (decided,) = await payloads(world, CouncilDecided)
    whole = json.loads(await world.blobs.get(decided.record_digest))
    assert whole["tests_on_base"] == filtered.on_base
    (summary,) = council_summaries([(event, decode(event)) for event in await world.events()])
    passing = tuple(test for test in filtered.kept if filtered.on_base[test] == "passed")
    assert summary.tests_passed_before == passing != ()
    assert record.status == "DECIDED"


@pytest.mark.rule("CN-32", "CN-59")
async def test_council_of_an_older_rule_version_runs_no_tests_without_a_candidate():
    world, bench = await bench_of(scripted())
    await hold(by_rules(bench, 3))
    (filtered,) = await payloads(world, TestsFiltered)
    assert filtered.on_base is None
    assert not [s for s in await payloads(world, StepStarted) if "/evidence/base/" in s.step_id]
    (decided,) = await payloads(world, CouncilDecided)
    assert "tests_on_base" not in json.loads(await world.blobs.get(decided.record_digest))


@pytest.mark.rule("CN-56", "CN-24")
async def test_repairs_that_cannot_be_read_leave_the_drafts_and_nobody_to_vote_for():
    silent = ReplyMalformed("no usable reply")
    world, bench = await bench_of(scripted(draft=broken, repair=lambda r: silent, tests=lambda r: silent))
    record = await hold(bench)
    assert (record.status, record.reason) == ("UNDECIDED", "no_valid_candidate")
    assert {p.kept for p in await payloads(world, RepairReceived)} == {"old"}
    assert not await payloads(world, TestsFiltered)
    assert (kinds(world).count("repair"), kinds(world).count("draft")) == (1, 5)


def without_tests(**answers: Answer) -> Answer:
    """Nobody wrote tests, so that evidence leaves all drafts equal and ballots are needed."""
    return scripted(tests=lambda r: ReplyMalformed("no tests"), **answers)


@pytest.mark.rule("CN-56", "CN-58", "CN-60", "CN-61", "CN-62")
async def test_decision_record_holds_all_that_the_decision_stands_on():
    def vote(request: AgentRequest) -> dict[str, Any]:
        value = sim_story.answer(request)
        return value | {"votes": [v | {"vote": "reject"} if v["label"] == "A" else v for v in value["votes"]]}

    world, bench = await bench_of(without_tests(vote=vote))
    await hold(bench)
    (decided,) = await payloads(world, CouncilDecided)
    record = json.loads(await world.blobs.get(decided.record_digest))
    minority = json.loads(await world.blobs.get(decided.minority_report_digest))
    assert (record["winner_or_reason"], record["minority_report"]) == (decided.winner, minority)
    assert (len(record["candidates"]), len(record["evidence"]), len(record["ballots"])) == (3, 3, 6)
    assert [c["rank"] for c in record["candidates"]] == [1, 2, 3]
    assert {c["score"] for c in record["candidates"]} == {None}
    assert record["ballots"][0]["reasons"]
    assert all(r["reasons"] == ["it fits", "it fits"] for r in minority["rejecting"])
    assert set(decided.counterfactuals) == {"first_draft", "best_of_n", "plurality"}
    assert decided.counterfactuals["first_draft"]["gates_ok"] is True
    # The call for tests ended without an answer.
    assert sum(decided.tokens.values()) == 15 * (len(kinds(world)) - 1) == sum(record["tokens"].values())


@pytest.mark.rule("CN-47", "CN-111")
async def test_broken_ballot_is_asked_for_once_more_with_what_was_wrong_with_it():
    def vote(request: AgentRequest) -> dict[str, Any]:
        value = sim_story.answer(request)
        if request.principal != "agent:developer-001" or "cannot be counted" in request.own:
            return value
        return value | {"ranking": ["A", "A"]}

    world, bench = await bench_of(without_tests(vote=vote))
    record = await hold(bench)
    assert (record.status, len(record.deliberation.ballots)) == ("DECIDED", 6)
    repairs = [name for name in world.agents.asked if name.endswith("-repair")]
    assert len(repairs) == 2
    again = [r for r in world.agents.requests if "ranking must name each of A, B exactly once" in r.own]
    assert len(again) == 2


@pytest.mark.rule("CN-57", "CN-49", "CN-119")
async def test_voters_that_never_answer_hold_the_council_up_to_its_deadline_and_no_longer():
    agents = HangingVoters(without_tests())
    world, bench = await bench_of(without_tests(), agents=agents, limits=BudgetLimits(wall_ms=300))
    record = await hold(bench)
    assert (record.status, record.reason) == ("UNDECIDED", "deadline")
    assert sum("/ballot/" in name for name in agents.asked) == 6
    assert len(record.deliberation.versions()) == 3
    assert "council_escalation" in [a.request.gate for a in bench.state.approvals.values()]


async def cut_off(log: MortalLog | None = None) -> tuple[World, Workbench]:
    """A story whose engineers write a module and are then cut off by the deadline of their council."""
    agents = HangingEngineers(scripted(engineer=engineered))
    limits = BudgetLimits(wall_ms=1_500)
    world, bench = await bench_of(
        scripted(), agents=agents, limits=limits, models=session_models(), store=log or MortalLog()
    )
    mortal, clock = world.log, world.clock
    assert isinstance(clock, MemoryClock)
    assert isinstance(mortal, MortalLog)

    def pass_time(seconds: float) -> None:
        mortal.is_armed = True
        clock.advance(seconds)

    agents.pass_time = pass_time
    return world, bench


@pytest.mark.rule("CN-28", "CN-57")
async def test_deadline_makes_engineers_hand_in_their_files_and_evidence_decides_on_them():
    world, bench = await cut_off()
    record = await hold(bench)
    ends = await payloads(world, SessionEnded)
    assert [(e.reason, e.turns) for e in ends] == [("council_over", 1)] * 3
    assert not await payloads(world, DraftFailed)
    assert len(await payloads(world, EvidenceRecorded)) == 3
    assert len(record.deliberation.candidates()) == 1
    assert record.status == "DECIDED"
    assert record.deliberation.versions()[0].evidence is not None


@pytest.mark.rule("CN-28", "CN-122")
async def test_owner_killed_after_the_deadline_takes_the_same_files():
    plain, bench = await cut_off()
    expected = {v.digest for v in (await hold(bench)).deliberation.versions()}
    assert isinstance(plain.log, MortalLog)
    assert plain.log.count > 15
    for at in range(1, plain.log.count + 1, 3):
        world, bench = await cut_off(MortalLog(at=at))
        with pytest.raises(Crash):
            await hold(bench)
        (council_id,) = bench.state.councils
        again = await world.bench()
        await advance_council(again, AdvanceCouncil(council_id=EntityId(council_id)))
        record = again.state.councils[council_id]
        assert {v.digest for v in record.deliberation.versions()} == expected, at
        assert record.status == "DECIDED", at
        assert len(await payloads(world, SessionEnded)) == 3, at


@pytest.mark.rule("CN-57", "MB-25")
async def test_drafts_that_used_up_the_budget_are_measured_and_decided_where_they_agree():
    world, bench = await bench_of(scripted(), limits=BudgetLimits(calls=4))
    record = await hold(bench)
    assert (record.status, sorted(kinds(world))) == ("DECIDED", ["draft", "draft", "draft", "tests"])
    world, bench = await bench_of(scripted(), limits=BudgetLimits(calls=3))
    record = await hold(bench)
    assert (record.status, record.reason) == ("UNDECIDED", "budget_exhausted")
