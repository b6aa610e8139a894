"""Wire types of one task in full, and of what people send about it (AP-62, AP-64, AP-65)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from fleet.desk.tools.tasks import TaskMove, estimate_of, evidence_on, moves_of
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.task import TaskEstimated
from fleet.events.values import TaskAction
from fleet.kernel.types import Risk
from fleet.story.coarse import coarse_status
from fleet.story.state import StoryState
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at


# Source: PL-12, AP-62.
class TaskEditRequest(Wire):
    """New values of a task's fields; those that are left out stay. The others are fixed by the plan."""

    priority: int | None = None
    """1 is the highest."""
    estimated_hours: int | None = None
    keywords: Annotated[tuple[str, ...] | None, Field(max_length=20)] = None
    notes: Annotated[str | None, Field(max_length=20_000)] = None
    risk: Risk | None = None
    suggested_tech: Annotated[tuple[str, ...] | None, Field(max_length=50)] = None
    title: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    description: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    role: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    kind: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    depends_on: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    acceptance_refs: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")
    paths: Any = Field(default=None, description="Fixed by the plan: refused with a hint.")


class ClaimView(Wire):
    """Who alone works on the task, or reviews it."""

    principal: str
    expires_at: str
    is_live: bool


# Source: LC-121.
class TaskMoveView(Wire):
    """One step of the task."""

    version: int
    at: str
    from_state: str
    action: TaskAction
    to_state: str
    actor_type: str
    principal: str
    role: str
    feedback: str | None
    evidence: tuple[str, ...]


class TaskEvidenceView(Wire):
    """What is on record about its work."""

    candidate_tree: str | None
    run_id: str | None
    score: str | None
    verdict: str | None
    merged_commit: str | None
    councils: tuple[str, ...]
    runs: tuple[str, ...]


# Source: PL-81.
class TaskEstimateView(Wire):
    """What a council thinks that the task takes; values without names, rising."""

    points: int
    iqr: str
    rounds: int
    converged: bool
    """False: the members did not come together (PL-82)."""
    values: tuple[int, ...]
    council_id: str | None


class TaskPage(Wire):
    """One task in full."""

    task_id: str
    story_id: str
    plan_id: str
    version: int
    """Of the story: what `If-Match` names."""
    title: str
    description: str
    role: str
    kind: str
    estimated_hours: int
    points: int | None
    """Those of the last estimate of a council; else those that the plan gave it."""
    priority: int
    keywords: tuple[str, ...]
    depends_on: tuple[str, ...]
    acceptance_refs: tuple[str, ...]
    paths: tuple[str, ...]
    risk: str
    suggested_tech: tuple[str, ...]
    notes: str
    author: str | None
    state: str
    status: str
    """todo, blocked, in_progress, in_review, completed or cancelled (LC-123)."""
    attempt: int
    work_author: str | None
    reviewers: tuple[str, ...]
    feedback: tuple[str, ...]
    claim: ClaimView | None
    history: tuple[TaskMoveView, ...]
    evidence: TaskEvidenceView
    estimate: TaskEstimateView | None
    """The last one of a council; null when none was asked."""


# Source: LC-120.
class ActionResult(Wire):
    """What came of an action; a refusal is a problem with the word as `action_status`."""

    status: Literal["accepted"]
    task: TaskPage


def task_page(
    state: StoryState, events: Sequence[tuple[StoredEvent, Payload]], task_id: str, *, now_ms: int
) -> TaskPage:
    """The task as recorded now; the story has it."""
    current = state.tasks[task_id]
    task, claim = current.task, current.held_by
    moves = moves_of(events, task_id)
    evidence, estimate = evidence_on(state, events, task_id, moves), estimate_of(events, task_id)
    return TaskPage(
        task_id=task.task_id,
        story_id=state.story_id,
        plan_id=task.plan_id,
        version=state.version,
        title=task.title,
        description=task.description,
        role=task.role,
        kind=task.kind,
        estimated_hours=task.estimated_hours,
        points=estimate.points if estimate else task.points,
        priority=task.priority,
        keywords=task.keywords,
        depends_on=task.depends_on,
        acceptance_refs=task.acceptance_refs,
        paths=task.paths,
        risk=task.risk,
        suggested_tech=task.suggested_tech,
        notes=task.notes,
        author=task.author,
        state=current.state,
        status=coarse_status(state, current),
        attempt=current.attempt,
        work_author=current.author,
        reviewers=current.reviewers,
        feedback=current.feedback,
        claim=ClaimView(
            principal=claim.principal, expires_at=at(claim.expires_at_ms), is_live=claim.expires_at_ms > now_ms
        )
        if claim
        else None,
        history=tuple(map(_move, moves)),
        evidence=TaskEvidenceView(
            candidate_tree=evidence.candidate_tree,
            run_id=evidence.run_id,
            score=evidence.score,
            verdict=evidence.verdict,
            merged_commit=evidence.merged_commit,
            councils=evidence.councils,
            runs=evidence.runs,
        ),
        estimate=_estimate(estimate) if estimate else None,
    )


def _estimate(estimated: TaskEstimated) -> TaskEstimateView:
    return TaskEstimateView(
        points=estimated.points,
        iqr=estimated.iqr,
        rounds=estimated.rounds,
        converged=estimated.converged,
        values=estimated.values,
        council_id=estimated.council_id,
    )


def _move(move: TaskMove) -> TaskMoveView:
    step = move.step
    return TaskMoveView(
        version=move.version,
        at=at(move.ts_ms),
        from_state=step.from_,
        action=step.action,
        to_state=step.to,
        actor_type=step.actor_type,
        principal=step.principal,
        role=step.as_role,
        feedback=step.feedback,
        evidence=step.evidence,
    )
