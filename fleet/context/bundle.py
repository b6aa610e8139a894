"""What a role needs to go on with a story that it knows nothing of: from the story's state alone (CX-40..CX-42).

A part is there when the role sees its scope in the present phase; everything else stays empty (CX-1, CX-3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.context.budget import ceiling
from fleet.context.scope import ContextConfig, Scope
from fleet.context.sections import Reader, live_decisions, relevant_decisions, tasks_of
from fleet.context.view import StoryView
from fleet.events.codec import rfc3339
from fleet.kernel.types import Frozen
from fleet.story.state import Decision, StoryState, TaskState


class CriterionLine(Frozen):
    """An acceptance criterion."""

    ac_id: str
    text: str


class CaseHeader(Frozen):
    """What is to be made."""

    story_id: str
    title: str
    constraints: dict[str, Any]
    acceptance_criteria: tuple[CriterionLine, ...]
    tags: tuple[str, ...]


# Source: CX-42.
class PlanHeader(Frozen):
    """The adopted plan, else the latest proposed one, which `status` says."""

    plan_id: str
    status: str
    version: int
    rationale: str


class TaskLine(Frozen):
    """A task of the role."""

    task_id: str
    title: str
    description: str
    kind: str
    state: str
    priority: int
    depends_on: tuple[str, ...]
    acceptance_refs: tuple[str, ...]
    paths: tuple[str, ...]


class DecisionLine(Frozen):
    """A decision that holds or is proposed."""

    id: str
    title: str
    rationale: str
    status: str
    author_id: str
    created_at: str


class DecisionEdge(Frozen):
    """How two decisions hang together."""

    src: str
    rel: str
    dst: str


class ImpactedTask(Frozen):
    """A task that a decision affects."""

    decision_id: str
    task_id: str
    title: str


class MilestoneLine(Frozen):
    """Something worth remembering."""

    ts: str
    event: str
    actor: str


class QuestionLine(Frozen):
    """A question that nobody answered yet."""

    id: str
    text: str
    severity: str


# Source: CX-41.
class RolePack(Frozen):
    """What one role is told; milestones are in chronological order."""

    role: str
    case_header: CaseHeader
    plan_header: PlanHeader | None
    role_tasks: tuple[TaskLine, ...]
    decisions_relevant: tuple[DecisionLine, ...]
    decision_dependencies: tuple[DecisionEdge, ...]
    impacted_tasks: tuple[ImpactedTask, ...]
    recent_milestones: tuple[MilestoneLine, ...]
    open_questions: tuple[QuestionLine, ...]
    last_summary: str | None
    token_budget_hint: int


class BundleStats(Frozen):
    """Numbers of what the bundle holds; `events` are all of the story up to its version."""

    decisions: int
    decision_edges: int
    impacts: int
    events: int
    roles: int


class TimelineLine(Frozen):
    """One of the last events, in words."""

    version: int
    ts: str
    event: str
    actor: str
    text: str


# Source: CX-40.
class RehydrationBundle(Frozen):
    """The story at one version for several roles. The same version and request give the same bundle."""

    story_id: str
    as_of: int
    phase: str
    packs: dict[str, RolePack]
    denied: tuple[str, ...]
    """Roles that were asked for and see nothing in this phase."""
    timeline: tuple[TimelineLine, ...]
    stats: BundleStats


def role_pack(
    view: StoryView,
    config: ContextConfig,
    *,
    role: str,
    scopes: Sequence[Scope],
    recent: Sequence[MilestoneLine],
    with_summary: bool = True,
) -> RolePack:
    """What this role is told, of the scopes that it sees.

    Args:
        scopes: of the role in the present phase.
        recent: the last milestones, in order; the view's own have no time and no actor.
    """
    state, reader = view.state, Reader(role=role, base=config.base_role(role))
    tasks = tasks_of(state)
    shown = tuple(t for t in tasks if "SUBTASKS_ALL" in scopes or reader.owns(t)) if _any(scopes, "SUBTASKS") else ()
    decisions = relevant_decisions(state, reader) if _any(scopes, "DECISIONS") else []
    return RolePack(
        role=role,
        case_header=_case(state),
        plan_header=_plan(state),
        role_tasks=tuple(_task(t) for t in shown if reader.owns(t)),
        decisions_relevant=tuple(map(_decision, decisions)),
        decision_dependencies=_edges(decisions, state) if _any(scopes, "DEPS") else (),
        impacted_tasks=_impacts(decisions, shown),
        recent_milestones=tuple(recent) if "MILESTONES" in scopes else (),
        open_questions=tuple(
            QuestionLine(id=q.question_id, text=q.text, severity=q.severity)
            for q in state.questions.values()
            if q.answer is None
        ),
        last_summary=_summary(view, reader) if with_summary and "SUMMARY_LAST" in scopes else None,
        token_budget_hint=ceiling(
            config.budget, base_role=reader.base, tasks=len(tasks), decisions=len(state.decisions)
        ),
    )


def bundle_stats(state: StoryState, packs: dict[str, RolePack]) -> BundleStats:
    """The numbers of a bundle: each decision, edge and impact is counted once."""
    seen = {line.id for pack in packs.values() for line in pack.decisions_relevant}
    edges = {(e.src, e.rel, e.dst) for pack in packs.values() for e in pack.decision_dependencies}
    impacts = {(i.decision_id, i.task_id) for pack in packs.values() for i in pack.impacted_tasks}
    return BundleStats(
        decisions=len(seen), decision_edges=len(edges), impacts=len(impacts), events=state.version, roles=len(packs)
    )


def _any(scopes: Sequence[Scope], start: str) -> bool:
    return any(scope.startswith(start) for scope in scopes)


def _case(state: StoryState) -> CaseHeader:
    content = state.content
    return CaseHeader(
        story_id=state.story_id,
        title=content.title,
        constraints=dict(content.constraints),
        acceptance_criteria=tuple(CriterionLine(ac_id=c.ac_id, text=c.text) for c in content.acceptance_criteria),
        tags=tuple(content.tags),
    )


def _plan(state: StoryState) -> PlanHeader | None:
    proposed = [p for p in state.plans.values() if p.status == "PROPOSED"]
    plan = state.plan or (proposed[-1] if proposed else None)
    if plan is None:
        return None
    made = plan.proposal
    return PlanHeader(plan_id=made.plan_id, status=plan.status, version=made.version, rationale=made.rationale)


def _task(state: TaskState) -> TaskLine:
    task = state.task
    return TaskLine(
        task_id=task.task_id,
        title=task.title,
        description=task.description,
        kind=task.kind,
        state=state.state,
        priority=task.priority,
        depends_on=task.depends_on,
        acceptance_refs=task.acceptance_refs,
        paths=task.paths,
    )


def _decision(decision: Decision) -> DecisionLine:
    proposed = decision.proposed
    return DecisionLine(
        id=proposed.decision_id,
        title=proposed.title,
        rationale=proposed.rationale,
        status=decision.status,
        author_id=proposed.author,
        created_at=rfc3339(decision.ts_ms),
    )


def _edges(shown: Sequence[Decision], state: StoryState) -> tuple[DecisionEdge, ...]:
    """Those between decisions that live, of which one is shown."""
    shown_ids = {d.proposed.decision_id for d in shown}
    live = {d.proposed.decision_id: d for d in live_decisions(state)}
    edges = [
        DecisionEdge(src=source, rel=link.rel, dst=link.decision_id)
        for source, decision in live.items()
        for link in decision.proposed.links
        if link.decision_id in live and shown_ids.intersection((source, link.decision_id))
    ]
    return tuple(edges)


def _impacts(decisions: Sequence[Decision], shown: Sequence[TaskState]) -> tuple[ImpactedTask, ...]:
    titles = {t.task.task_id: t.task.title for t in shown}
    return tuple(
        ImpactedTask(decision_id=d.proposed.decision_id, task_id=task_id, title=titles[task_id])
        for d in decisions
        for task_id in d.proposed.affects
        if task_id in titles
    )


def _summary(view: StoryView, reader: Reader) -> str | None:
    kept = view.state.summaries
    newest = max(kept, key=lambda role: kept[role].version, default="")
    return view.summaries.get(newest if reader.base == "po" else reader.base) or view.summaries.get("")
