"""Wire types of the HTTP front: what requests may hold and what answers look like (AP-*)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.services.planning_desk import StoryLine
from fleet.story import StoryState

__all__ = [
    "CommandView",
    "DecisionRequest",
    "StartRequest",
    "StoryList",
    "StoryView",
    "TransitionRequest",
    "story_view",
]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StartRequest(_Wire):
    """Start the work on a story (AP-57)."""

    repo: Annotated[str, Field(min_length=1, max_length=4096)]
    """Path of a local git repository."""
    ref: str | None = None
    """Branch, tag or commit; the current branch when left out."""
    model: str | None = None
    """Model profile."""
    delegate: Annotated[tuple[Literal["po", "qa"], ...], Field(max_length=2)] = ()
    """Roles whose gates agents may decide in this run (LC-77)."""


class TransitionRequest(_Wire):
    """Fire an event of the story's lifecycle (AP-56)."""

    event: Annotated[str, Field(min_length=1, max_length=60)]
    reason: Annotated[str, Field(max_length=4000)] = ""


class DecisionRequest(_Wire):
    """Decide a pending approval (AP-75)."""

    notes: Annotated[str, Field(max_length=4000)] = ""
    reason: Annotated[str, Field(max_length=4000)] = ""


class Criterion(_Wire):
    """One acceptance criterion."""

    ac_id: str
    text: str


class TaskView(_Wire):
    """One task and where it stands."""

    task_id: str
    title: str
    role: str
    state: str


class ApprovalView(_Wire):
    """One approval and what came of it."""

    approval_id: str
    gate: str
    role: str
    status: str
    delegated: bool


class StoryView(_Wire):
    """A story as the API shows it."""

    story_id: str
    title: str
    description: str
    acceptance_criteria: tuple[Criterion, ...]
    constraints: dict[str, Any]
    tags: tuple[str, ...]
    rigor: str
    lifecycle: str
    state: str
    disposition: str
    closed: bool
    version: int
    score: str | None
    dor_ok: bool
    waiting_for: str | None
    parked: str | None
    commit: str | None
    tasks: tuple[TaskView, ...]
    approvals: tuple[ApprovalView, ...]
    tokens: int


class StoryList(_Wire):
    """One page of stories."""

    items: tuple[StoryLine, ...]
    next_cursor: str | None = None


class CommandView(_Wire):
    """A command and what came of it (AP-4)."""

    command_id: str
    status: Literal["pending", "done", "refused"]
    status_url: str
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    """Code, message and details of the refusal."""


def story_view(state: StoryState, waiting_for: str | None) -> StoryView:
    """The wire form of a story's state."""
    content = state.content
    return StoryView(
        story_id=state.story_id,
        title=content.title,
        description=content.description,
        acceptance_criteria=tuple(Criterion(ac_id=c.ac_id, text=c.text) for c in content.acceptance_criteria),
        constraints=dict(content.constraints),
        tags=content.tags,
        rigor=state.rigor,
        lifecycle=state.lifecycle,
        state=state.state,
        disposition=state.disposition,
        closed=state.closed,
        version=state.version,
        score=state.score.score if state.score else None,
        dor_ok=state.score.dor_ok if state.score else False,
        waiting_for=waiting_for,
        parked=state.park.detail if state.park else None,
        commit=state.commit,
        tasks=tuple(
            TaskView(task_id=t.task.task_id, title=t.task.title, role=t.task.role, state=t.state)
            for t in state.tasks.values()
        ),
        approvals=tuple(
            ApprovalView(
                approval_id=a.request.approval_id,
                gate=a.request.gate,
                role=a.request.role,
                status="voided" if a.voided else a.status,
                delegated=a.grant.delegated if a.grant else False,
            )
            for a in state.approvals.values()
        ),
        tokens=state.tokens,
    )
