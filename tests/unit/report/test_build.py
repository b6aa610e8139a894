"""The report as a value: every section from events alone (RP-1..RP-28)."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.council import EvidenceGate, EvidenceRecorded
from fleet.events.decision import DecisionAccepted, DecisionLink, DecisionLinked
from fleet.events.envelope import GENESIS_HASH
from fleet.events.payload import Payload
from fleet.events.plan import PlanRejected
from fleet.events.step import StepFinished, StepResolved, StepStarted
from fleet.events.story import StoryCancelled
from fleet.events.task import TaskEstimated
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId, StepId
from fleet.report.build import build_report
from fleet.report.councils import council_summaries
from fleet.report.history import decimal_text, span_ms, step_records
from fleet.report.model import ReportOptions, TechnicalReport
from fleet.report.plan_layers import layers
from fleet.report.render.markdown import render_markdown
from fleet.report.timeline import describe
from fleet.report.times import human_wait_ms, phase_times
from tests.support.event_samples import samples
from tests.support.story_events import (
    AC_1,
    ARCHITECT,
    DECISION,
    DEVELOPER,
    DOC_TASK,
    LOSER,
    PLAN,
    PO,
    STORY,
    T0,
    TASK,
    TASK_COUNCIL,
    WINNER,
    StoryLog,
    created_payload,
    decision_payload,
    deliberate,
    digest,
    open_council,
    story,
)


def report(log: StoryLog, **options: object) -> TechnicalReport:
    return build_report(log.state, log.decoded, ReportOptions.model_validate(options))


@pytest.mark.rule("RP-2", "RP-40")
def test_same_events_give_the_same_bytes() -> None:
    assert canonical_json(report(story())) == canonical_json(report(story()))


@pytest.mark.rule("RP-10", "RP-11")
def test_closed_story_reports_header_outcome_and_delivered_tree() -> None:
    made = report(story())
    assert (made.header.state, made.header.status, made.header.as_of) == ("DONE", "complete", story().version)
    assert (made.header.plan_id, made.header.plan_status) == (PLAN, "ADOPTED")
    assert (made.overview.outcome, made.overview.verdict, made.overview.score) == (
        "Closed in state DONE",
        "pass",
        "98.7",
    )
    assert (made.overview.tests_passed, made.overview.tests_failed) == (12, 0)
    assert made.overview.commit == "0c" * 20
    assert made.next_steps == ()


@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        (samples()["StoryParked"], "Parked (council_undecided): 2 of 3 voters are silent"),
        (samples()["StoryCancelled"], "The story was cancelled in state DESIGN"),
        (samples()["QuestionAnswered"], "In state DESIGN"),
    ],
)
def test_story_that_is_not_over_has_a_report_that_says_where_it_stands(payload: Payload, outcome: str) -> None:
    assert report(story(until="design").add(payload)).overview.outcome == outcome


def test_bare_story_has_a_report_without_plan_quality_or_score() -> None:
    made = report(story(until="created"))
    assert made.overview.outcome == "Not started, in state BACKLOG"
    assert (made.plan, made.quality, made.overview.score, made.header.plan_id) == (None, None, None, None)
    assert (made.decisions, made.councils, made.approvals, made.steps) == ((), (), (), ())


def test_report_without_events_or_of_another_version_is_refused() -> None:
    log = story(until="scored")
    with pytest.raises(InvalidInput):
        build_report(log.state, [])
    with pytest.raises(InvalidInput):
        build_report(log.state, log.decoded[:-1])


@pytest.mark.rule("RP-1")
def test_options_leave_sections_out_and_bound_the_timeline() -> None:
    names = ("timeline", "dependencies", "constraints", "acceptance", "analytics", "council", "costs")
    made = report(story(), **{f"include_{name}": False for name in names})
    empty = (made.timeline, made.impacts, made.criteria, made.analytics, made.councils, made.costs)
    assert set(empty) == {()}
    assert made.constraints == {}
    for bad in (0, 2001):
        with pytest.raises(ValidationError):
            ReportOptions(max_events=bad)


@pytest.mark.rule("RP-24")
def test_timeline_keeps_what_people_did_before_the_newest_system_events() -> None:
    made = report(story(), max_events=4)
    assert [(row.human, row.event) for row in made.timeline] == [
        (True, "StoryCreated"),
        (True, "StoryStarted"),
        (False, "StoryTransitioned"),
        (False, "StoryClosed"),
    ]
    assert made.timeline_omitted == len(report(story(), max_events=2000).timeline) - 4


def test_every_event_type_has_words() -> None:
    for payload in samples().values():
        assert describe(payload)
    assert describe(samples()["MilestoneReached"]) == "milestone reached"


@pytest.mark.rule("RP-12", "RP-14")
def test_criteria_and_tasks_are_listed_with_their_links() -> None:
    made = report(story())
    assert made.criteria[0].tasks == (TASK, DOC_TASK)
    assert made.criteria[0].evidence == ("tests/test_slug.py::test_umlaut",)
    task = made.tasks[0]
    assert (task.state, task.attempts, task.tokens, task.estimated_h) == ("done", 1, 3000, 2)
    assert task.actual_h is not None
    assert made.tasks[1].actual_h is None
    assert made.plan is not None
    assert made.plan.dependencies == ((DOC_TASK, TASK),)
    assert made.plan.layers == ((TASK,), (DOC_TASK,))


@pytest.mark.rule("RP-13")
def test_plan_versions_keep_their_status() -> None:
    log = story(until="planned")
    plan = log.decoded_payloads("PlanProposed")[0].model_copy(update={"plan_id": EntityId("pv-next2"), "version": 2})
    made = report(log.add(plan))
    assert made.plan is not None
    assert [(v.version, v.status) for v in made.plan.versions] == [(1, "ADOPTED"), (2, "PROPOSED")]
    assert report(story(until="design").add(plan)).header.plan_status == "PROPOSED"
    rejected = story(until="design").add(plan, PlanRejected(plan_id=EntityId("pv-next2"), by=PO, reason="late"))
    assert report(rejected).header.plan_status == "REJECTED"


@pytest.mark.rule("RP-15", "RP-16")
def test_decisions_are_ordered_by_time_and_name_what_they_touch() -> None:
    log = story(until="merged")
    link = DecisionLink(rel="DEPENDS_ON", decision_id=DECISION)
    log.add(decision_payload(EntityId("de-open2"), links=(link,), affects=(EntityId("tk-gone9"),)))
    log.add(DecisionLinked(decision_id=DECISION, affects=(DOC_TASK,)))
    made = report(log)
    assert [(d.decision_id, d.status) for d in made.decisions] == [(DECISION, "ACCEPTED"), ("de-open2", "PROPOSED")]
    assert made.decision_edges[0].relation == "DEPENDS_ON"
    first = made.impacts[0]
    assert (first.tasks, first.criteria) == ((TASK, DOC_TASK), (AC_1, "ac-empty2"))
    assert first.files == ("tests/test_slug.py", "text/slug.py")
    assert ("Critical decisions", DECISION) in made.analytics


def test_decision_by_delegated_approval_says_so() -> None:
    log = story(until="scope").add(decision_payload())
    approval = log.decoded_payloads("ApprovalGranted")[0]
    assert isinstance(approval, ApprovalGranted)
    log.add(DecisionAccepted(decision_id=DECISION, by=PO, as_role="po", approval_id=approval.approval_id))
    assert report(log).decisions[0].delegated


@pytest.mark.rule("RP-17")
def test_council_summary_counts_candidates_votes_and_tokens() -> None:
    summary = council_summaries(story().decoded)[1]
    assert (summary.council_id, summary.status, summary.winner) == (TASK_COUNCIL, "decided", WINNER)
    assert [(c.candidate_id, c.approve, c.reject, c.first_places) for c in summary.candidates] == [
        (WINNER, 2, 0, 2),
        (LOSER, 1, 1, 0),
    ]
    assert (summary.ballots, summary.ballots_refused) == (2, ("developer-001: invalid",))
    assert (summary.tests_written, len(summary.tests_kept)) == (5, 4)
    assert summary.tokens_total == summary.tokens_ledger == 3400
    assert summary.counterfactuals["plurality"] == LOSER
    assert [seat.member_id for seat in summary.roster] == [m.member_id for m in open_council(TASK_COUNCIL).roster]
    assert summary.minority_report == digest("minority")


def test_council_summary_of_other_ends_says_how_it_ended() -> None:
    def only(*payloads: Payload) -> str:
        log = story(until="scope").add(open_council(TASK_COUNCIL), *payloads)
        summary = council_summaries(log.decoded)[0]
        return f"{summary.status}: {summary.reason}"

    undecided = samples()["CouncilUndecided"].model_copy(update={"council_id": TASK_COUNCIL})
    cancelled = samples()["CouncilCancelled"].model_copy(update={"council_id": TASK_COUNCIL})
    assert only() == "in progress: None"
    assert only(undecided) == "undecided: no_quorum"
    assert only(cancelled) == "cancelled: the task was discarded"


def test_candidate_keeps_its_last_evidence_and_counts_kept_repairs() -> None:
    log = story(until="task")
    evidence = next(p for p in log.decoded_payloads("EvidenceRecorded") if isinstance(p, EvidenceRecorded))
    newer = evidence.evidence.model_copy(
        update={
            "candidate_id": EntityId("cd-third3"),
            "gates": (EvidenceGate(name="build", ok=False),),
            "gates_ok": False,
        }
    )
    log.add(evidence.model_copy(update={"council_id": TASK_COUNCIL, "evidence": newer}))
    repair = samples()["RepairReceived"]
    log.add(repair.model_copy(update={"council_id": TASK_COUNCIL, "candidate_id": WINNER, "kept": "new"}))
    summary = council_summaries(log.decoded)[1]
    assert (summary.candidates[2].failed_gates, summary.candidates[2].authors) == (("build",), ())
    assert summary.candidates[0].repairs_kept == 1


def test_candidate_without_evidence_was_not_measured() -> None:
    draft = samples()["DraftReceived"].model_copy(update={"council_id": TASK_COUNCIL})
    candidate = council_summaries(story(until="scope").add(open_council(TASK_COUNCIL), draft).decoded)[0].candidates[0]
    assert (candidate.gates_ok, candidate.trusted_total) == (None, 0)


@pytest.mark.rule("RP-18")
def test_approvals_tell_who_decided_and_on_whose_behalf() -> None:
    log = story(until="scope")
    request = samples()["ApprovalRequested"]
    assert isinstance(request, ApprovalRequested)
    for name in ("ap-a1", "ap-b2", "ap-c3", "ap-d4"):
        log.add(request.model_copy(update={"approval_id": EntityId(name)}))
    log.add(ApprovalRejected(approval_id=EntityId("ap-a1"), principal=PO, as_role="po", reason="no", delegated=False))
    log.add(ApprovalExpired(approval_id=EntityId("ap-b2"), attempt=1))
    log.add(ApprovalRevoked(approval_id=EntityId("ap-c3"), principal=PO, reason="wrong story"))
    rows = {row.approval_id: row for row in report(log).approvals}
    assert [(r.status, r.principal, r.notes) for r in list(rows.values())[1:]] == [
        ("rejected", PO, "no"),
        ("expired", None, None),
        ("revoked", PO, "wrong story"),
        ("requested", None, None),
    ]
    assert list(rows.values())[0].delegated
    assert [r.decided_ms is not None and r.decided_ms >= r.requested_ms > 0 for r in rows.values()] == [
        *(True, True, True, True),
        False,
    ]
    log.move("DESIGN", "reject_design", "DRAFT", loopback=True)
    assert report(log).approvals[0].status == "voided"


@pytest.mark.rule("RP-19")
def test_executions_show_unfinished_resolved_and_denied_calls() -> None:
    log = story(until="base")
    started = samples()["StepStarted"]
    assert isinstance(started, StepStarted)
    log.add(started, StepResolved(step_id=started.step_id, outcome="happened", by=PO, note="seen"))
    log.add(samples()["ToolDenied"])
    made = report(log)
    row = made.steps[-1]
    assert (row.outcome, row.resolution, row.took_ms, row.what) == ("unfinished", "happened", 0, "tests.pytest")
    assert made.denied[0].rule_id == "commands"
    assert ("Unfinished steps", started.step_id) in made.analytics


@pytest.mark.rule("RC-32", "RP-19")
def test_executions_show_weak_isolation_and_what_was_asked_for_outside() -> None:
    log = story(until="base")
    started, finished = samples()["StepStarted"], samples()["StepFinished"]
    assert isinstance(started, StepStarted)
    assert isinstance(finished, StepFinished)
    asked = ("evil.example:443 refused host_not_listed 2",)
    weak = finished.provenance.model_copy(update={"unmet": ("vsock", "pids"), "contacts": asked})
    log.add(started, finished.model_copy(update={"step_id": started.step_id, "provenance": weak}))
    made = report(log)
    assert (made.steps[-1].unmet, made.steps[-1].contacts) == (("vsock", "pids"), asked)
    text = render_markdown(made)
    assert "vsock, pids" in text
    assert "evil.example:443 refused" in text
    assert "missing and waived" not in render_markdown(report(story(until="base")))


def test_first_recorded_result_of_a_step_counts() -> None:
    log = story(until="base")
    finished = samples()["StepFinished"].model_copy(update={"step_id": StepId("measure/base")})
    assert [r.outcome for r in step_records(log.add(finished).decoded)] == ["succeeded"]


@pytest.mark.rule("RP-23")
def test_quality_shows_scores_over_time_and_the_last_measurement() -> None:
    quality = report(story()).quality
    assert quality is not None
    assert [s.score for s in quality.scores] == ["92", "98.7", "98.7"]
    assert quality.tests == (("unit", 12, 0, 0, 0),)
    assert quality.gates == (("build", "true", "true", "ok"),)
    scored = samples()["WorkspaceScored"]
    lone = report(story(until="scope").add(scored)).quality
    assert lone is not None
    assert (lone.tests, lone.coverage_new_pct, lone.dimensions[1]) == ((), None, ("e2e", "-", "-", "0 (missing)"))


@pytest.mark.rule("RP-26")
def test_costs_are_grouped_by_kind_role_model_and_council() -> None:
    rows = {(c.group, c.name): c for c in report(story()).costs}
    assert rows["kind", "model"].tokens_in + rows["kind", "model"].tokens_out == 7800
    assert rows["council", TASK_COUNCIL].calls == 5
    assert rows["role", "developer"].tokens_unpriced == 4800
    assert sum(c.tokens_in + c.tokens_out for (group, _), c in rows.items() if group == "model") == 7800
    assert rows["kind", "run"].tokens_in == 0


@pytest.mark.rule("RP-28")
def test_next_steps_name_questions_gates_tasks_findings_and_the_park() -> None:
    log = story(until="task").add(samples()["QuestionRaised"], samples()["ApprovalRequested"], samples()["StoryParked"])
    scored = samples()["WorkspaceScored"]
    log.add(
        scored.model_copy(update={"tree_digest": digest("base tree"), "verdict": "block", "reasons": ("9 errors",)})
    )
    steps = "\n".join(report(log).next_steps)
    for part in (
        "Answer qu-days1",
        "parked (council_undecided)",
        "Decide gate tool:git.push_branch",
        "Finish task tk-slug1",
    ):
        assert part in steps
    assert "Mend: 9 errors" in steps


def test_time_per_phase_adds_visits_and_counts_steps_where_they_started() -> None:
    times = {p.phase: p for p in phase_times(story().decoded)}
    assert list(times) == ["BACKLOG", "DRAFT", "DESIGN", "BUILD", "TEST", "DOCS"]
    assert (times["BACKLOG"].wall_ms, times["DESIGN"].model_calls, times["DESIGN"].runs) == (4000, 5, 1)
    assert times["BUILD"].run_ms == 8000
    log = story(until="build").wait(9000).move("BUILD", "reject_build", "DESIGN", loopback=True).wait(5000)
    log.move("DESIGN", "approve_design", "BUILD")
    back = {p.phase: p.wall_ms for p in phase_times(log.decoded)}
    assert back["DESIGN"] == times["DESIGN"].wall_ms + 6000
    assert back["BUILD"] == 10_000 + 1


def test_time_per_phase_of_a_story_that_never_moved_is_one_open_phase() -> None:
    log = StoryLog().add(created_payload(lifecycle="sdlc")).wait(2000).add(samples()["StoryScored"])
    assert [(p.phase, p.wall_ms) for p in phase_times(log.decoded)] == [("NEW", 3001)]
    assert phase_times([]) == ()


def test_waiting_for_people_counts_open_approvals_and_parks_once() -> None:
    log = story(until="scope")
    assert human_wait_ms(log.decoded) == 0
    log.add(samples()["ApprovalRequested"]).wait(4000).add(samples()["StoryParked"]).wait(1000)
    log.add(samples()["StoryParked"], samples()["StoryUnparked"]).wait(2000)
    log.add(
        ApprovalRejected(approval_id=EntityId("ap-scope1"), principal=PO, as_role="po", reason="no", delegated=False)
    )
    assert human_wait_ms(log.decoded) == 10_000
    assert (
        human_wait_ms(log.wait(50_000).add(samples()["StoryParked"]).wait(1000).add(created_answer()).decoded) == 12_000
    )
    assert human_wait_ms([]) == 0
    last_ms = log.events[-1].ts_ms
    assert human_wait_ms(log.decoded, now_ms=last_ms + 5000) == 17_000
    assert human_wait_ms(log.add(StoryCancelled(reason="no use")).decoded, now_ms=last_ms + 90_000) < 17_000


def created_answer() -> Payload:
    return samples()["QuestionAnswered"]


@pytest.mark.rule("PL-31")
def test_layers_are_topological_and_end_with_the_cycle() -> None:
    assert layers("abc", [("b", "a"), ("c", "b"), ("c", "gone")]) == ((("a",), ("b",), ("c",)), False)
    assert layers("abc", [("a", "b"), ("b", "a")]) == ((("c",), ("a", "b")), True)
    assert layers([], []) == ((), False)


@given(st.fractions(min_value=-1000, max_value=1000), st.integers(1, 6))
def test_decimal_text_is_the_nearest_decimal(value: Fraction, places: int) -> None:
    text = decimal_text(value, places)
    assert abs(Fraction(text) - value) * 2 <= Fraction(1, 10**places)
    assert text == str(text).strip()
    assert not text.endswith(".")


def test_decimal_text_of_round_values_has_no_zeros_behind() -> None:
    values = [Fraction(0), Fraction(1), Fraction(1, 2), Fraction(-3, 2), Fraction(1, 3), Fraction(100)]
    assert [decimal_text(v) for v in values] == ["0", "1", "0.5", "-1.5", "0.3333", "100"]


def test_span_of_no_events_is_zero() -> None:
    assert span_ms([]) == 0
    assert span_ms(story(until="scored").decoded) == 1000


def test_builder_story_is_one_valid_chain() -> None:
    previous = GENESIS_HASH
    for version, event in enumerate(story().events, start=1):
        assert (event.version, event.prev_hash, event.ts_ms > T0) == (version, previous, True)
        previous = event.hash
    log = StoryLog().add(created_payload(), actor=PO)
    deliberate(log, TASK_COUNCIL)
    assert log.state.story_id == STORY
    assert {DEVELOPER, ARCHITECT}.isdisjoint({log.events[0].actor})


@pytest.mark.rule("RP-25")
def test_analytics_say_what_is_critical_open_late_and_how_far_estimates_were_off() -> None:
    log = story(until="planned")
    found = dict(report(log).analytics)
    assert (found["Critical decisions"], found["Unanswered questions"]) == ("none", "none")
    assert (found["Time limits passed"], found["Median estimate error"]) == ("0", "not measured")
    link = DecisionLink(rel="DEPENDS_ON", decision_id=DECISION)
    log.add(decision_payload(EntityId("de-open2"), links=(link,)))
    log.add(samples()["QuestionRaised"].model_copy(update={"question_id": EntityId("qu-open1")}))
    log.add(samples()["SlaBreached"], samples()["SlaBreached"])
    found = dict(report(log).analytics)
    assert (found["Critical decisions"], found["Unanswered questions"]) == (DECISION, "qu-open1")
    assert (found["Time limits passed"], found["Layers of the plan"]) == ("2", "2")
    assert found["Cycle in the plan"] == "no"
    assert found["Median estimate error"]
    assert "\n## Analytics\n" in render_markdown(report(log))
    assert "\n## Analytics\n" not in render_markdown(report(log, include_analytics=False))


@pytest.mark.rule("RP-27", "RP-20")
def test_traceability_is_shown_by_class_with_every_orphan_whatever_is_left_out() -> None:
    names = ("timeline", "dependencies", "constraints", "acceptance", "analytics", "council", "costs")
    off = {f"include_{name}": False for name in names}
    lost = EntityId("de-lost2")
    log = story(until="planned").add(decision_payload(lost, affects=(EntityId("tk-gone9"),)))
    made = report(log, **off)
    shown = render_markdown(made).partition("\n## Traceability\n")[2].partition("\n## ")[0]
    for one in made.trace_classes:
        assert f"{one.linked} of {one.total}" in shown
        assert one.name in shown
    assert f"{made.traceability.linked} of {made.traceability.total}" in shown
    (orphan,) = [o for c in made.trace_classes for o in c.orphans if o.id == lost]
    assert lost in shown
    assert orphan.missing in shown
    whole = render_markdown(report(story(until="planned"), **off))
    assert "No link is missing." in whole.partition("\n## Traceability\n")[2]


@pytest.mark.rule("PL-84", "RP-14")
def test_what_tasks_took_stands_beside_their_estimates_by_role() -> None:
    log = story()
    made = report(log)
    task = made.tasks[0]
    (row,) = made.estimate_errors
    assert (row.role, row.tasks, row.estimated_h, row.actual_h) == (task.role, 1, task.estimated_h, task.actual_h)
    assert row.error_median == made.stats["estimate_error_median"]
    steps = [r for r in step_records(log.decoded) if r.started.task_id == task.task_id and r.finished is not None]
    assert (row.tokens, task.tokens) == (sum(r.tokens for r in steps),) * 2
    assert row.tokens > 0
    assert (row.gpu_ms, task.gpu_ms) == (sum(r.finished.cost.gpu_ms for r in steps if r.finished),) * 2
    assert f"| {row.role} | 1 | {row.estimated_h} | {row.actual_h} | {row.error_median} |" in render_markdown(made)


@pytest.mark.rule("PL-81", "PL-82")
@pytest.mark.parametrize("converged", [True, False])
def test_estimate_of_a_council_stands_with_its_task(converged: bool) -> None:
    log = story(until="build")
    for points in (2, 8):
        log.add(
            TaskEstimated(
                task_id=TASK,
                points=points,
                method="delphi",
                median=points,
                iqr="3",
                rounds=2,
                converged=converged,
                values=(5, 8, 8),
                council_id=TASK_COUNCIL,
            )
        )
    made = report(log)
    (task,) = [t for t in made.tasks if t.task_id == TASK]
    assert task.points == 8
    assert task.estimate is not None
    assert (task.estimate.values, task.estimate.council_id) == ((5, 8, 8), TASK_COUNCIL)
    listed = [step for step in made.next_steps if "estimate of task" in step]
    assert listed == ([] if converged else [f"Look at the estimate of task {TASK}: 8 points, of values 5 8 8"])
