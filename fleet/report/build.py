"""The technical report from the fold and the events of a story: same input, same report (RP-2)."""

from __future__ import annotations

from fleet.events.approval import ApprovalGranted
from fleet.events.budget import BudgetSet
from fleet.events.story import StoryCreated
from fleet.events.task import SlaBreached, TreeMerged
from fleet.events.workspace import TestSummary, WorkspaceScored
from fleet.kernel.errors import InvalidInput
from fleet.report.councils import council_summaries
from fleet.report.estimates import estimate_errors, estimates
from fleet.report.history import Events, of_type, step_records
from fleet.report.model import (
    DecisionEdge,
    Header,
    Overview,
    PlanSummary,
    PlanVersionRow,
    Quality,
    ReportOptions,
    ScoreRow,
    TechnicalReport,
    TraceClass,
)
from fleet.report.plan_layers import layers
from fleet.report.rows import (
    approval_rows,
    budget_rows,
    cost_rows,
    criterion_rows,
    decision_rows,
    denied_rows,
    impact_rows,
    step_rows,
    task_rows,
)
from fleet.report.stats import links, plan_edges, plan_status, statistics
from fleet.report.timeline import timeline
from fleet.report.times import phase_times
from fleet.report.trace import trace, traceability
from fleet.story.state import Plan, StoryState


def build_report(state: StoryState, events: Events, options: ReportOptions | None = None) -> TechnicalReport:
    """The report of the story as of the last of these events. No clock: the same events give the same report.

    Args:
        state: the fold of exactly these events.

    Raises:
        InvalidInput: there is no event, or the fold is of another version.
    """
    if not events or state.version != events[-1][0].version:
        raise InvalidInput(
            f"a report of {state.story_id} needs the events of version 1 to {state.version}", version=state.version
        )
    chosen = options or ReportOptions()
    classes = trace(state, events)
    rows, omitted = timeline(events, max_events=chosen.max_events) if chosen.include_timeline else ((), 0)
    dependencies = chosen.include_dependencies
    return TechnicalReport(
        header=_header(state, events, classes),
        overview=_overview(state, events),
        constraints=dict(state.content.constraints) if chosen.include_constraints else {},
        tags=state.content.tags,
        criteria=criterion_rows(state) if chosen.include_acceptance else (),
        plan=_plan(state, events),
        tasks=task_rows(state, events),
        estimate_errors=estimate_errors(events),
        decisions=decision_rows(state, events),
        decision_edges=_edges(events) if dependencies else (),
        impacts=impact_rows(state, events) if dependencies else (),
        councils=council_summaries(events) if chosen.include_council else (),
        approvals=approval_rows(state, events),
        steps=step_rows(events),
        denied=denied_rows(events),
        quality=_quality(state, events),
        phases=phase_times(events),
        timeline=rows,
        timeline_omitted=omitted,
        analytics=_analytics(state, events) if chosen.include_analytics else (),
        costs=cost_rows(events) if chosen.include_costs else (),
        budgets=budget_rows(state) if chosen.include_costs else (),
        traceability=traceability(classes),
        trace_classes=classes,
        next_steps=(*_next_steps(state), *_unsettled(state, events)),
        stats=statistics(events),
        options=chosen,
    )


def _current_plan(state: StoryState) -> Plan | None:
    return state.plan or (list(state.plans.values())[-1] if state.plans else None)


def _header(state: StoryState, events: Events, classes: tuple[TraceClass, ...]) -> Header:
    plan = _current_plan(state)
    return Header(
        title=state.content.title,
        story_id=state.story_id,
        project_id=state.project_id,
        epic_id=state.epic_id,
        state=state.state,
        disposition=state.disposition,
        rigor=state.rigor,
        lifecycle=state.lifecycle,
        plan_id=plan.proposal.plan_id if plan else None,
        plan_version=plan.proposal.version if plan else None,
        plan_status=plan_status(events) if plan else None,
        plan_author=plan.proposal.author if plan else None,
        as_of=state.version,
        head_hash=events[-1][0].hash,
        status="incomplete" if any(c.orphans for c in classes) else "complete",
    )


def _overview(state: StoryState, events: Events) -> Overview:
    score = state.scores.get(state.tree) if state.tree else None
    report = state.reports.get(state.tree) if state.tree else None
    unit = report.summary.unit if report else None
    created = next(p for _, p in of_type(events, StoryCreated))
    return Overview(
        description=state.content.description,
        outcome=_outcome(state),
        verdict=score.verdict if score else None,
        score=score.score if score else None,
        limited_by=score.limited_by if score else None,
        base_commit=state.base_commit,
        tree=state.tree,
        commit=state.commit,
        requester=created.requester,
        model=state.start.model if state.start else None,
        tests_passed=unit.passed if unit else None,
        tests_failed=unit.failed + unit.errored if unit else None,
    )


def _outcome(state: StoryState) -> str:
    if state.disposition == "parked" and state.park:
        return f"Parked ({state.park.cause}): {state.park.detail}"
    if state.disposition != "active":
        return f"The story was {state.disposition} in state {state.state}"
    if state.closed:
        return f"Closed in state {state.state}"
    return f"In state {state.state}" if state.start else f"Not started, in state {state.state}"


def _plan(state: StoryState, events: Events) -> PlanSummary | None:
    plan = _current_plan(state)
    if plan is None:
        return None
    edges = plan_edges(events)
    ordered = sorted(plan.proposal.tasks, key=lambda t: (t.priority, t.task_id))
    layered = layers([t.task_id for t in ordered], edges)
    return PlanSummary(
        rationale=plan.proposal.rationale,
        complexity=plan.proposal.estimated_complexity,
        versions=tuple(
            PlanVersionRow(
                plan_id=p.proposal.plan_id,
                version=p.proposal.version,
                status=p.status,
                author=p.proposal.author,
                rationale=p.proposal.rationale,
            )
            for p in state.plans.values()
        ),
        dependencies=edges,
        layers=layered.layers,
        has_cycle=layered.has_cycle,
    )


def _edges(events: Events) -> tuple[DecisionEdge, ...]:
    return tuple(DecisionEdge(source=a, relation=rel, target=b) for a, rel, b in links(events))


def _quality(state: StoryState, events: Events) -> Quality | None:
    scores = list(of_type(events, WorkspaceScored))
    if not scores:
        return None
    last = scores[-1][1]
    report = state.reports.get(last.tree_digest)
    summary = report.summary if report else None
    stages: tuple[tuple[str, TestSummary | None], ...] = (
        ("unit", summary.unit if summary else None),
        ("e2e", summary.e2e if summary else None),
    )
    return Quality(
        scores=tuple(
            ScoreRow(
                version=event.version,
                tree=p.tree_digest,
                score=p.score,
                verdict=p.verdict,
                rigor=p.rigor,
                limited_by=p.limited_by,
                reasons=p.reasons,
            )
            for event, p in scores
        ),
        dimensions=tuple(
            (d.name, _shown(d.value), _shown(d.limit), f"{d.score} ({d.evidence})") for d in last.dimensions
        ),
        gates=tuple((g.name, _shown(g.value), _shown(g.limit), "ok" if g.ok else "failed") for g in last.gates),
        tests=tuple((name, t.passed, t.failed, t.errored, t.skipped) for name, t in stages if t is not None),
        coverage_new_pct=summary.coverage.new_pct if summary and summary.coverage else None,
        secrets_found=summary.secrets_found if summary else None,
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _analytics(state: StoryState, events: Events) -> tuple[tuple[str, str], ...]:
    stats = statistics(events)
    needed: dict[str, int] = {}
    for _, relation, target in links(events):
        if relation in ("DEPENDS_ON", "GOVERNS"):
            needed[target] = needed.get(target, 0) + 1
    critical = sorted(needed, key=lambda d: (-needed[d], d))[:10]
    plan = _plan(state, events)
    unanswered = [q.question_id for q in state.questions.values() if q.answer is None]
    unfinished = [r.started.step_id for r in step_records(events) if r.outcome == "unfinished"]
    return (
        ("Critical decisions", ", ".join(critical) or "none"),
        ("Layers of the plan", str(len(plan.layers)) if plan else "no plan"),
        ("Cycle in the plan", "yes" if plan and plan.has_cycle else "no"),
        ("Unanswered questions", ", ".join(unanswered) or "none"),
        ("Time limits passed", str(sum(1 for _ in of_type(events, SlaBreached)))),
        ("Median estimate error", str(stats["estimate_error_median"] or "not measured")),
        ("Approved at the first try", str(stats["first_try_approval_rate"] or "not measured")),
        ("Unfinished steps", ", ".join(unfinished) or "none"),
        ("Budgets set", str(sum(1 for _ in of_type(events, BudgetSet)))),
        ("Merges", str(sum(bool(p.files) for _, p in of_type(events, TreeMerged)))),
        ("Consent by delegation", str(sum(p.delegated for _, p in of_type(events, ApprovalGranted)))),
    )


def _next_steps(state: StoryState) -> tuple[str, ...]:
    steps = [f"Answer {q.question_id}: {q.text}" for q in state.questions.values() if q.answer is None]
    if state.park is not None:
        steps.append(f"Look at why the story is parked ({state.park.cause}): {state.park.detail}")
    if not state.closed:
        steps += [
            f"Decide gate {a.request.gate} as {a.request.role} ({a.request.approval_id})"
            for a in state.approvals.values()
            if a.status == "requested" and not a.voided
        ]
        steps += [
            f"Finish task {t.task.task_id}: {t.task.title} ({t.state})"
            for t in state.tasks.values()
            if not t.is_terminal
        ]
    score = state.scores.get(state.tree) if state.tree else None
    steps += _change_request(state)
    steps += [f"Mend: {reason}" for reason in (score.reasons if score and score.verdict != "pass" else ())]
    return tuple(steps)


def _unsettled(state: StoryState, events: Events) -> tuple[str, ...]:
    """The open tasks whose estimate did not converge, for the po (PL-82)."""
    return tuple(
        f"Look at the estimate of task {task_id}: {row.points} points, of values {' '.join(map(str, row.values))}"
        for task_id, row in estimates(events).items()
        if not row.converged and task_id in state.tasks and not state.tasks[task_id].is_terminal
    )


def _change_request(state: StoryState) -> tuple[str, ...]:
    """What is to be done with the story's change request: look at it, or open it because the forge did not."""
    step = state.steps.get("change_request")
    if step is None or step.finished is None or step.finished.excerpt is None:
        return ()
    if step.finished.outcome == "succeeded":
        return (step.finished.excerpt,)
    return (f"Open the change request of branch fleet/{state.story_id} by hand: {step.finished.excerpt}",)
