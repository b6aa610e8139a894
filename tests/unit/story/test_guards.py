"""Guards look at recorded facts of the present subject, and missing evidence is failure (LC-50..LC-67)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.events.approval import Subject
from fleet.events.report import ReportGenerated, Traceability
from fleet.events.story import (
    CriterionWaived,
    Finding,
    GuardResult,
    QuestionAnswered,
    QuestionRaised,
    StoryEdited,
    StoryParked,
    StoryScored,
    StoryStarted,
    StoryUnparked,
    Topic,
)
from fleet.events.workspace import CriterionTest, WorkspaceReported
from fleet.kernel.errors import FleetError, InvalidTransition, NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.story.approvals import subject_of, valid_grant
from fleet.story.commands.command import Caller
from fleet.story.commands.gates import WaiveCriterion
from fleet.story.commands.request_approval import criteria_facts
from fleet.story.guards import GUARDS, GuardContext, evaluate, shown_criteria, words_of_tests
from fleet.story.intents import Park
from fleet.story.plan import plan
from fleet.story.state import StoryState
from tests.support.rules import fsm
from tests.support.story_events import (
    AC_1,
    AC_2,
    CONTENT,
    DECISION,
    DESIGN_COUNCIL,
    MERGED,
    PO,
    STORY,
    SYSTEM,
    T0,
    TASK,
    StoryLog,
    decision_payload,
    digest,
    facts,
    story,
    subject,
)

ROW = fsm().lifecycles["agile"].legal("DRAFT")[0]
NOW = T0 + 600_000


def verdict(state: StoryState, name: str, *, now_ms: int = NOW, reason: str = "", **row: Any) -> GuardResult:
    transition = ROW.model_copy(update={"guards": (name,), "gate": None, "event": name, **row})
    (found,) = evaluate(state, GuardContext(config=fsm(), now_ms=now_ms, transition=transition, reason=reason))
    return found


GATES = {
    "po_approved": {"gate": "approve_scope"},
    "design_signoff": {"gate": "approve_design"},
    "review_signoff": {"gate": "review_approved"},
    "qa_signoff": {},
}


@pytest.mark.rule("LC-67")
@pytest.mark.parametrize("name", sorted(GUARDS))
def test_guard_on_a_fresh_story_is_false_but_for_the_two_that_need_no_fact(name: str):
    found = verdict(story(until="created").state, name, reason="a reason long enough", **GATES.get(name, {}))
    assert found.ok is (name in ("feedback_given", "no_open_change_requests"))
    assert found.message


@pytest.mark.rule("LC-5")
def test_unknown_guard_is_false():
    found = verdict(story().state, "moon_is_full")
    assert (found.ok, found.message) == (False, "there is no guard 'moon_is_full'")


@pytest.mark.rule("LC-4")
def test_all_guards_are_evaluated_in_declared_order():
    row = ROW.model_copy(update={"guards": ("qa_signoff", "dor_ok", "tests_passing")})
    found = evaluate(story(until="scored").state, GuardContext(config=fsm(), now_ms=NOW, transition=row))
    assert [(g.name, g.ok) for g in found] == [("qa_signoff", False), ("dor_ok", True), ("tests_passing", False)]


def edited(log: StoryLog) -> StoryState:
    log.add(
        StoryEdited(
            changes={"description": "Something else."},
            content_digest=digest("other content"),
            previous_content_digest=CONTENT,
        ),
        actor=PO,
    )
    return log.state


@pytest.mark.rule("LC-50", "LC-7")
def test_readiness_holds_for_the_scored_text_only():
    log = story(until="scored")
    assert verdict(log.state, "dor_ok").ok
    assert not verdict(edited(log), "dor_ok").ok


@pytest.mark.rule("LC-50")
def test_readiness_below_the_threshold_names_the_findings():
    log = story(until="created").add(
        StoryScored(
            content_digest=CONTENT,
            score="40",
            threshold="75",
            dor_ok=False,
            findings=(
                Finding(
                    code="ac_missing",
                    dimension="testable",
                    field="acceptance_criteria",
                    points_lost=30,
                    message="no criteria",
                    suggestion="write one",
                ),
            ),
            scorer_version="1",
        )
    )
    found = verdict(log.state, "dor_ok")
    assert (found.ok, found.message) == (False, "readiness score 40, needed 75; ac_missing")


@pytest.mark.rule("LC-51", "LC-7", "LC-70")
def test_approval_of_scope_ends_with_an_edit_of_the_text():
    log = story(until="scope")
    assert verdict(log.state, "po_approved", gate="approve_scope").ok
    assert not verdict(edited(log), "po_approved", gate="approve_scope").ok


@pytest.mark.rule("LC-70")
def test_grant_counts_until_it_expires():
    state = story(until="scope").state
    (approval,) = state.approvals.values()
    assert approval.grant is not None
    last = approval.grant.expires_at_ms - 1
    assert verdict(state, "po_approved", gate="approve_scope", now_ms=last).ok
    assert not verdict(state, "po_approved", gate="approve_scope", now_ms=last + 1).ok


@pytest.mark.rule("LC-52", "LC-53")
def test_plan_and_design_hold_for_the_text_they_were_made_for():
    log = story(until="planned")
    for name in ("plan_valid", "design_complete"):
        assert verdict(log.state, name).ok
    state = edited(log)
    for name in ("plan_valid", "design_complete"):
        assert not verdict(state, name).ok


@pytest.mark.rule("LC-53")
def test_design_needs_an_accepted_architecture_decision():
    state = story(until="planned").state
    undecided = state.with_(decisions={DECISION: replace(state.decisions[DECISION], status="PROPOSED")})
    assert verdict(undecided, "design_complete").message == "no accepted decision of category ARCHITECTURE"


@pytest.mark.rule("LC-53")
def test_design_needs_a_task_for_each_criterion():
    state = story(until="planned").state
    bare = {
        k: replace(t, task=t.task.model_copy(update={"acceptance_refs": (EntityId("ac-empty2"),)}))
        for k, t in state.tasks.items()
    }
    assert verdict(state.with_(tasks=bare), "design_complete").message == "no task covers ac-fold1"


def question(kind: Any, severity: Any) -> QuestionRaised:
    return QuestionRaised(
        question_id=EntityId("qu-one1"),
        kind=kind,
        text="Which umlauts?",
        severity=severity,
        about=Topic(kind="story", id=STORY),
        asked_by=SYSTEM,
    )


ANSWER = QuestionAnswered(question_id=EntityId("qu-one1"), answer="All of them", answered_by=PO)


@pytest.mark.rule("LC-53")
def test_design_waits_for_the_answer_to_a_blocking_question():
    log = story(until="planned").add(question("question", "blocking"))
    assert verdict(log.state, "design_complete").evidence == ("qu-one1",)
    assert verdict(log.add(ANSWER).state, "design_complete").ok


@pytest.mark.rule("LC-60")
def test_change_request_counts_until_it_is_answered():
    log = story(until="planned").add(question("change_request", "normal"))
    assert not verdict(log.state, "no_open_change_requests").ok
    assert verdict(log.add(ANSWER).state, "no_open_change_requests").ok


@pytest.mark.rule("LC-54", "PL-44")
def test_tasks_are_done_when_all_are_terminal_and_one_is_done():
    assert not verdict(story(until="task").state, "all_tasks_done").ok
    state = story(until="merged").state
    assert verdict(state, "all_tasks_done").ok
    cancelled = {k: replace(t, state="cancelled") for k, t in state.tasks.items()}
    assert not verdict(state.with_(tasks=cancelled), "all_tasks_done").ok


@pytest.mark.rule("LC-55", "LC-56")
def test_build_and_tests_count_for_the_present_tree_only():
    state = story(until="merged").state
    moved = state.with_(tree=digest("another tree"))
    for name in ("builds_passing", "tests_passing"):
        assert verdict(state, name).ok
        assert not verdict(moved, name).ok


@pytest.mark.rule("LC-55")
def test_build_that_failed_or_did_not_run_is_false():
    state = story(until="merged").state
    report = state.reports[MERGED]
    for ok in (False, None):
        summary = report.summary.model_copy(update={"build_ok": ok})
        changed = {MERGED: report.model_copy(update={"summary": summary})}
        assert not verdict(state.with_(reports=changed), "builds_passing").ok


@pytest.mark.rule("LC-56", "LC-96")
def test_verdict_for_another_rigor_does_not_count():
    assert not verdict(story(until="merged").state.with_(rigor="L2"), "tests_passing").ok


def with_verdict(value: str) -> StoryState:
    state = story(until="merged").state
    return state.with_(scores={MERGED: state.scores[MERGED].model_copy(update={"verdict": value, "score": "80"})})


@pytest.mark.rule("LC-56")
def test_blocking_verdict_is_false_and_warning_needs_a_person():
    assert not verdict(with_verdict("block"), "tests_passing").ok
    warned = with_verdict("warn")
    assert not verdict(warned, "tests_passing").ok
    gate = subject_of(warned, fsm().gate("agile", "accept_warning"))
    assert gate is not None
    log = story(until="merged").gate("accept_warning", gate, role="qa")
    accepted = warned.with_(approvals=log.state.approvals)
    assert verdict(accepted, "tests_passing").message == "verdict warn with 80, accepted by a person"


@pytest.mark.rule("RG-42", "LC-56")
def test_blocking_verdict_is_accepted_by_nobody():
    blocked = with_verdict("block")
    gate = subject_of(blocked, fsm().gate("agile", "accept_warning"))
    assert gate is not None
    granted = story(until="merged").gate("accept_warning", gate, role="qa").state.approvals
    accepted = blocked.with_(approvals=granted)
    assert valid_grant(accepted, "accept_warning", gate.digest, now_ms=NOW) is not None
    found = verdict(accepted, "tests_passing")
    assert (found.ok, found.message) == (False, "verdict block with 80")
    # The yes to one report is none to another of the same tree.
    other = with_verdict("warn").with_(approvals=granted)
    assert not verdict(other, "tests_passing").ok


@pytest.mark.rule("LC-57")
def test_sign_off_of_qa_is_for_the_present_tree():
    state = story(until="qa").state
    assert verdict(state, "qa_signoff").ok
    assert not verdict(state.with_(tree=digest("another tree")), "qa_signoff").ok


@pytest.mark.rule("LC-64")
def test_documentation_needs_tree_score_evidence_and_a_later_report():
    log = story(until="docs")
    assert verdict(log.state, "docs_complete").message == "the report is older than the documentation"
    log.add(
        ReportGenerated(
            report_id=EntityId("rp-one1"),
            report_digest=digest("report"),
            as_of=log.version,
            format="md",
            stats={},
            traceability=Traceability(linked=1, total=1),
        )
    )
    state = log.state
    assert verdict(state, "docs_complete").ok
    assert state.docs is not None
    for changed in (
        state.with_(tree=digest("another tree")),
        state.with_(scores={}),
        state.with_(docs=replace(state.docs, criteria={})),
    ):
        assert not verdict(changed, "docs_complete").ok


@pytest.mark.rule("LC-65")
@pytest.mark.parametrize(
    ("reason", "ok"), [("too short", False), ("  ten chars  ", False), ("ten chars!", True), ("x" * 4001, False)]
)
def test_feedback_has_ten_to_four_thousand_characters(reason: str, ok: bool):
    assert verdict(story(until="created").state, "feedback_given", reason=reason).ok is ok


@pytest.mark.rule("LC-61", "LC-62", "LC-63")
@pytest.mark.parametrize("name", ["deploy_approved", "deploy_recorded", "health_ok"])
def test_nothing_is_deployed_so_the_deployment_guards_stay_false(name: str):
    assert not verdict(story().state, name).ok


def test_decision_of_another_council_still_counts_as_the_design():
    log = story(until="planned").add(decision_payload(EntityId("de-other2"), council_id=DESIGN_COUNCIL))
    assert verdict(log.state, "design_complete").evidence == (DECISION,)


@pytest.mark.rule("LC-7")
def test_subject_of_each_gate_is_what_it_is_about_now():
    state = story(until="docs").state

    def found(name: str, task: Any = None) -> Subject | None:
        return subject_of(state, fsm().gate("agile", name), task)

    assert found("approve_scope") == subject("content", STORY, CONTENT)
    assert found("qa_passed") == subject("tree", STORY, state.tree)  # pyright: ignore[reportArgumentType]
    assert found("task_acceptance") is None
    accepted = found("task_acceptance", state.tasks[TASK])
    assert accepted is not None
    assert accepted.digest == digest("candidate tree")
    assert found("approve_deploy") is None
    empty = story(until="created").state
    for name in ("approve_design", "qa_passed", "docs_ready", "accept_warning"):
        assert subject_of(empty, fsm().gate("agile", name)) is None


WHY = "it was looked at by hand"
SHOWN_1 = CriterionTest(test="test_ac_1", source="independent", council_id=EntityId("co-code1"))


def bound_story(*, until: Any = "docs", shown: tuple[CriterionTest, ...] = (SHOWN_1,)) -> StoryLog:
    """A story under evidence rules 1 whose tree shows the first criterion alone."""
    log = story(until=until)
    start = log.state.start
    assert start is not None
    assert log.state.tree is not None
    log.add(StoryStarted(**{**start.model_dump(), "evidence_rules": 1}))
    report = log.state.reports[log.state.tree]
    log.add(WorkspaceReported(**{**report.model_dump(), "criteria": {AC_1: shown}}))
    none = Traceability(linked=1, total=1)
    return log.add(
        ReportGenerated(
            report_id=EntityId("rp-1"),
            report_digest=digest("r"),
            as_of=log.version,
            format="md",
            stats={},
            traceability=none,
        )
    )


def end_row() -> Any:
    return next(row for row in fsm().lifecycles["agile"].transitions if row.to == "DONE")


def guards_of(state: StoryState, row: Any) -> dict[str, GuardResult]:
    return {g.name: g for g in evaluate(state, GuardContext(config=fsm(), now_ms=NOW, transition=row))}


@pytest.mark.rule("LC-98")
def test_story_does_not_end_over_a_criterion_that_no_test_shows_and_waits_for_a_person():
    log = bound_story()
    found = guards_of(log.state, end_row())["criteria_shown"]
    assert (found.ok, found.message) == (False, f"not shown by any test: {AC_2}")
    standing = {
        c["id"]: (c["standing"], [t["test"] for t in c["tests"]]) for c in criteria_facts(log.state, log.state.tree)
    }
    assert standing == {AC_1: ("shown", ["test_ac_1"]), AC_2: ("not shown", [])}
    (park,) = plan(log.state, fsm(), now_ms=NOW)
    assert isinstance(park, Park)
    assert (park.cause, f"no test shows {AC_2}: " in park.detail) == ("stuck", True)
    assert f"`fleet story waive {STORY} {AC_2} --reason TEXT`" in park.detail


@pytest.mark.rule("LC-98")
def test_story_of_before_ends_as_it_would_have_and_is_asked_for_nothing_more():
    log = story(until="docs")
    assert "criteria_shown" not in guards_of(log.state, end_row())
    assert verdict(log.state, "criteria_shown").ok
    back = next(row for row in fsm().lifecycles["agile"].transitions if row.kind == "loopback")
    assert "criteria_shown" not in guards_of(bound_story().state, back)


@pytest.mark.rule("LC-98")
def test_person_waives_a_criterion_by_its_name_and_the_parked_story_goes_on():
    log = bound_story()
    (park,) = plan(log.state, fsm(), now_ms=NOW)
    assert isinstance(park, Park)
    log.add(StoryParked(cause="stuck", detail=park.detail))
    waived, unparked = WaiveCriterion(ac_id=AC_2, reason=WHY).decide(log.state, facts())
    assert isinstance(waived, CriterionWaived)
    assert (waived.by, waived.as_role, waived.reason) == (PO, "po", WHY)
    assert unparked == StoryUnparked(by=PO, note=WHY, cause="stuck")
    log.add(waived, unparked)
    assert guards_of(log.state, end_row())["criteria_shown"].ok
    assert [c["waived_by"] for c in criteria_facts(log.state, log.state.tree)] == [None, PO]
    (other,) = [c for c in log.state.content.acceptance_criteria if c.ac_id == AC_2]
    content = replace(
        log.state.content, acceptance_criteria=(other.model_copy(update={"text": "Given a new text, then more"}),)
    )
    assert not shown_criteria(log.state.with_(content=content), log.state.tree)[0].is_settled


QA = Caller(principal=Principal("user:quinn"), roles=frozenset({"qa"}))


@pytest.mark.rule("LC-98")
@pytest.mark.parametrize(
    ("ac_id", "caller", "kind"),
    [
        (AC_1, QA, InvalidTransition),
        ("ac-none", QA, NotFound),
        (AC_2, Caller(principal=Principal("user:dev"), roles=frozenset({"developer"})), PolicyDenied),
        (AC_2, Caller(principal=Principal("agent:reviewer-001"), roles=frozenset({"po"})), PolicyDenied),
    ],
)
def test_waiver_is_refused_of_what_is_shown_unknown_or_not_the_callers(
    ac_id: str, caller: Caller, kind: type[FleetError]
):
    with pytest.raises(kind):
        WaiveCriterion(ac_id=ac_id, reason=WHY).decide(bound_story().state, facts(caller))


@pytest.mark.rule("LC-98")
def test_waiver_of_one_of_two_leaves_a_story_parked_and_is_not_given_twice():
    log = bound_story(shown=())
    log.add(StoryParked(cause="stuck", detail="no test shows them"))
    (waived,) = WaiveCriterion(ac_id=AC_2, reason=WHY).decide(log.state, facts(QA))
    assert isinstance(waived, CriterionWaived)
    assert waived.as_role == "qa"
    log.add(waived)
    with pytest.raises(InvalidTransition, match="waived by user:quinn"):
        WaiveCriterion(ac_id=AC_2, reason=WHY).decide(log.state, facts(QA))


def test_tests_of_a_criterion_are_named_with_where_they_come_from():
    example = CriterionTest(test="test_example_1", source="example")
    assert words_of_tests((SHOWN_1, example)) == "independent test test_ac_1, given example test_example_1"
