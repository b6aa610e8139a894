"""Councils that people ask for: held beside the story's own work, which they never change (CN-13, AP-77, AP-78)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet.events.codec import decode
from fleet.events.council import CouncilDecided
from fleet.events.decision import DecisionProposed
from fleet.events.story import StoryCancelled, StoryParked, StoryPaused, StoryTransitioned
from fleet.events.task import TaskAdded, TaskTransitioned, TreeMerged
from fleet.events.workspace import WorkspaceReported, WorkspaceScored, WorkspaceSummary
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound, PolicyDenied, VersionConflict
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, StreamId
from fleet.log.port import Command
from fleet.models.engine_config import MockEngine
from fleet.models.engines.mock import MockChatModel
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.profiles import Budgets
from fleet.models.replies.replies import advice_schema
from fleet.models.routing.budget import BudgetLimits
from fleet.owner.budgets import Budgeting
from fleet.owner.duties.advice import evidence_of_text
from fleet.owner.duties.councils import advance_council, open_design_council, open_task_council, reopen_task_council
from fleet.owner.workbench import Workbench
from fleet.report.timeline import describe
from fleet.story.commands.councils import council_id_of
from fleet.story.intents import AdvanceCouncil, CommitWork, OpenDesignCouncil, OpenTaskCouncil, ReopenTaskCouncil
from fleet.story.plan import plan
from fleet.story.plan_tasks import plan_tasks
from fleet.story.state import CouncilRecord
from fleet.trees.tree import FileEntry, encode_tree
from tests.support import sim_story
from tests.support.agents import role_agent
from tests.support.bench import ScriptedAgents, World
from tests.support.rules import fsm
from tests.support.story_events import AC_1, AC_2, PLAN, STORY, TASK, digest, story, task_of

PATH = "text/slug.py"
ROOT = "user:root"
ASK: dict[str, Any] = {
    "story_id": STORY,
    "task_description": "Which way of folding umlauts should the slugs use?",
    "role": "architect",
    "output_kind": "text",
    "constraints": {"rubric": [{"name": "readers", "text": "Links stay readable"}], "requirements": ["Name one way"]},
    "budget": {"tokens": 20_000, "wall_s": 600},
}


def advice(request: AgentRequest) -> dict[str, Any]:
    """What a member writes: each variant another text."""
    refs = ["r-1", AC_1, AC_2]
    addressed = [{"ref": ref, "how": "by a table of letters"} for ref in refs]
    return {"summary": f"Way {request.variant}", "text": f"Fold by table {request.variant}.", "addressed": addressed}


def team(request: AgentRequest) -> Any:
    """The team of the simulation, which can advise too."""
    return advice(request) if request.kind == "advise" else sim_story.answer(request)


async def world_of(
    answer: Callable[[AgentRequest], Any] = team, *, measured: bool = True, until: Any = "scope", **changes: Any
) -> tuple[World, Workbench]:
    """A story in DESIGN whose base is measured, with one task; with `until` at a later stage."""
    world = World(agents=changes.pop("agents", None) or ScriptedAgents(answer), program=sim_story.toolchain, **changes)
    blob = await world.blobs.put(b"def shout(text: str) -> str:\n    return text.upper()\n")
    tree = await world.blobs.put(encode_tree({PATH: FileEntry("100644", blob)}))
    log = story(until=until).add(
        TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20),
        *([reported(tree)] if measured else []),
        TaskAdded(plan_id=PLAN, task=task_of(TASK, paths=(PATH,))),
    )
    await log.write_to(world.log)
    return world, await world.bench()


def reported(tree: Digest, *, builds: bool = True) -> WorkspaceReported:
    """A report on the tree."""
    return WorkspaceReported(
        run_id=EntityId("rn-base1"),
        tree_digest=tree,
        report_digest=digest("report"),
        complete=True,
        summary=WorkspaceSummary(build_ok=builds),
    )


def sent(name: str, body: dict[str, Any], *, who: str = ROOT, key: str = "key-1") -> Command:
    """The command as the front sends it."""
    return Command(
        command_id=CommandId(f"{who}/{key}"),
        stream=StreamId.of_story(STORY),
        name=name,
        principal=Principal(who),
        body=body,
    )


async def do(world: World, bench: Workbench, name: str, body: dict[str, Any], **how: str) -> EntityId:
    """The command is carried out; the id of the council that it opens, if it opens one."""
    command = sent(name, body, **how)
    await world.commands.handle(bench, command)
    return council_id_of(command.stream, command.command_id)


async def ask(world: World, bench: Workbench, key: str = "key-1", **changes: Any) -> EntityId:
    """The council that was asked for."""
    return await do(world, bench, "request_council", ASK | changes, key=key)


async def hold(bench: Workbench, council_id: EntityId) -> CouncilRecord:
    """Its record once it is over."""
    await advance_council(bench, AdvanceCouncil(council_id=council_id))
    return bench.state.councils[council_id]


async def payloads(world: World, kind: type[Any]) -> list[Any]:
    """The events of one type."""
    return [p for p in map(decode, await world.events()) if isinstance(p, kind)]


@pytest.mark.rule("CN-1", "CN-2", "CN-13", "CN-20", "CN-35", "AP-77")
async def test_text_on_request_is_drafted_judged_and_decided_and_moves_nothing():
    world, bench = await world_of()
    before = plan(bench.state, fsm(), now_ms=bench.now_ms)
    council_id = await ask(world, bench)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == (AdvanceCouncil(council_id),)
    record = await hold(bench, council_id)
    assert (record.status, record.opened.requested_by, record.opened.quorum) == ("DECIDED", ROOT, 2)
    assert len(record.deliberation.versions()) == 3
    assert {r.kind for r in world.agents.requests} == {"advise", "critique", "vote"}
    # A decision would be the story's; advice is none, and what was owed before is owed still.
    assert not await payloads(world, DecisionProposed)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == before
    (decided,) = await payloads(world, CouncilDecided)
    chosen = json.loads(await bench.blobs.get(record.chosen.digest))
    assert chosen["text"].startswith("Fold by table")
    assert (decided.winner, decided.decision_id) == (record.winner, None)
    assert sum(decided.tokens.values()) == 15 * len(world.agents.requests)


@pytest.mark.rule("CN-13", "CN-22", "CN-125")
async def test_members_and_voters_are_shown_the_question_and_no_author():
    world, bench = await world_of()
    await hold(bench, await ask(world, bench))
    for request in world.agents.requests:
        assert ASK["task_description"] in request.shared
        assert "r-1: Name one way" in request.shared
        assert "Links stay readable" in request.shared
        assert "agent:" not in request.shared + request.own


@pytest.mark.rule("CN-31")
async def test_text_that_passes_a_requirement_over_cannot_win():
    def silent(request: AgentRequest) -> Any:
        found = team(request)
        if request.kind == "advise" and request.variant:
            found["addressed"] = [{"ref": AC_1, "how": "yes"}] * 3
        return found

    world, bench = await world_of(silent)
    record = await hold(bench, await ask(world, bench))
    failed = {v.author: v.evidence.gates_ok for v in record.deliberation.versions() if v.evidence}
    assert failed == {"architect-001": True, "architect-002": False, "architect-003": False}
    assert record.chosen.author == "architect-001"


@pytest.mark.rule("CN-1", "CN-50", "CN-20", "CN-21")
@pytest.mark.parametrize(("vote", "verdict"), [("approve", "approve"), ("reject", "reject")])
async def test_gate_on_a_measured_tree_gives_a_verdict_of_its_voters_alone(vote: str, verdict: str):
    def voters(request: AgentRequest) -> Any:
        return {"votes": [{"label": "A", "vote": vote, "reason": "so it seems"}]}

    world, bench = await world_of(voters)
    tree = bench.state.tree
    assert tree is not None
    scored = WorkspaceScored.model_validate(story(until="merged").decoded_payloads("WorkspaceScored")[0].model_dump())
    await bench.journal.record("scored", scored.model_copy(update={"tree_digest": tree, "rigor": bench.state.rigor}))
    council_id = await ask(world, bench, kind="gate", output_kind="code_patch", subject=tree, role="qa")
    record = await hold(bench, council_id)
    (decided,) = await payloads(world, CouncilDecided)
    assert (record.status, decided.verdict, decided.winner) == ("DECIDED", verdict, None)
    assert record.opened.quorum == 3
    told = [describe(p) for p in map(decode, await world.events())]
    assert f"Council on code_patch opened with 3 members, asked for by {ROOT}" in told
    assert f"Council decided in P6: {verdict}" in told
    assert {r.kind for r in world.agents.requests} == {"vote"}
    assert "It changes nothing." in world.agents.requests[0].own


@pytest.mark.rule("CN-30", "CN-56", "GL-18")
async def test_gate_on_a_tree_that_does_not_build_is_not_put_to_the_vote():
    world, bench = await world_of()
    tree = digest("broken tree")
    await bench.journal.record("broken", reported(tree, builds=False))
    record = await hold(bench, await ask(world, bench, kind="gate", output_kind="code_patch", subject=tree))
    assert (record.status, record.reason) == ("UNDECIDED", "no_valid_candidate")
    assert not world.agents.requests
    assert "council_escalation" in [a.request.gate for a in bench.state.approvals.values()]


@pytest.mark.rule("CN-1", "CN-50")
async def test_gate_on_a_recorded_text_shows_it_to_the_voters():
    world, bench = await world_of(lambda r: {"votes": [{"label": "A", "vote": "approve", "reason": "good"}]})
    first = await ask(world, bench, key="first")
    asked = bench.state.councils[first].opened.request_digest
    await do(world, bench, "cancel_council", {"council_id": first, "reason": "not needed any more"}, key="end")
    record = await hold(bench, await ask(world, bench, kind="gate", subject=asked, key="gate"))
    assert record.status == "DECIDED"
    assert ASK["task_description"] in world.agents.requests[0].own


@pytest.mark.rule("CN-10", "AP-89")
async def test_digest_that_somebody_only_wrote_into_a_text_is_no_subject():
    world, bench = await world_of()
    elsewhere = await bench.blobs.put(b"of another story")
    await do(world, bench, "ask_question", {"text": str(elsewhere)}, key="question")
    with pytest.raises(InvalidInput) as refused:
        await ask(world, bench, kind="gate", subject=elsewhere)
    assert refused.value.details["field"] == "/subject"


@pytest.mark.rule("CN-13", "PL-48")
async def test_design_on_request_is_not_taken_for_the_storys_own():
    world, bench = await world_of(design)
    owed = plan(bench.state, fsm(), now_ms=bench.now_ms)
    assert owed == (OpenDesignCouncil(attempt=1),)
    record = await hold(bench, await ask(world, bench, output_kind="design"))
    assert record.status == "DECIDED"
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == owed


def design(request: AgentRequest) -> Any:
    """A team that proposes for the criteria of this story."""
    found = team(request)
    if request.kind == "propose":
        found = found | {"path": PATH, "criteria": [{"ac": ac, "how": "a test checks it"} for ac in (AC_1, AC_2)]}
    return found


@pytest.mark.rule("CN-13", "CN-23", "LC-110")
async def test_code_on_request_is_executed_and_is_not_the_tasks_work():
    world, bench = await world_of(measured=False)
    await begin_task(bench)
    wanted = {"output_kind": "code_patch", "role": "developer", "task_id": TASK}
    with pytest.raises(InvalidInput) as refused:
        await ask(world, bench, output_kind="code_patch", role="developer", key="no-task")
    assert refused.value.details["field"] == "/task_id"
    council_id = await ask(world, bench, **wanted)
    with pytest.raises(InvalidInput, match="works on task"):
        await ask(world, bench, **wanted, key="again")
    record = await hold(bench, council_id)
    assert record.status == "DECIDED"
    assert record.chosen.evidence is not None
    assert record.chosen.evidence.tree_digest is not None
    assert plan_tasks(bench.state, fsm(), bench.now_ms) == (OpenTaskCouncil(task_id=TASK, attempt=1),)


PLAN_ASK: dict[str, Any] = {"output_kind": "plan", "task_description": "How do we split the work?"}


def planner(request: AgentRequest) -> Any:
    """A team whose variants split the work differently."""
    if request.kind != "derive":
        return sim_story.answer(request)
    changes = {"title": f"Slugs, way {request.variant}", "acceptance_refs": [AC_1, AC_2], "paths": [PATH]}
    task = sim_story.answer(request)["tasks"][0] | changes
    return {"tasks": [task], "addressed": [{"ref": "r-1", "how": "by its title"}]}


@pytest.mark.rule("AP-77", "CN-13", "CN-31", "PL-20")
async def test_plan_on_request_is_proposed_judged_and_can_be_written_as_a_version():
    world, bench = await world_of(planner, until="design")
    before = plan(bench.state, fsm(), now_ms=bench.now_ms)
    record = await hold(bench, await ask(world, bench, **PLAN_ASK))
    assert (record.status, record.opened.output_kind) == ("DECIDED", "plan")
    assert {r.kind for r in world.agents.requests} == {"derive", "critique", "vote"}
    assert [g.name for g in record.chosen.evidence.gates] == ["plan", "requirements"]  # pyright: ignore[reportOptionalMemberAccess]
    votes = [r.own for r in world.agents.requests if r.kind == "vote"]
    assert all("Task 0: Slugs, way" in text and AC_1 in text for text in votes)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == before
    # It is advice until somebody writes it; then it is a version like any other.
    chosen = json.loads(await bench.blobs.get(record.chosen.digest))
    body = {"rationale": "as the council advised", "tasks": chosen["tasks"]}
    await do(world, bench, "write_plan", body, key="write")
    (written,) = [p for p in bench.state.plans.values() if p.proposal.author == ROOT]
    assert [t.title for t in written.proposal.tasks] == [chosen["tasks"][0]["title"]]


@pytest.mark.rule("CN-31", "PL-13", "PL-21")
@pytest.mark.parametrize("wrong", [{"acceptance_refs": [AC_1]}, {"depends_on": [0]}, {"estimated_hours": 10**6}])
async def test_plan_that_breaks_a_rule_of_plans_cannot_win(wrong: dict[str, Any]):
    def broken(request: AgentRequest) -> Any:
        found = planner(request)
        if request.kind == "derive" and request.variant != 1:
            found["tasks"][0] |= wrong
        return found

    world, bench = await world_of(broken, until="design")
    record = await hold(bench, await ask(world, bench, **PLAN_ASK))
    assert record.status == "DECIDED"
    chosen = json.loads(await bench.blobs.get(record.chosen.digest))
    assert chosen["tasks"][0]["title"] == "Slugs, way 1"
    failed = [v for v in record.deliberation.versions() if v.evidence is not None and not v.evidence.gates_ok]
    assert len(failed) == 2


@pytest.mark.rule("CN-31")
async def test_plan_without_a_word_on_a_requirement_cannot_win():
    def silent(request: AgentRequest) -> Any:
        return planner(request) | ({"addressed": []} if request.kind == "derive" else {})

    world, bench = await world_of(silent, until="design")
    record = await hold(bench, await ask(world, bench, **PLAN_ASK))
    assert (record.status, record.reason) == ("UNDECIDED", "no_valid_candidate")


@pytest.mark.rule("AP-77", "PL-24")
async def test_plan_is_asked_for_when_its_design_is_decided_and_before_its_build_is_over():
    world, bench = await world_of(planner)
    before = bench.state.version
    with pytest.raises(InvalidTransition, match="without a decided design: ask for one"):
        await ask(world, bench, **PLAN_ASK)
    assert bench.state.version == before
    world, bench = await world_of(planner, until="design")
    with pytest.raises(InvalidInput, match="a plan is of the whole story"):
        await ask(world, bench, **PLAN_ASK, task_id=TASK)
    first = await ask(world, bench, **PLAN_ASK, key="first")
    await hold(bench, first)
    for from_, event, to in (("DESIGN", "approve_design", "BUILD"), ("BUILD", "finish_build", "TEST")):
        moved = StoryTransitioned(from_=from_, event=event, to=to)  # pyright: ignore[reportArgumentType]
        await bench.journal.record(f"moved/{to}", moved)
    before = bench.state.version
    with pytest.raises(InvalidTransition, match="past its build"):
        await ask(world, bench, **PLAN_ASK, key="late")
    with pytest.raises(InvalidTransition, match="past its build"):
        await do(world, bench, "reject_council", {"council_id": first, "reason": "it is too coarse"}, key="back")
    assert bench.state.version == before


async def begin_task(bench: Workbench) -> None:
    """The task is being implemented."""
    work = TaskTransitioned(
        task_id=TASK,
        from_="todo",
        action="ASSIGN_TO_DEVELOPER",
        to="implementing",
        actor_type="system",
        principal=Principal("system:council"),
        as_role="system",
    )
    moved = StoryTransitioned(from_="DESIGN", event="approve_design", to="BUILD")
    await bench.journal.record("begun", moved, work)


REFUSED: dict[str, dict[str, Any]] = {
    "/kind": {"kind": "guess"},
    "/output_kind": {"output_kind": "song"},
    "/task_id": {"task_id": "tk-nobody1"},
    "/role": {"role": "butler"},
    "/roster": {"num_agents": 4},
    "/subject": {"kind": "gate", "subject": str(digest("of nobody"))},
    "/story_id": {"story_id": "st-other1"},
    "/budget/tokens": {"budget": {"tokens": 10**9, "wall_s": 60}},
    "/budget/wall_s": {"budget": {"tokens": 10, "wall_s": 0}},
    "/constraints/rubric": {"constraints": {"rubric": []}},
    "/max_iterations": {"rounds": 1, "max_iterations": 1},
}


@pytest.mark.rule("CN-12", "CN-2", "CN-3", "CN-8", "MB-20")
@pytest.mark.parametrize("field", REFUSED)
async def test_bad_request_names_its_field_and_opens_nothing(field: str):
    limits = Budgeting(limits=Budgets(story=BudgetLimits(tokens=100_000)))
    world, bench = await world_of(budgeting=limits)
    before = bench.state.version
    with pytest.raises(InvalidInput) as refused:
        await ask(world, bench, **REFUSED[field])
    assert field in [p["pointer"] for p in refused.value.details["problems"]]
    assert bench.state.version == before
    assert not world.agents.requests


def member(name: str, **changes: Any) -> dict[str, Any]:
    """A seat of a roster."""
    role = name.rsplit("-", 1)[0]
    return {
        "member_id": name,
        "role": role,
        "principal": f"agent:{name}",
        "model_policy": role,
        "temperature": "0.2",
        **changes,
    }


SEATS: dict[str, dict[str, Any]] = {
    "/roster/1/principal": {"principal": "user:ana"},
    "/roster/1/model_policy": {"model_policy": "the-best"},
    "/roster/1/role": {"role": "butler"},
    "/roster/1/member_id": {"member_id": "qa-second"},
    "/roster": {"weight": 9},
}


@pytest.mark.rule("CN-11", "CN-12", "GL-16")
@pytest.mark.parametrize("field", SEATS)
async def test_seat_of_a_person_or_of_an_unknown_role_is_refused(field: str):
    world, bench = await world_of()
    roster = [member("architect-001"), member("qa-001", **SEATS[field]), member("developer-001")]
    with pytest.raises(InvalidInput) as refused:
        await ask(world, bench, roster=roster)
    assert field in [p["pointer"] for p in refused.value.details["problems"]]
    assert not bench.state.councils


@pytest.mark.rule("CN-3")
async def test_role_that_no_agent_of_this_fleet_serves_is_refused():
    world, bench = await world_of()
    small = replace(bench, staffed=frozenset({"developer", "qa"}))
    with pytest.raises(InvalidInput, match="developer, qa"):
        await ask(world, small)
    await ask(world, small, role="developer", key="served")


@pytest.mark.rule("CN-11")
async def test_named_seats_of_several_roles_hold_the_council():
    world, bench = await world_of()
    roster = [member("architect-001"), member("qa-001", prompt_variant=1), member("developer-001", prompt_variant=2)]
    record = await hold(bench, await ask(world, bench, roster=roster))
    assert record.status == "DECIDED"
    assert {r.role for r in world.agents.requests if r.kind == "advise"} == {"architect", "qa", "developer"}


@pytest.mark.rule("MB-20", "CN-8")
async def test_councils_on_request_are_not_promised_the_same_tokens_twice():
    world, bench = await world_of(budgeting=Budgeting(limits=Budgets(story=BudgetLimits(tokens=30_000))))
    await ask(world, bench)
    with pytest.raises(InvalidInput, match="has 10000 tokens left"):
        await ask(world, bench, key="second")


@pytest.mark.rule("AP-2", "CN-13")
async def test_equal_command_asked_twice_opens_one_council():
    world, bench = await world_of()
    first = await ask(world, bench)
    assert await ask(world, bench) == first
    assert list(bench.state.councils) == [first]
    assert await ask(world, bench, key="another") != first


@pytest.mark.rule("AP-77")
async def test_who_holds_no_role_for_it_asks_in_vain():
    world, bench = await world_of()
    with pytest.raises(PolicyDenied):
        await do(world, bench, "request_council", ASK, who="user:dev")
    await do(world, bench, "request_council", ASK, who="user:quinn")
    assert len(bench.state.councils) == 1


async def _parked(bench: Workbench) -> None:
    await bench.journal.record("parked", StoryParked(cause="operator", detail="wait"))


async def _paused(bench: Workbench) -> None:
    await bench.journal.record("paused", StoryPaused(scope="story", by=Principal(ROOT), reason="hold it back"))


async def _cancelled(bench: Workbench) -> None:
    await bench.journal.record("cancelled", StoryCancelled(reason="not wanted any more"), closes=True)


@pytest.mark.rule("AP-77", "LC-93", "LC-94", "PL-50")
@pytest.mark.parametrize("rest", [_parked, _paused, _cancelled])
async def test_story_that_nobody_works_on_convenes_nobody(rest: Any):
    world, bench = await world_of()
    await rest(bench)
    with pytest.raises(InvalidTransition):
        await ask(world, bench)
    assert not bench.state.councils


@pytest.mark.rule("AP-77")
async def test_story_that_was_not_started_convenes_nobody():
    world = World()
    await story(until="scored").write_to(world.log)
    with pytest.raises(InvalidTransition, match="not started"):
        await ask(world, await world.bench())


# Cancelled, and sent back.


class Hanging(ScriptedAgents):
    """Agents that never answer this kind of work."""

    kind = "vote"

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        if request.kind == self.kind:
            self.asked.append(f"hangs {request_id}")
            await asyncio.Event().wait()
        return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)


def end(council_id: str) -> dict[str, Any]:
    """The body of a cancellation."""
    return {"council_id": council_id, "reason": "the question answered itself"}


async def until_asked(world: World, papers: int = 1) -> None:
    """Returns once so many are asked who never answer."""
    async with asyncio.timeout(5):
        while sum(name.startswith("hangs ") for name in world.agents.asked) < papers:
            await asyncio.sleep(0)


@pytest.mark.rule("AP-78", "CN-15")
async def test_cancelled_council_waits_for_none_of_its_calls_and_the_story_goes_on():
    world, bench = await world_of(agents=Hanging(team))
    owed = plan(bench.state, fsm(), now_ms=bench.now_ms)
    council_id = await ask(world, bench)
    held = asyncio.create_task(hold(bench, council_id))
    await until_asked(world, papers=6)
    await do(world, bench, "cancel_council", end(council_id), key="end")
    async with asyncio.timeout(5):
        record = await held
    assert (record.status, record.reason) == ("CANCELLED", "the question answered itself")
    assert bench.state.disposition == "active"
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == owed
    assert (await world.types())[-1] == "CouncilCancelled"


@pytest.mark.rule("AP-78")
async def test_answers_that_come_after_the_end_are_not_recorded():
    late = asyncio.Event()

    class Late(ScriptedAgents):
        async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
            if request.kind == "vote":
                self.asked.append(f"hangs {request_id}")
                # The answer of an engine that cannot be told to stop.
                waiting = asyncio.ensure_future(late.wait())
                while not waiting.done():
                    try:
                        await asyncio.shield(waiting)
                    except asyncio.CancelledError:
                        late.set()
            return await ScriptedAgents.ask(self, request, request_id=request_id, timeout_s=timeout_s)

    world, bench = await world_of(agents=Late(team))
    council_id = await ask(world, bench)
    held = asyncio.create_task(hold(bench, council_id))
    await until_asked(world)
    await do(world, bench, "cancel_council", end(council_id), key="end")
    async with asyncio.timeout(5):
        assert (await held).status == "CANCELLED"
    after = (await world.types())[(await world.types()).index("CouncilCancelled") :]
    assert not {"BallotCast", "CouncilDecided"} & set(after)


@pytest.mark.rule("AP-78", "LC-94", "LC-95")
async def test_storys_own_design_council_that_is_cancelled_parks_it_and_another_is_convened_after():
    world, bench = await world_of(design, agents=Hanging(design))
    await open_design_council(bench, OpenDesignCouncil(attempt=1))
    (council_id,) = bench.state.councils
    held = asyncio.create_task(hold(bench, EntityId(council_id)))
    await until_asked(world)
    await do(world, bench, "cancel_council", end(council_id), key="end")
    async with asyncio.timeout(5):
        assert (await held).status == "CANCELLED"
    park = bench.state.park
    assert park is not None
    assert (park.cause, "cancelled the council on the design" in park.detail) == ("operator", True)
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == ()
    await do(world, bench, "unpark", {"note": "another one, please"}, key="unpark")
    assert plan(bench.state, fsm(), now_ms=bench.now_ms) == (OpenDesignCouncil(attempt=2),)


@pytest.mark.rule("AP-78", "LC-94", "LC-110")
async def test_storys_own_task_council_that_is_cancelled_is_held_again_as_the_same_attempt():
    world, bench = await world_of(measured=False)
    await begin_task(bench)
    await open_task_council(bench, OpenTaskCouncil(task_id=TASK, attempt=1))
    (first,) = bench.state.councils
    await do(world, bench, "cancel_council", end(first), key="end")
    assert bench.state.park is not None
    await do(world, bench, "unpark", {"note": "another one, please"}, key="unpark")
    (again,) = plan_tasks(bench.state, fsm(), bench.now_ms)
    assert again == ReopenTaskCouncil(task_id=TASK, attempt=1, after=first)
    await reopen_task_council(bench, again)
    second = EntityId(list(bench.state.councils)[-1])
    assert bench.state.councils[second].opened.retry_of == first
    record = await hold(bench, second)
    assert record.status == "DECIDED"
    assert plan_tasks(bench.state, fsm(), bench.now_ms) == (CommitWork(task_id=TASK, council_id=second),)
    # The next attempt is a new one, whatever was cancelled before.
    for before, action, after in (
        ("implementing", "COMMIT_CODE", "dev_completed"),
        ("dev_completed", "AUTO_ROUTE_TO_QA", "pending_qa"),
        ("pending_qa", "CLAIM_TESTING", "qa_testing"),
        ("qa_testing", "REJECT_TESTS", "qa_failed"),
        ("qa_failed", "REVISE_CODE", "implementing"),
    ):
        moved = {
            "task_id": TASK,
            "from": before,
            "action": action,
            "to": after,
            "actor_type": "human",
            "principal": ROOT,
            "as_role": "po",
        }
        await bench.journal.record(f"again/{action}", TaskTransitioned.model_validate(moved))
    assert plan_tasks(bench.state, fsm(), bench.now_ms) == (OpenTaskCouncil(task_id=TASK, attempt=2),)


@pytest.mark.rule("AP-78", "GL-14")
async def test_what_cannot_be_cancelled_is_refused_and_says_why():
    world, bench = await world_of()
    council_id = await ask(world, bench)
    with pytest.raises(PolicyDenied):
        await do(world, bench, "cancel_council", end(council_id), who="user:quinn", key="by-qa")
    with pytest.raises(NotFound):
        await do(world, bench, "cancel_council", end("co-nobody1"), key="unknown")
    with pytest.raises(InvalidInput):
        await do(world, bench, "cancel_council", end(council_id) | {"reason": "no"}, key="short")
    await hold(bench, council_id)
    with pytest.raises(InvalidTransition, match="nothing to cancel"):
        await do(world, bench, "cancel_council", end(council_id), key="late")
    assert bench.state.councils[council_id].status == "DECIDED"


BACK = "umlauts of other languages were left out"


@pytest.mark.rule("CN-63", "AP-78")
async def test_outcome_that_is_sent_back_is_asked_anew_with_the_reason_in_its_rubric():
    world, bench = await world_of()
    first = await ask(world, bench)
    old = await hold(bench, first)
    second = await do(world, bench, "reject_council", {"council_id": first, "reason": BACK}, key="back")
    world.agents.requests.clear()
    record = await hold(bench, second)
    assert (record.status, record.opened.retry_of, record.opened.requested_by) == ("DECIDED", first, ROOT)
    assert bench.state.councils[first] == old
    assert record.opened.rubric_digest != old.opened.rubric_digest
    rubric = json.loads(await bench.blobs.get(record.opened.rubric_digest))
    assert [entry["text"] for entry in rubric] == ["Links stay readable", BACK]
    assert all(BACK in r.shared for r in world.agents.requests)
    with pytest.raises(VersionConflict) as refused:
        await do(world, bench, "reject_council", {"council_id": first, "reason": BACK}, key="twice")
    assert refused.value.details["council_id"] == second


@pytest.mark.rule("CN-63", "AP-78", "CN-6")
async def test_what_cannot_be_sent_back_is_refused_and_says_where_to_say_no():
    world, bench = await world_of(design)
    await open_design_council(bench, OpenDesignCouncil(attempt=1))
    (own,) = bench.state.councils
    with pytest.raises(InvalidTransition, match="approve_design"):
        await do(world, bench, "reject_council", {"council_id": own, "reason": BACK}, key="own")
    rubric = [{"name": f"entry {n}", "text": "Links stay readable"} for n in range(10)]
    full = await ask(world, bench, constraints={"rubric": rubric, "requirements": ["Name one way"]}, key="full")
    body = {"council_id": full, "reason": BACK}
    with pytest.raises(InvalidTransition, match="still at work"):
        await do(world, bench, "reject_council", body, key="running")
    await hold(bench, full)
    with pytest.raises(InvalidInput, match="10 entries"):
        await do(world, bench, "reject_council", body, key="no-room")
    with pytest.raises(PolicyDenied):
        await do(world, bench, "reject_council", body, who="user:quinn", key="by-qa")
    ended = await ask(world, bench, key="ended")
    await do(world, bench, "cancel_council", end(ended), key="end")
    with pytest.raises(InvalidTransition, match="cancelled"):
        await do(world, bench, "reject_council", {"council_id": ended, "reason": BACK}, key="of-cancelled")


@pytest.mark.rule("CN-80", "CN-31")
async def test_mock_member_answers_for_every_requirement_and_criterion():
    engine = MockEngine.model_validate(
        {"engine_id": "mock", "kind": "mock", "model": "m", "unpriced": True, "max_context": 8000, "mode": "excellent"}
    )
    agent, _ = role_agent(MockChatModel(engine), role="architect")
    refs = ["r-1", AC_1, AC_2]
    request = AgentRequest(
        kind="advise",
        role="architect",
        principal=Principal("agent:architect-001"),
        shared="Which way?",
        json_schema=advice_schema(refs),
    )
    answer = await agent.ask(request, request_id="r", timeout_s=5)
    found = evidence_of_text("cd-one1", answer.value, refs)
    assert [(g.name, g.ok) for g in found.gates] == [("text", True), ("requirements", True)]
