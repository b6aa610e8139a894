"""The figures of a report; each one is a query over events and nothing else (RP-29)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from statistics import median

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.budget import UsageAdjusted
from fleet.events.council import CouncilOpened, CouncilUndecided
from fleet.events.decision import (
    DecisionAccepted,
    DecisionLinked,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
)
from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected, Task
from fleet.events.story import QuestionAnswered, QuestionRaised, StoryTransitioned
from fleet.events.task import SlaBreached, TaskAdded, TaskTransitioned
from fleet.events.values import Json
from fleet.report.history import Events, current_plan, decimal_text, of_type, span_ms, step_records
from fleet.report.times import human_wait_ms

_REWORK = frozenset({"REVISE_CODE", "REQUEST_REWORK", "MERGE_FAILED"})


def statistics(events: Events) -> dict[str, Json]:
    """Every figure of RP-29 by its name; ratios as decimal strings, None where there is nothing to measure."""
    return {
        "events": len(events),
        **_tasks(events),
        **_decisions(events),
        "plan_versions": sum(1 for _ in of_type(events, PlanProposed)),
        "plan_status": plan_status(events),
        "councils": sum(1 for _ in of_type(events, CouncilOpened)),
        "councils_undecided": sum(1 for _ in of_type(events, CouncilUndecided)),
        **_approvals(events),
        "runs_by_outcome": _counts(r.outcome for r in step_records(events) if not r.is_model_call),
        "loopbacks": sum(p.loopback for _, p in of_type(events, StoryTransitioned)),
        "questions_open": len(
            {p.question_id for _, p in of_type(events, QuestionRaised)}
            - {p.question_id for _, p in of_type(events, QuestionAnswered)}
        ),
        "sla_breaches": sum(1 for _ in of_type(events, SlaBreached)),
        **_usage(events),
        "active_wall_ms": span_ms(events) - human_wait_ms(events),
        "human_wait_ms": human_wait_ms(events),
    }


def plan_status(events: Events) -> str:
    """Status of the plan that the story follows, or of the last one proposed; `none` without a plan."""
    plan = current_plan(events)
    if plan is None:
        return "none"
    if any(p.plan_id == plan.plan_id for _, p in of_type(events, PlanAdopted)):
        return "ADOPTED"
    rejected = any(p.plan_id == plan.plan_id for _, p in of_type(events, PlanRejected))
    return "REJECTED" if rejected else "PROPOSED"


def plan_edges(events: Events) -> tuple[tuple[str, str], ...]:
    """`(task, what it needs)` of the current plan, declared and inferred, sorted."""
    plan = current_plan(events)
    if plan is None:
        return ()
    declared = {(str(task.task_id), str(needed)) for task in plan.tasks for needed in task.depends_on}
    return tuple(sorted(declared | {(str(d.from_), str(d.to)) for d in plan.dependencies}))


def links(events: Events) -> tuple[tuple[str, str, str], ...]:
    """`(decision, relation, decision)` of all decisions, sorted."""
    triples = {
        (str(payload.decision_id), link.rel, str(link.decision_id))
        for kind in (DecisionProposed, DecisionLinked)
        for _, payload in of_type(events, kind)
        for link in payload.links
    }
    return tuple(sorted(triples))


def impacts(events: Events) -> dict[str, tuple[str, ...]]:
    """The tasks that each decision affects, by decision in order of proposal."""
    tasks_of: dict[str, dict[str, None]] = {}
    for kind in (DecisionProposed, DecisionLinked):
        for _, payload in of_type(events, kind):
            tasks_of.setdefault(payload.decision_id, {}).update(dict.fromkeys(map(str, payload.affects)))
    return {decision: tuple(tasks) for decision, tasks in tasks_of.items()}


def actual_ms(events: Events) -> dict[str, int]:
    """Time from the first start of each done task to its end."""
    begun: dict[str, int] = {}
    done: dict[str, int] = {}
    for event, payload in of_type(events, TaskTransitioned):
        if payload.to == "implementing":
            begun.setdefault(payload.task_id, event.ts_ms)
        elif payload.to == "done" and payload.task_id in begun:
            done[payload.task_id] = event.ts_ms - begun[payload.task_id]
    return done


def _tasks(events: Events) -> dict[str, Json]:
    tasks: dict[str, Task] = {p.task.task_id: p.task for _, p in of_type(events, TaskAdded)}
    states = dict.fromkeys(tasks, "todo") | {p.task_id: p.to for _, p in of_type(events, TaskTransitioned)}
    starts: Counter[str] = Counter(p.task_id for _, p in of_type(events, TaskTransitioned) if p.to == "implementing")
    done = [task_id for task_id, state in states.items() if state == "done"]
    errors = [
        abs(Fraction(ms, 3_600_000) - tasks[task_id].estimated_hours) / tasks[task_id].estimated_hours
        for task_id, ms in actual_ms(events).items()
        if task_id in tasks and tasks[task_id].estimated_hours
    ]
    first_try = Fraction(sum(starts[t] == 1 for t in done), len(done)) if done else None
    return {
        "total_tasks": len(tasks),
        "tasks_by_state": _counts(states.values()),
        "tasks_by_role": _counts(task.role for task in tasks.values()),
        "dependencies": len(plan_edges(events)),
        "reworks": sum(p.action in _REWORK for _, p in of_type(events, TaskTransitioned)),
        "first_try_approval_rate": decimal_text(first_try) if first_try is not None else None,
        "estimate_error_median": decimal_text(median(errors)) if errors else None,
    }


def _decisions(events: Events) -> dict[str, Json]:
    status: dict[str, str] = {}
    kinds = {DecisionProposed: "PROPOSED", DecisionAccepted: "ACCEPTED", DecisionRejected: "REJECTED"}
    for _, payload in events:
        for kind, name in {**kinds, DecisionSuperseded: "SUPERSEDED"}.items():
            if isinstance(payload, kind):
                status[payload.decision_id] = name
    edges, touched = links(events), impacts(events)
    needed = Counter(target for _, relation, target in edges if relation == "DEPENDS_ON")
    return {
        "decisions": len(status),
        "decisions_by_status": _counts(status.values()),
        "decision_edges": len(edges),
        "impacted_tasks": len({task for tasks in touched.values() for task in tasks}),
        "max_dependencies_on_one_decision": max(needed.values(), default=0),
        "max_impacts_from_one_decision": max((len(tasks) for tasks in touched.values()), default=0),
    }


def _approvals(events: Events) -> dict[str, Json]:
    status = dict[str, str]()
    names = {
        ApprovalRequested: "requested",
        ApprovalGranted: "granted",
        ApprovalRejected: "rejected",
        ApprovalExpired: "expired",
        ApprovalRevoked: "revoked",
    }
    for _, payload in events:
        for kind, name in names.items():
            if isinstance(payload, kind):
                status[payload.approval_id] = name
    return {
        "approvals_by_status": _counts(status.values()),
        "delegated_approvals": sum(p.delegated for _, p in of_type(events, ApprovalGranted)),
    }


def _usage(events: Events) -> dict[str, Json]:
    steps = [r for r in step_records(events) if r.finished is not None]
    adjusted = [p.delta for _, p in of_type(events, UsageAdjusted)]
    costs = [r.finished.cost for r in steps if r.finished is not None]
    return {
        "tokens_total": sum(c.tokens_in + c.tokens_out for c in costs) + sum(d.get("tokens", 0) for d in adjusted),
        "tokens_unpriced": sum(c.tokens_in + c.tokens_out for c in costs if not c.priced),
        "gpu_ms": sum(c.gpu_ms for c in costs) + sum(d.get("gpu_ms", 0) for d in adjusted),
        "cost_microusd": sum(c.cost_microusd or 0 for c in costs if c.priced),
    }


def _counts(names: Iterable[str]) -> dict[str, Json]:
    return dict(sorted(Counter(names).items()))
