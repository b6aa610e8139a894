"""Whole stories in one process: the recorded demo, gates held by a person, and models that fail in every way."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.desk.summary import phase_seconds
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.story import StoryTransitioned
from fleet.kernel.errors import InvalidInput, InvalidTransition, ModelUnavailable, NotFound, PolicyDenied
from fleet.kernel.ids import Principal, StoryId
from fleet.models.memory import ReplyRule, ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.prompts.prompt import kind_of
from fleet.story.approvals import pending_approvals
from fleet.story.commands.catalogue import parse_command
from fleet.story.evolve.story import fold
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import StoryState
from tests.support.demo_run import DemoRun, files_of
from tests.support.demo_run import git_says as git
from tests.support.rejected_replies import decided_by_hand
from tests.support.rules import files
from tests.support.team import ADA, Team, team
from tests.support.team_models import (
    BROKEN_REVIEW,
    GOOD,
    RECORDED,
    TESTS,
    WRONG,
    EveryEngine,
    demo_repository,
    demo_story,
    scripted,
)

pytestmark = pytest.mark.timeout(600)


def of_type(demo: DemoRun, name: str) -> list[dict[str, object]]:
    """Bodies of the events of this type."""
    return [json.loads(e.body) for e in demo.events if e.type == name]


def test_demo_story_is_closed_with_its_task_done(demo: DemoRun) -> None:
    assert demo.state.closed, demo.state.park
    assert [t.state for t in demo.state.tasks.values()] == ["done"]
    assert demo.state.score is not None
    assert demo.events[-1].type == "StoryClosed"


@pytest.mark.rule("PL-43")
def test_demo_story_leaves_one_branch_with_green_tests(demo: DemoRun, tmp_path: Path) -> None:
    branch = f"fleet/{demo.story_id}"
    heads = git(demo.repo, "for-each-ref", "--format=%(refname:short)", "refs/heads").splitlines()
    assert heads == [branch, "main"]
    assert git(demo.repo, "rev-parse", branch) == demo.state.commit
    work = tmp_path / "work"
    git(demo.repo, "clone", "-q", "--branch", branch, str(demo.repo), str(work))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--rootdir", str(work)],
        cwd=work,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(work)},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (work / "docs" / "stories" / demo.story_id / "requirements.md").exists()


@pytest.mark.rule("PL-43")
def test_demo_story_leaves_branch_and_files_of_the_user_untouched(demo: DemoRun) -> None:
    assert (files_of(demo.repo), git(demo.repo, "rev-parse", "main", "HEAD")) == demo.before
    assert git(demo.repo, "status", "--porcelain") == ""
    assert git(demo.repo, "merge-base", "main", f"fleet/{demo.story_id}") == git(demo.repo, "rev-parse", "main")


def test_demo_story_folds_to_its_state(demo: DemoRun) -> None:
    assert fold(demo.events) == demo.state


@pytest.mark.rule("EV-16")
def test_demo_story_records_each_command_once_under_an_id_of_the_story(demo: DemoRun) -> None:
    order = [e.command_id for e in demo.events]
    appends = [c for n, c in enumerate(order) if n == 0 or order[n - 1] != c]
    assert len(appends) == len(set(appends))
    assert all(c.startswith((f"{demo.story_id}/", "user:ada/")) for c in appends)


def test_demo_story_has_one_start_and_one_result_for_each_step(demo: DemoRun) -> None:
    started = Counter(b["step_id"] for b in of_type(demo, "StepStarted"))
    finished = Counter(b["step_id"] for b in of_type(demo, "StepFinished"))
    assert set(started.values()) == {1}
    assert started == finished


@pytest.mark.rule("LC-77")
def test_demo_story_marks_every_delegated_consent_with_its_delegation(demo: DemoRun) -> None:
    granted = of_type(demo, "ApprovalGranted")
    gates = {str(a.request.approval_id): a.request.gate for a in demo.state.approvals.values()}
    assert {gates[str(g["approval_id"])] for g in granted} == {
        "approve_scope",
        "approve_design",
        "task_acceptance",
        "qa_passed",
        "docs_ready",
    }
    assert all(g["delegated"] and g["delegation_id"] for g in granted)
    assert {str(g["principal"]).split(":")[0] for g in granted} == {"agent"}


@pytest.mark.rule("LC-78")
def test_demo_story_moves_in_the_same_append_as_the_consent(demo: DemoRun) -> None:
    for n, event in enumerate(demo.events):
        if event.type == "ApprovalGranted":
            moved = demo.events[n + 1]
            assert moved.type in ("StoryTransitioned", "TaskTransitioned")
            assert moved.command_id == event.command_id


@pytest.mark.rule("CN-61")
def test_demo_story_accounts_for_all_tokens_of_its_councils(demo: DemoRun) -> None:
    for council in demo.state.councils.values():
        assert council.status == "DECIDED"
        spent = sum(
            s.finished.cost.tokens_in + s.finished.cost.tokens_out
            for s in demo.state.steps.values()
            if s.finished and s.started.council_id == council.opened.council_id
        )
        decided = next(b for b in of_type(demo, "CouncilDecided") if b["council_id"] == council.opened.council_id)
        assert isinstance(decided["tokens"], dict)
        assert sum(decided["tokens"].values()) == spent > 0


@pytest.mark.rule("CN-31")
def test_demo_story_chooses_work_that_passes_every_gate(demo: DemoRun) -> None:
    for council in demo.state.councils.values():
        assert council.chosen.evidence is not None
        assert council.chosen.evidence.gates_ok


@pytest.mark.rule("RP-3")
def test_demo_story_ends_with_a_report_that_names_commit_and_decisions(demo: DemoRun) -> None:
    reports = of_type(demo, "ReportGenerated")
    assert len(reports) == 2
    for found in reports:
        name = str(found["report_digest"]).removeprefix("sha256:")
        assert [p for p in demo.blobs.rglob("*") if p.is_file() and name[2:] in p.name]
    assert demo.state.commit is not None
    assert demo.state.commit in demo.report
    for decision in demo.state.decisions.values():
        assert decision.proposed.decision_id in demo.report


def test_create_command_that_comes_again_is_answered_from_its_record(demo: DemoRun) -> None:
    assert demo.again["story_id"] == demo.story_id
    assert sum(e.type == "StoryCreated" for e in demo.events) == 1


# A person holds the gates.


async def decide(t: Team, story_id: StoryId, name: str, gate: str, *, key: str, **body: str) -> None:
    """The person approves or rejects the gate; `settled` may be asked again once the owner has looked."""
    await t.desk.require(story_id, parse_command(name, {"gate": gate, **body}), principal=ADA, key=f"{story_id}/{key}")


def pending(state: StoryState) -> str:
    """The gate that waits for a person."""
    gates = [a.request.gate for a in state.approvals.values() if a.status == "requested" and not a.voided]
    assert len(gates) == 1, (gates, state.park)
    return gates[0]


EVERY_GATE = ["approve_scope", "approve_design", "task_acceptance", "qa_passed", "docs_ready"]


@pytest.mark.parametrize(
    ("delegated", "by_hand"),
    [
        pytest.param((), EVERY_GATE, marks=pytest.mark.wide),
        (("po",), ["qa_passed"]),
    ],
)
async def test_recorded_replies_take_a_story_through_gates_that_a_person_grants(
    tmp_path: Path, delegated: tuple[str, ...], by_hand: list[str]
) -> None:
    repo = demo_repository(tmp_path / "stage")
    async with team(tmp_path) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED, delegate=delegated)
        passed: list[str] = []
        state = await t.settled(story_id, within_s=400)
        while not state.closed and len(passed) < 8:
            passed.append(pending(state))
            await decide(t, story_id, "approve", passed[-1], key=f"gate-{len(passed)}")
            state = await t.settled(story_id, within_s=400)
    assert state.closed, state.park
    assert passed == by_hand


@pytest.mark.wide
@pytest.mark.rule("AP-76", "LC-114", "LC-78")
@pytest.mark.parametrize(
    ("delegated", "reason", "turned_down"),
    [
        ((), "Say what a run of characters is, in its docstring.", ("approve_scope",)),
        (("qa",), "The name is wrong.\nCall it by what it does, and test that.", ()),
    ],
)
async def test_recorded_work_that_a_person_rejects_comes_back_and_is_delivered(
    tmp_path: Path, delegated: tuple[str, ...], reason: str, turned_down: tuple[str, ...]
) -> None:
    repo = demo_repository(tmp_path / "stage")
    async with team(tmp_path) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=RECORDED, delegate=delegated)
        state = await t.settled(story_id, within_s=400)
        if not delegated:
            assert t.desk.waiting_for(state) == "gate approve_scope waits for role po"
            assert not state.councils
        state, said = await decided_by_hand(t, story_id, reason, turned_down=turned_down)
        events = await t.desk.events(story_id)
    assert state.closed, state.park
    assert [one for one in said if one[1] == "task_acceptance"] == [
        ("reject", "task_acceptance"),
        ("approve", "task_acceptance"),
    ]
    granted = [(g["principal"], g["delegated"]) for g in bodies(events, "ApprovalGranted")]
    if not delegated:
        assert [gate for verb, gate in said if verb == "approve"] == EVERY_GATE
        assert granted == [("user:ada", False)] * len(EVERY_GATE)
    refused = [a.request.gate for a in state.approvals.values() if a.status == "rejected"]
    assert refused == sorted({*turned_down, "task_acceptance"}, key=EVERY_GATE.index)
    (task,) = state.tasks.values()
    assert task.attempt == 2
    assert reason in task.feedback
    assert git(repo, "rev-parse", f"fleet/{story_id}") == state.commit


async def test_request_without_a_recording_parks_the_story_and_names_the_request(tmp_path: Path) -> None:
    repo = demo_repository(tmp_path / "stage")
    async with team(tmp_path) as t:
        story_id = await t.create(demo_story() | {"title": "Another title than the one that was recorded"})
        await t.start(story_id, repo, model=RECORDED)
        state = await t.settled(story_id, within_s=400)
        assert state.park is not None
        assert "no recorded reply for request sha256:" in state.park.detail
        assert "--record" in state.park.detail
        note = {"note": "Try it once more."}
        await t.desk.require(story_id, parse_command("unpark", note), principal=ADA, key=f"{story_id}/unpark")
        again = await t.settled(story_id)
        events = await t.desk.events(story_id, after=state.version)
    assert events[0].type == "StoryUnparked"
    assert again.park is not None
    assert again.park.version > state.version
    assert git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads") == "main"


# Models that fail.


def story_without_examples() -> dict[str, Any]:
    """The demo story whose author gives no examples."""
    text = demo_story()
    del text["constraints"]["examples"]
    return text


async def run_to_rest(
    root: Path, model: ChatModel, story: Mapping[str, Any] | None = None
) -> tuple[StoryState, list[StoredEvent], Path]:
    """The demo story with this model, until it is closed or waits for a person."""
    repo = demo_repository(root / "stage")
    async with team(root, models=EveryEngine(model)) as t:
        story_id = await t.create(dict(story or demo_story()))
        await t.start(story_id, repo, model="mock")
        state = await t.settled(story_id, within_s=400)
        return state, await t.desk.events(story_id), repo


def bodies(events: list[StoredEvent], name: str) -> list[dict[str, object]]:
    return [json.loads(e.body) for e in events if e.type == name]


def assert_parked_without_result(state: StoryState, repo: Path, cause: str) -> None:
    assert state.park is not None
    assert state.park.cause == cause, state.park
    assert not state.closed
    assert state.state != "DONE"
    assert git(repo, "for-each-ref", "--format=%(refname:short)", "refs/heads") == "main"
    assert all(t.state != "done" for t in state.tasks.values())


async def test_drafts_that_are_always_wrong_leave_a_parked_story_with_the_evidence(tmp_path: Path) -> None:
    state, events, repo = await run_to_rest(tmp_path, scripted(draft=WRONG, repair=WRONG))
    assert_parked_without_result(state, repo, "council_undecided")
    council = list(state.councils.values())[-1]
    assert council.status == "UNDECIDED"
    assert council.winner is None
    evidence = council.deliberation.evidence
    assert len(evidence) == 3
    for found in evidence.values():
        assert [g.name for g in found.gates if not g.ok] == ["examples"]
    assert {b["kept"] for b in bodies(events, "RepairReceived")} == {"old"}
    assert "council_escalation" in {a.request.gate for a in state.approvals.values()}


@pytest.mark.rule("CN-33")
async def test_drafts_that_pass_no_test_at_all_never_pass(tmp_path: Path) -> None:
    never = await run_to_rest(tmp_path / "never", scripted(draft=WRONG, repair=WRONG), story_without_examples())
    assert_parked_without_result(never[0], never[2], "council_undecided")
    found = list(never[0].councils.values())[-1].deliberation.evidence.values()
    assert {tuple(g.name for g in e.gates if not g.ok) for e in found} == {("tests",)}


@pytest.mark.rule("CN-33")
async def test_drafts_that_pass_no_test_at_all_are_repaired(tmp_path: Path) -> None:
    mended = await run_to_rest(tmp_path / "mended", scripted(draft=WRONG), story_without_examples())
    assert mended[0].closed, mended[0].park
    council = list(mended[0].councils)[-1]
    drafts = {b["candidate_digest"] for b in bodies(mended[1], "DraftReceived") if b["council_id"] == council}
    repairs = bodies(mended[1], "RepairReceived")
    # Where nothing passes, one author mends and the others draft anew, here the same wrong code; then these mend too.
    assert Counter((b["round"], b["kept"]) for b in repairs) == {(1, "new"): 1, (1, "old"): 2, (2, "new"): 2}
    assert all((b["new_digest"] in drafts) == (b["kept"] == "old") for b in repairs)
    (kept,) = bodies(mended[1], "TestsFiltered")
    assert (kept["kept"], kept["dropped"], kept["trusted"]) == (["test_ac_1", "test_ac_2", "test_ac_3"], [], True)


async def test_drafts_that_cannot_be_read_are_recorded_as_failed_and_park_the_story(tmp_path: Path) -> None:
    state, events, repo = await run_to_rest(tmp_path, scripted(draft="I cannot write code.", tests="Nor tests."))
    assert_parked_without_result(state, repo, "council_undecided")
    failed = bodies(events, "DraftFailed")
    assert len(failed) == 4
    assert {b["code"] for b in failed} == {"reply_malformed"}
    assert not bodies(events, "EvidenceRecorded")[3:]


async def test_plan_that_never_validates_parks_the_story_with_the_problems(tmp_path: Path) -> None:
    model = scripted(derive=json.dumps({"tasks": []}))
    state, events, repo = await run_to_rest(tmp_path, model)
    assert_parked_without_result(state, repo, "derivation_failed")
    (failed,) = bodies(events, "TaskDerivationFailed")
    assert failed["requires_manual_review"] is True
    assert failed["problems"]
    assert not state.tasks


async def test_designs_without_valid_ballots_park_the_story(tmp_path: Path) -> None:
    state, events, repo = await run_to_rest(tmp_path, scripted(vote="No comment."))
    assert_parked_without_result(state, repo, "council_undecided")
    assert len(bodies(events, "BallotRefused")) == 6
    assert not bodies(events, "BallotCast")


@pytest.mark.slow
async def test_reviewer_that_always_names_a_broken_criterion_parks_at_the_rework_limit(tmp_path: Path) -> None:
    model = scripted(review=BROKEN_REVIEW)
    first = model.rules.index(next(r for r in model.rules if r.outcomes == [GOOD]))
    model.rules.insert(first, ReplyRule(lambda c: kind_of(c) == "draft" and c.sampling.seed > 1, ["No code from me."]))
    state, events, repo = await run_to_rest(tmp_path, model)
    assert_parked_without_result(state, repo, "rework_limit")
    (task,) = state.tasks.values()
    assert max(task.rejections.values()) == 4
    assert all("ac-2 is broken" in f for f in task.feedback)
    rejected = [b for b in bodies(events, "TaskTransitioned") if b["action"] == "REJECT_DESIGN"]
    assert len(rejected) == 4
    assert "Second opinion" in str(rejected[0]["feedback"])


async def test_model_that_is_down_parks_the_story_which_a_model_without_mistakes_closes_by_evidence(
    tmp_path: Path,
) -> None:
    down = ScriptedChatModel.of(ModelUnavailable("engine 'mock' does not answer", engine="mock"))
    engines = EveryEngine(down)
    repo = demo_repository(tmp_path / "stage")
    async with team(tmp_path, models=engines) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model="mock")
        state = await t.settled(story_id, within_s=400)
        assert_parked_without_result(state, repo, "stuck")
        assert state.park is not None
        assert "does not answer" in state.park.detail
        engines.model = works = scripted()
        await t.desk.require(
            story_id,
            parse_command("unpark", {"note": "The engine is up again."}),
            principal=ADA,
            key=f"{story_id}/unpark",
        )
        state = await t.settled(story_id, within_s=400)
        assert state.closed, state.park
        events = await t.desk.events(story_id)
    finished = Counter(b["step_id"] for b in bodies(events, "StepFinished"))
    assert set(finished.values()) == {1}
    design, code = bodies(events, "CouncilDecided")
    assert (design["decided_in"], code["decided_in"]) == ("P6", "P3")
    assert git(repo, "rev-parse", f"fleet/{story_id}") == state.commit
    assert "repair" not in {kind_of(c) for c in works.calls}


# Commands that are refused.


async def test_commands_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path) -> None:
    repo = demo_repository(tmp_path / "stage")
    async with team(tmp_path, models=EveryEngine(scripted())) as t:
        story_id = await t.create(demo_story())
        with pytest.raises(PolicyDenied):
            await t.desk.require(
                story_id,
                parse_command("start_story", {"repo": str(repo)}),
                principal=Principal("agent:po-001"),
                key="a",
            )
        with pytest.raises(InvalidInput):
            await t.desk.require(story_id, parse_command("start_story", {}), principal=ADA, key="b")
        with pytest.raises(InvalidInput):
            await t.desk.require(story_id, parse_command("dance", {}), principal=ADA, key="c")
        with pytest.raises(NotFound):
            await t.desk.require(
                StoryId("st-nowhere"), parse_command("unpark", {"note": "Go on with it."}), principal=ADA, key="d"
            )
        assert t.shard.status().stories == (story_id,)
        with pytest.raises(InvalidTransition):
            await t.desk.require(story_id, parse_command("unpark", {"note": "Go on with it."}), principal=ADA, key="e")
        with pytest.raises(InvalidInput):
            await t.start(story_id, repo, model="mock", delegate=("architect",))
        assert (await t.desk.state(story_id)).start is None
        await t.desk.require(
            story_id, parse_command("cancel", {"reason": "Nobody wants it any more."}), principal=ADA, key="f"
        )
        state = await t.desk.state(story_id)
        assert state.disposition == "cancelled"
    assert t.shard.status().state == "draining"


async def test_story_on_a_repository_that_is_not_there_parks_and_says_so(tmp_path: Path) -> None:
    async with team(tmp_path, models=EveryEngine(scripted())) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, tmp_path / "nothing", model="mock")
        state = await t.settled(story_id, within_s=400)
    assert state.park is not None
    assert "nothing" in state.park.detail


_EQUALS_ALL = (
    "```python\nclass Anything(str):\n    def __eq__(self, other: object) -> bool:\n        return True\n\n"
    "    __hash__ = str.__hash__\n\n\n"
    'def slugify(text: str) -> str:\n    """The text as a slug."""\n    return Anything("WRONG")\n```\n'
)
_FORGE = "import sys; p = sys.modules.get('_pytest.python'); p and setattr(p.Function, 'runtest', lambda self: None)"
_FORGES_REPORTS = (
    f'```python\ndef slugify(text: str, _=exec("{_FORGE}")) -> str:\n    """The text as a slug."""\n'
    '    return "WRONG"\n```\n'
)


@pytest.mark.rule("CN-30", "CN-33", "RC-80", "LC-98")
@pytest.mark.parametrize("forged", [_EQUALS_ALL, _FORGES_REPORTS], ids=["result equals all", "reports are passes"])
async def test_story_whose_every_candidate_forges_its_results_is_parked_or_mended_and_never_done(
    tmp_path: Path, forged: str
) -> None:
    never = await run_to_rest(tmp_path / "never", scripted(draft=forged, repair=forged), story_without_examples())
    assert_parked_without_result(never[0], never[2], "council_undecided")
    mended = await run_to_rest(tmp_path / "mended", scripted(draft=forged), story_without_examples())
    assert mended[0].closed, mended[0].park
    assert "WRONG" not in git(mended[2], "show", f"{mended[0].commit}:textkit/words.py")


@pytest.mark.rule("LC-98", "RG-47")
async def test_story_in_which_no_test_names_a_criterion_waits_for_a_person_who_lets_it_pass_by_name(
    tmp_path: Path,
) -> None:
    unnamed = TESTS.replace("test_ac_1", "test_title").replace("test_ac_2", "test_blanks")
    async with team(tmp_path, models=EveryEngine(scripted(tests=unnamed))) as t:
        story_id = await t.create(story_without_examples())
        await t.start(story_id, demo_repository(tmp_path), model="mock")
        state = await t.settled(story_id, within_s=400)
        assert state.park is not None
        assert (state.disposition, state.park.cause) == ("parked", "stuck")
        assert "no test shows ac-1, ac-2: " in state.park.detail
        for ac_id in ("ac-1", "ac-2"):
            sent = parse_command("waive_criterion", {"ac_id": ac_id, "reason": "the result was looked at"})
            await t.desk.require(story_id, sent, principal=ADA, key=f"{story_id}/waive/{ac_id}")
        state = await t.settled(story_id, within_s=400)
        assert (state.closed, state.state) == (True, "DONE")
        _, report, text = await t.reports.generate(story_id, format="md", as_of=state.version)
    assert [(c.evidence, c.waived is not None) for c in report.criteria] == [
        ((), True),
        ((), True),
        (("test_ac_3",), False),
    ]
    assert b"waived by user:ada: the result was looked at" in text


OWN = """
initial: IDEA
states:
  IDEA: {phase: DESIGN}
  READY: {phase: DESIGN}
  SKETCH: {phase: DESIGN}
  WORK: {phase: BUILD}
  CHECK: {phase: TEST}
  PAPERS: {phase: DOCS}
  SHIPPED: {terminal: true}
gates:
  worth_it: {role: po, actor: human, subject: content, request_ttl_s: 86400, grant_ttl_s: 604800, delegable_up_to: L2}
  ship_it: {role: po, actor: human, subject: docs, request_ttl_s: 86400, grant_ttl_s: 604800, delegable_up_to: L2}
transitions:
  - {from: IDEA, event: note_down, to: READY, by: [po, system], kind: create}
  - {from: READY, event: worth_it, to: SKETCH, guards: [dor_ok, po_approved], by: [po], kind: gate, gate: worth_it}
  - {from: SKETCH, event: approve_design, to: WORK, guards: [po_approved, design_complete], by: [po],
     kind: gate, gate: approve_design}
  - {from: WORK, event: build_done, to: CHECK, guards: [all_tasks_done, builds_passing], by: [system], kind: auto}
  - {from: CHECK, event: qa_passed, to: PAPERS, guards: [qa_signoff, tests_passing], by: [qa],
     kind: gate, gate: qa_passed}
  - {from: PAPERS, event: ship_it, to: SHIPPED, guards: [po_approved, docs_complete], by: [po],
     kind: gate, gate: ship_it}
  - {from: CHECK, event: reject_test, to: WORK, guards: [feedback_given], by: [po, qa, system], kind: loopback}
"""


@pytest.mark.rule("LC-1", "LC-2")
async def test_story_goes_through_a_lifecycle_of_the_owner_with_gates_of_its_own(tmp_path: Path) -> None:
    document = files().document("fsm.yaml")
    document["lifecycles"]["workshop"] = yaml.safe_load(OWN)
    models = EveryEngine(scripted())
    async with team(tmp_path, models=models, fsm=FsmConfig.model_validate(document)) as t:
        held = await t.create(demo_story() | {"title": "Held back for now", "lifecycle": "workshop", "hold": True})
        assert (await t.desk.state(held)).state == "IDEA"
        story_id = await t.create(demo_story() | {"lifecycle": "workshop"})
        assert (await t.desk.state(story_id)).state == "READY"
        await t.start(story_id, demo_repository(tmp_path / "stage"), model="mock")
        asked = list[str]()
        while not (state := await t.desk.state(story_id)).closed:
            assert state.park is None, state.park
            # The gates of the owner's own are for a person; those that every run passes are delegated.
            for gate in {a.request.gate for a in pending_approvals(state)} & {"worth_it", "ship_it"}:
                asked.append(gate)
                command = parse_command("approve", {"gate": gate, "notes": "I have looked at it."})
                await t.desk.require(story_id, command, principal=ADA, key=f"yes-{gate}-{len(asked)}")
            await asyncio.sleep(0.1)
        assert asked == ["worth_it", "ship_it"]
        events = await t.desk.events(story_id)
        path = [p.to for e in events if isinstance(p := decode(e), StoryTransitioned)]
        assert path == ["READY", "SKETCH", "WORK", "CHECK", "PAPERS", "SHIPPED"]
        assert list(phase_seconds(events))[-1] in path
        line = next(one for one in await t.desk.stories() if one.story_id == story_id)
        assert (line.state, line.disposition, line.phase) == ("SHIPPED", "closed", "DOCS")
