"""Tables of a report: tasks, decisions, approvals, steps, costs (RP-14..RP-19, RP-26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.decision import DecisionAccepted, DecisionRejected
from fleet.events.payload import Payload
from fleet.events.step import ToolDenied
from fleet.events.task import TreeMerged
from fleet.report.estimates import estimates, task_gpu_ms, task_tokens
from fleet.report.history import Events, StepRecord, decimal_text, of_type, step_records
from fleet.report.model import (
    ApprovalRow,
    BudgetRow,
    CostRow,
    CriterionRow,
    DecisionImpact,
    DecisionRow,
    DeniedRow,
    StepRow,
    TaskRow,
)
from fleet.report.stats import actual_ms, impacts
from fleet.report.usage import UsageRow, UsageSum, sum_usage, usage_rows
from fleet.story.allowance import budget_lines
from fleet.story.guards import binds_criteria, shown_criteria
from fleet.story.state import Approval, Decision, StoryState

_HOUR_MS = 3_600_000


def criterion_rows(state: StoryState) -> tuple[CriterionRow, ...]:
    """Each criterion with the tasks that cover it and its evidence."""
    evidence: Mapping[str, tuple[str, ...]] = state.docs.criteria if state.docs else {}
    is_bound = binds_criteria(state)
    return tuple(
        CriterionRow(
            ac_id=c.ac_id,
            text=c.text,
            tasks=tuple(t.task.task_id for t in state.tasks.values() if c.ac_id in t.task.acceptance_refs),
            evidence=tuple(t.test for t in c.tests) if is_bound else tuple(evidence.get(c.ac_id, ())),
            waived=f"{c.waiver.by}: {c.waiver.reason}" if c.waiver is not None else None,
        )
        for c in shown_criteria(state, state.tree)
    )


def task_rows(state: StoryState, events: Events) -> tuple[TaskRow, ...]:
    """Every task of the story in the order of adding."""
    took, tokens, gpu_ms, given = actual_ms(events), task_tokens(events), task_gpu_ms(events), estimates(events)
    return tuple(
        TaskRow(
            task_id=t.task.task_id,
            title=t.task.title,
            role=t.task.role,
            kind=t.task.kind,
            state=t.state,
            depends_on=tuple(t.task.depends_on),
            points=given[t.task.task_id].points if t.task.task_id in given else t.task.points,
            estimated_h=t.task.estimated_hours,
            actual_h=_hours(took.get(t.task.task_id)),
            priority=t.task.priority,
            risk=t.task.risk,
            tech=t.task.suggested_tech,
            attempts=t.attempt,
            tokens=tokens.get(t.task.task_id, 0),
            gpu_ms=gpu_ms.get(t.task.task_id, 0),
            estimate=given.get(t.task.task_id),
        )
        for t in state.tasks.values()
    )


def _hours(ms: int | None) -> str | None:
    return decimal_text(Fraction(ms, _HOUR_MS), 3) if ms is not None else None


def decision_rows(state: StoryState, events: Events) -> tuple[DecisionRow, ...]:
    """Every decision, ordered by (decided at, id); open ones last."""
    decided = dict[str, int]()
    for kind in (DecisionAccepted, DecisionRejected):
        for event, payload in of_type(events, kind):
            decided[payload.decision_id] = event.ts_ms
    delegated = {p.approval_id for _, p in of_type(events, ApprovalGranted) if p.delegated}
    by_delegation = {
        p.decision_id for _, p in of_type(events, DecisionAccepted) if p.approval_id and p.approval_id in delegated
    }
    rows = [_decision(d, decided.get(id), delegated=id in by_delegation) for id, d in state.decisions.items()]
    return tuple(sorted(rows, key=lambda r: (r.decided_ms is None, r.decided_ms or 0, r.decision_id)))


def _decision(decision: Decision, decided_ms: int | None, *, delegated: bool) -> DecisionRow:
    proposed = decision.proposed
    return DecisionRow(
        decision_id=proposed.decision_id,
        title=proposed.title,
        category=proposed.category,
        status=decision.status,
        rationale=proposed.rationale,
        alternatives=proposed.alternatives,
        author=proposed.author,
        decided_by=decision.decided_by,
        as_role=decision.as_role,
        decided_ms=decided_ms,
        delegated=delegated,
        evidence=tuple(f"{e.kind} {e.id}" for e in proposed.based_on),
        council_id=proposed.council_id,
    )


def impact_rows(state: StoryState, events: Events) -> tuple[DecisionImpact, ...]:
    """What each decision touches: tasks, the files they changed, the criteria they serve."""
    files: dict[str, list[str]] = {}
    for _, merge in of_type(events, TreeMerged):
        if merge.task_id is not None:
            files.setdefault(merge.task_id, []).extend(f.path for f in merge.files)
    rows = list[DecisionImpact]()
    for decision_id, tasks in impacts(events).items():
        refs = [r for t in tasks if t in state.tasks for r in state.tasks[t].task.acceptance_refs]
        rows.append(
            DecisionImpact(
                decision_id=decision_id,
                tasks=tasks,
                files=tuple(sorted({path for task in tasks for path in files.get(task, ())})),
                criteria=tuple(dict.fromkeys(r for r in refs if r.startswith("ac-"))),
            )
        )
    return tuple(rows)


def approval_rows(state: StoryState, events: Events) -> tuple[ApprovalRow, ...]:
    """Every request for consent in the order of asking."""
    requested: dict[str, int] = {p.approval_id: event.ts_ms for event, p in of_type(events, ApprovalRequested)}
    decided: dict[str, tuple[int, Payload]] = {}
    for kind in (ApprovalGranted, ApprovalRejected, ApprovalExpired, ApprovalRevoked):
        for event, payload in of_type(events, kind):
            decided[payload.approval_id] = (event.ts_ms, payload)
    return tuple(_approval(a, requested[id], decided.get(id)) for id, a in state.approvals.items())


def _approval(approval: Approval, requested_ms: int, decided: tuple[int, Payload] | None) -> ApprovalRow:
    payload = decided[1] if decided else None
    notes = approval.reason
    if isinstance(payload, ApprovalGranted):
        notes = payload.notes
    return ApprovalRow(
        approval_id=approval.request.approval_id,
        gate=approval.request.gate,
        role=approval.request.role,
        status="voided" if approval.voided else approval.status,
        principal=None if isinstance(payload, ApprovalExpired) else getattr(payload, "principal", None),
        delegated=bool(getattr(payload, "delegated", False)),
        requested_ms=requested_ms,
        decided_ms=decided[0] if decided else None,
        notes=notes,
    )


def step_rows(events: Events) -> tuple[StepRow, ...]:
    """Every step in the order of its start."""
    return tuple(_step(record) for record in step_records(events))


def _step(record: StepRecord) -> StepRow:
    started, finished = record.started, record.finished
    return StepRow(
        step_id=started.step_id,
        kind=started.kind,
        what=".".join(part for part in (started.tool, started.op) if part) or started.kind,
        effect=started.effect,
        role=started.as_role,
        principal=started.principal,
        task_id=started.task_id,
        council_id=started.council_id,
        outcome=record.outcome,
        exit_code=finished.exit_code if finished else None,
        tree_in=finished.provenance.tree_in_digest if finished else None,
        tree_out=finished.provenance.tree_out_digest if finished else None,
        took_ms=record.took_ms,
        tokens=record.tokens,
        rule_id=started.policy.rule_id,
        resolution=record.resolved.outcome if record.resolved else None,
        unmet=(finished.provenance.unmet or ()) if finished else (),
        contacts=(finished.provenance.contacts or ()) if finished else (),
    )


def denied_rows(events: Events) -> tuple[DeniedRow, ...]:
    """Every call that the policy refused."""
    return tuple(
        DeniedRow(what=f"{p.tool}.{p.op}", principal=p.principal, rule_id=p.rule_id, reason=p.reason)
        for _, p in of_type(events, ToolDenied)
    )


_Group = Literal["kind", "role", "model", "council"]


def cost_rows(events: Events) -> tuple[CostRow, ...]:
    """Usage of all steps by kind, and of model calls by role, model and council (RP-26)."""
    rows = usage_rows(events)
    calls = [replace(row, model=row.model or "unknown") for row in rows if row.kind == "model"]
    groups: tuple[tuple[_Group, Sequence[UsageRow]], ...] = (
        ("kind", rows),
        ("role", calls),
        ("model", calls),
        ("council", calls),
    )
    return tuple(_cost(group, summed) for group, uses in groups for summed in sum_usage(uses, by=group))


def _cost(group: _Group, usage: UsageSum) -> CostRow:
    return CostRow(
        group=group,
        name=usage.key,
        calls=usage.steps,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        tokens_cached=usage.tokens_cached,
        tokens_unpriced=usage.tokens_unpriced,
        gpu_ms=usage.gpu_ms,
        cost_microusd=usage.cost_microusd,
    )


def budget_rows(state: StoryState) -> tuple[BudgetRow, ...]:
    """What each scope used, beside the limits that are on record; configured ones are not part of a story's events."""
    return tuple(
        BudgetRow(
            scope=line.scope,
            id=line.id,
            quantity=line.quantity,
            spent=line.spent,
            reserved=line.reserved,
            limit=line.limit,
        )
        for line in budget_lines(state, None)
    )
