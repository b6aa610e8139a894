"""Wire types of the HTTP front: what requests may hold and what answers look like (AP-*)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.desk.planning import StoryBeside, StoryLine, Survey
from fleet.story.approvals import pending_approvals
from fleet.story.guards import shown_criteria
from fleet.story.state import StoryState
from serve_apps.wire.times import at


class Wire(BaseModel):
    """What goes over the wire: frozen, and no field is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# Source: LC-130.
class ClaimRequest(Wire):
    """Take a task."""

    role: Annotated[str, Field(min_length=1, max_length=60)]
    """That of the task, which the caller holds."""


# Source: AP-75.
class DecisionRequest(Wire):
    """Decide a pending approval."""

    notes: Annotated[str, Field(max_length=4000)] = ""
    reason: Annotated[str, Field(max_length=4000)] = ""


class Criterion(Wire):
    """One acceptance criterion."""

    ac_id: str
    text: str


class CriterionEvidence(Wire):
    """What shows one acceptance criterion."""

    ac_id: str
    tests: tuple[str, ...] = ()
    """What shows it on the present tree: given examples and tests, and independent ones, that name it and passed."""
    waived_by: str | None = None
    """The person who let it pass although no test shows it."""
    is_settled: bool = False
    """A test shows it, or it is waived: the story may end as far as this one goes."""


class TaskView(Wire):
    """One task and where it stands."""

    task_id: str
    title: str
    role: str
    state: str


class ApprovalView(Wire):
    """One approval and what came of it."""

    approval_id: str
    gate: str
    role: str
    status: str
    delegated: bool


class FindingView(Wire):
    """Why points were lost; `span` is in the text of `field`."""

    code: str
    dimension: str
    points_lost: int
    field: str
    span: tuple[int, int] | None
    matched: str
    message: str
    suggestion: str


# Source: CX-74.
class RedactionView(Wire):
    """Secrets that were taken out of a field of the request before anything was recorded."""

    field: str
    """Of the request, as a JSON pointer."""
    kind: str
    count: int


class StoryView(Wire):
    """A story as the API shows it."""

    story_id: str
    title: str
    description: str
    acceptance_criteria: tuple[Criterion, ...]
    criteria: tuple[CriterionEvidence, ...] = ()
    """Each acceptance criterion with the tests that show it."""
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
    project_id: str
    epic_id: str
    author: str
    language: str
    priority: int
    created_at: str
    updated_at: str
    threshold: str | None
    """The readiness score that the story's rigor needs."""
    findings: tuple[FindingView, ...]
    """Why points of the readiness score were lost, one finding for each."""
    is_started: bool
    is_paused: bool
    park_cause: str | None
    unresolved_steps: tuple[str, ...]
    """Steps of which a person has to say whether they happened."""
    model: str | None
    plan_id: str | None
    base_tree: str | None
    tree: str | None
    open_questions: int
    calls: int
    redactions: tuple[RedactionView, ...] = ()
    """What was taken out of the request that this answers; of a reading nothing is told."""


class StoryBesideView(Wire):
    """Another story that is at work on the same repository, and what it holds there."""

    story_id: str
    branch: str
    """Where its work ends up; no other story writes there."""
    state: str
    gates: tuple[str, ...]
    """Gates of it that wait for a decision."""
    waiting_for: str | None
    told: str
    """All of it in one line."""


class StartedView(StoryView):
    """A story whose work was just started."""

    beside: tuple[StoryBesideView, ...] = ()
    """The other stories that the caller may see and that work on the same repository."""


def beside_view(other: StoryBeside) -> StoryBesideView:
    """The wire form of a story beside another one."""
    return StoryBesideView(
        story_id=other.state.story_id,
        branch=other.branch,
        state=other.state.state,
        gates=tuple(a.request.gate for a in pending_approvals(other.state)),
        waiting_for=other.waiting_for,
        told=other.told,
    )


class DamagedStoryView(Wire):
    """A story that cannot be read, with the error code and what is wrong with it."""

    story_id: str
    code: str
    message: str


class StoryList(Wire):
    """One page of stories."""

    items: tuple[StoryLine, ...]
    next_cursor: str | None = None
    damaged: tuple[DamagedStoryView, ...] = ()
    """Stories that cannot be read and are in no list, told to those from whom nothing is hidden."""


def damaged_views(survey: Survey) -> tuple[DamagedStoryView, ...]:
    """The wire form of the stories that cannot be read."""
    return tuple(DamagedStoryView(story_id=d.story_id, code=d.code, message=d.message) for d in survey.damaged)


# Source: EV-12.
class EventList(Wire):
    """Events of one story in their envelopes; `next_after` is the version to go on from."""

    items: tuple[dict[str, Any], ...]
    next_after: int | None


# Source: AP-4.
class CommandView(Wire):
    """A command and what came of it."""

    command_id: str
    status: Literal["pending", "done", "refused"]
    status_url: str
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None
    """Code, message and details of the refusal."""
    redactions: tuple[RedactionView, ...] = ()


def story_view(state: StoryState, waiting_for: str | None) -> StoryView:
    """The wire form of a story's state."""
    content = state.content
    return StoryView(
        story_id=state.story_id,
        title=content.title,
        description=content.description,
        acceptance_criteria=tuple(Criterion(ac_id=c.ac_id, text=c.text) for c in content.acceptance_criteria),
        criteria=tuple(
            CriterionEvidence(
                ac_id=c.ac_id,
                tests=tuple(t.test for t in c.tests),
                waived_by=c.waiver.by if c.waiver else None,
                is_settled=c.is_settled,
            )
            for c in shown_criteria(state, state.tree)
        ),
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
        project_id=state.project_id,
        epic_id=state.epic_id,
        author=state.author,
        language=state.language,
        priority=state.priority,
        created_at=at(state.created_ms),
        updated_at=at(state.updated_ms),
        threshold=state.score.threshold if state.score else None,
        findings=tuple(FindingView(**f.model_dump()) for f in state.score.findings) if state.score else (),
        is_started=state.start is not None,
        is_paused=state.is_paused,
        park_cause=state.park.cause if state.park else None,
        unresolved_steps=tuple(state.unresolved_steps),
        model=state.start.model if state.start else None,
        plan_id=state.plan_id,
        base_tree=state.base_tree,
        tree=state.tree,
        open_questions=sum(q.answer is None for q in state.questions.values()),
        calls=state.calls,
    )
