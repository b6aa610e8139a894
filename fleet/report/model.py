"""The technical report as a value: its sections in the order of RP-10..RP-28. Rendering adds nothing to it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.events.report import Orphan, Traceability
from fleet.events.values import Json
from fleet.kernel.types import Frozen
from fleet.report.councils import CouncilSummary
from fleet.report.times import PhaseTime


class ReportOptions(Frozen):
    """What a report holds (RP-1)."""

    include_timeline: bool = True
    include_dependencies: bool = True
    include_constraints: bool = True
    include_acceptance: bool = True
    include_analytics: bool = True
    include_council: bool = True
    include_costs: bool = True
    max_events: Annotated[int, Field(ge=1, le=2000)] = 200


class Header(Frozen):
    """What the report is about (RP-10); `status` incomplete when a required link is missing (RP-39)."""

    title: str
    story_id: str
    project_id: str
    epic_id: str
    state: str
    disposition: str
    rigor: str
    lifecycle: str
    plan_id: str | None
    plan_version: int | None
    plan_status: str | None
    plan_author: str | None
    as_of: int
    head_hash: str
    status: Literal["complete", "incomplete"]


class Overview(Frozen):
    """What was asked and what came of it (RP-11)."""

    description: str
    outcome: str
    verdict: str | None
    score: str | None
    limited_by: str | None
    base_commit: str | None
    tree: str | None
    commit: str | None
    requester: str
    model: str | None
    tests_passed: int | None
    tests_failed: int | None


class CriterionRow(Frozen):
    """An acceptance criterion with the tasks that cover it and its evidence (RP-12)."""

    ac_id: str
    text: str
    tasks: tuple[str, ...]
    evidence: tuple[str, ...]
    """The tests that show it; of stories that were started before tests were bound, runs of its tasks."""
    waived: str | None = None
    """Who let it pass without a test, and why."""


class PlanVersionRow(Frozen):
    """One version of the plan (RP-13)."""

    plan_id: str
    version: int
    status: str
    author: str
    rationale: str


class PlanSummary(Frozen):
    """The plan that the story follows, its versions, its graph (RP-13, RP-14)."""

    rationale: str
    complexity: str
    versions: tuple[PlanVersionRow, ...]
    dependencies: tuple[tuple[str, str], ...]
    """`(task, what it needs)`."""
    layers: tuple[tuple[str, ...], ...]
    """Topological layers; a last one holds what stands on or behind a cycle (PL-31)."""
    has_cycle: bool


class EstimateRow(Frozen):
    """What a council thinks that a task takes (PL-81); values without names, rising."""

    points: int
    iqr: str
    rounds: int
    converged: bool
    """False: the members did not come together, and the po is told (PL-82)."""
    values: tuple[int, ...]
    council_id: str | None


class EstimateErrorRow(Frozen):
    """What the done tasks of one role took beside what was estimated; hours as decimal strings (PL-84)."""

    role: str
    tasks: int
    estimated_h: int
    actual_h: str
    error_median: str
    """Of |actual - estimated| / estimated over the tasks."""
    tokens: int
    gpu_ms: int


class TaskRow(Frozen):
    """One task (RP-14); `actual_h` from its first start to its end, as a decimal string."""

    task_id: str
    title: str
    role: str
    kind: str
    state: str
    depends_on: tuple[str, ...]
    points: int | None
    estimated_h: int
    actual_h: str | None
    priority: int
    risk: str
    tech: tuple[str, ...]
    attempts: int
    tokens: int
    gpu_ms: int
    estimate: EstimateRow | None
    """The last one of a council."""


class DecisionRow(Frozen):
    """One decision (RP-15)."""

    decision_id: str
    title: str
    category: str
    status: str
    rationale: str
    alternatives: tuple[str, ...]
    author: str
    decided_by: str | None
    as_role: str | None
    decided_ms: int | None
    delegated: bool
    evidence: tuple[str, ...]
    council_id: str | None


class DecisionEdge(Frozen):
    """A relation between two decisions (RP-16)."""

    source: str
    relation: str
    target: str


class DecisionImpact(Frozen):
    """What one decision touches (RP-16)."""

    decision_id: str
    tasks: tuple[str, ...]
    files: tuple[str, ...]
    criteria: tuple[str, ...]


class ApprovalRow(Frozen):
    """One request for consent and what came of it (RP-18)."""

    approval_id: str
    gate: str
    role: str
    status: str
    principal: str | None
    delegated: bool
    requested_ms: int
    decided_ms: int | None
    notes: str | None


class StepRow(Frozen):
    """One step: a run or a model call (RP-19)."""

    step_id: str
    kind: str
    what: str
    effect: str
    role: str
    principal: str
    task_id: str | None
    council_id: str | None
    outcome: str
    exit_code: int | None
    tree_in: str | None
    tree_out: str | None
    took_ms: int
    tokens: int
    rule_id: str
    resolution: str | None
    unmet: tuple[str, ...] = ()
    """Isolation that its sandbox lacked (RC-32)."""
    contacts: tuple[str, ...] = ()
    """What it asked for outside: `host:port allowed|refused reason count`."""


class DeniedRow(Frozen):
    """One call that the policy refused (RP-19)."""

    what: str
    principal: str
    rule_id: str
    reason: str


class ScoreRow(Frozen):
    """One score of one tree (RP-23)."""

    version: int
    tree: str
    score: str
    verdict: str
    rigor: str
    limited_by: str
    reasons: tuple[str, ...]


class Quality(Frozen):
    """Scores over time and the last measurement (RP-23). Dimensions and gates as `(name, value, limit, result)`."""

    scores: tuple[ScoreRow, ...]
    dimensions: tuple[tuple[str, str, str, str], ...]
    gates: tuple[tuple[str, str, str, str], ...]
    tests: tuple[tuple[str, int, int, int, int], ...]
    """`(stage, passed, failed, errored, skipped)`."""
    coverage_new_pct: str | None
    secrets_found: int | None


class TimelineRow(Frozen):
    """One event in words (RP-24)."""

    version: int
    ts_ms: int
    event: str
    actor: str
    human: bool
    text: str


class CostRow(Frozen):
    """Usage by role, model or council (RP-26)."""

    group: Literal["role", "model", "council", "kind"]
    name: str
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_unpriced: int
    gpu_ms: int
    cost_microusd: int


class BudgetRow(Frozen):
    """What one scope used of one quantity (RP-26)."""

    scope: str
    id: str
    quantity: str
    spent: int
    reserved: int
    """Held for calls that no result settled (MB-23)."""
    limit: int | None
    """As set, or as the council was opened with; None when only the configuration has one."""


class TraceClass(Frozen):
    """How many objects of one class have all their required links (RP-20, RP-30..RP-38)."""

    rule: str
    name: str
    linked: int
    total: int
    orphans: tuple[Orphan, ...] = ()


class TechnicalReport(Frozen):
    """The whole report. Sections left out by an option are empty or None."""

    header: Header
    overview: Overview
    constraints: dict[str, Json]
    tags: tuple[str, ...]
    criteria: tuple[CriterionRow, ...]
    plan: PlanSummary | None
    tasks: tuple[TaskRow, ...]
    estimate_errors: tuple[EstimateErrorRow, ...]
    decisions: tuple[DecisionRow, ...]
    decision_edges: tuple[DecisionEdge, ...]
    impacts: tuple[DecisionImpact, ...]
    councils: tuple[CouncilSummary, ...]
    approvals: tuple[ApprovalRow, ...]
    steps: tuple[StepRow, ...]
    denied: tuple[DeniedRow, ...]
    quality: Quality | None
    phases: tuple[PhaseTime, ...]
    timeline: tuple[TimelineRow, ...]
    timeline_omitted: int
    analytics: tuple[tuple[str, str], ...]
    """`(finding, value)` lines (RP-25)."""
    costs: tuple[CostRow, ...]
    budgets: tuple[BudgetRow, ...]
    traceability: Traceability
    """All classes together (RP-20)."""
    trace_classes: tuple[TraceClass, ...]
    next_steps: tuple[str, ...]
    stats: dict[str, Json]
    options: ReportOptions
