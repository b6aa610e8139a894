"""Wire types of a story as it is planned: transitions, plan, tasks, decisions, questions."""

from __future__ import annotations

from fleet.desk.story_pages import Offer
from fleet.story.state import Decision, Plan, StoryState
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

# Lifecycle.


class GuardView(Wire):
    """One guard now."""

    name: str
    ok: bool
    message: str | None
    evidence: tuple[str, ...]


class TransitionView(Wire):
    """One event that is legal now."""

    event: str
    to: str
    kind: str
    by: tuple[str, ...]
    gate: str | None
    needs_person: bool
    is_open: bool
    """Every guard is true; `feedback_given` becomes true with the reason."""
    guards: tuple[GuardView, ...]


# Source: LC-9.
class TransitionList(Wire):
    """The events that are legal in the story's state."""

    state: str
    items: tuple[TransitionView, ...]


def transition_list(state: str, offers: tuple[Offer, ...]) -> TransitionList:
    """The wire form of what may be fired."""
    return TransitionList(
        state=state,
        items=tuple(
            TransitionView(
                event=o.row.event,
                to=o.row.to,
                kind=o.row.kind,
                by=o.row.by,
                gate=o.row.gate,
                needs_person=o.needs_person,
                is_open=all(g.ok for g in o.guards if g.name != "feedback_given"),
                guards=tuple(GuardView(name=g.name, ok=g.ok, message=g.message, evidence=g.evidence) for g in o.guards),
            )
            for o in offers
        ),
    )


# Plan, tasks, decisions, questions.


class PlanTask(Wire):
    """One task of a plan, with where it stands."""

    task_id: str
    title: str
    description: str
    role: str
    kind: str
    state: str
    priority: int
    risk: str
    estimated_hours: int
    depends_on: tuple[str, ...]
    acceptance_refs: tuple[str, ...]
    paths: tuple[str, ...]
    keywords: tuple[str, ...]
    attempt: int
    feedback: tuple[str, ...]
    claimed_by: str | None
    candidate_tree: str | None


class TaskList(Wire):
    """The tasks of a story."""

    items: tuple[PlanTask, ...]


# Source: PL-10.
class PlanVersionView(Wire):
    """One plan version."""

    plan_id: str
    version: int
    status: str
    author: str
    rationale: str
    complexity: str
    digest: str
    fits_text: bool
    """It was made for the story's present text."""


# Source: AP-59.
class PlanView(Wire):
    """The adopted plan: its tasks, their dependencies and their layers."""

    plan_id: str | None
    versions: tuple[PlanVersionView, ...]
    tasks: tuple[PlanTask, ...]
    dependencies: tuple[tuple[str, str], ...]
    """(task, task that it needs)."""
    layers: tuple[tuple[str, ...], ...]


def task_list(state: StoryState) -> TaskList:
    """The tasks of the story as it is."""
    return TaskList(items=tuple(_task(state, name) for name in state.tasks))


def _task(state: StoryState, task_id: str) -> PlanTask:
    current = state.tasks[task_id]
    task = current.task
    return PlanTask(
        task_id=task.task_id,
        title=task.title,
        description=task.description,
        role=task.role,
        kind=task.kind,
        state=current.state,
        priority=task.priority,
        risk=task.risk,
        estimated_hours=task.estimated_hours,
        depends_on=task.depends_on,
        acceptance_refs=task.acceptance_refs,
        paths=task.paths,
        keywords=task.keywords,
        attempt=current.attempt,
        feedback=current.feedback,
        claimed_by=current.held_by.principal if current.held_by else None,
        candidate_tree=current.candidate_tree,
    )


def plan_version(state: StoryState, plan: Plan) -> PlanVersionView:
    """One version, without its tasks."""
    proposal = plan.proposal
    return PlanVersionView(
        plan_id=proposal.plan_id,
        version=proposal.version,
        status=plan.status,
        author=proposal.author,
        rationale=proposal.rationale,
        complexity=proposal.estimated_complexity,
        digest=proposal.plan_digest,
        fits_text=proposal.content_digest == state.content.digest,
    )


def plan_view(state: StoryState, layers: tuple[tuple[str, ...], ...]) -> PlanView:
    """The plan of the story as it is."""
    versions = tuple(plan_version(state, plan) for plan in state.plans.values())
    edges = ((d.from_, d.to) for d in state.plan.proposal.dependencies) if state.plan else ()
    # Of tasks that are not shown to the caller no edge is shown either.
    dependencies = tuple(edge for edge in edges if set(edge) <= state.tasks.keys())
    return PlanView(
        plan_id=state.plan_id,
        versions=versions,
        tasks=task_list(state).items,
        dependencies=dependencies,
        layers=layers,
    )


# Source: AP-71.
class DecisionView(Wire):
    """One decision."""

    decision_id: str
    title: str
    rationale: str
    category: str
    status: str
    alternatives: tuple[str, ...]
    author: str
    origin: str
    decided_by: str | None
    council_id: str | None
    at: str


class DecisionList(Wire):
    """Decisions in the order in which they were proposed."""

    items: tuple[DecisionView, ...]


def decision_list(state: StoryState) -> DecisionList:
    """The decisions of the story."""
    return DecisionList(items=tuple(map(decision_view, state.decisions.values())))


def decision_view(decision: Decision) -> DecisionView:
    """The wire form of a decision."""
    proposed = decision.proposed
    return DecisionView(
        decision_id=proposed.decision_id,
        title=proposed.title,
        rationale=proposed.rationale,
        category=proposed.category,
        status=decision.status,
        alternatives=tuple(map(str, proposed.alternatives)),
        author=proposed.author,
        origin=proposed.origin_,
        decided_by=decision.decided_by,
        council_id=proposed.council_id,
        at=at(decision.ts_ms),
    )


class TreeCheckpointView(Wire):
    """A tree of the story that a person can go back to."""

    checkpoint_id: str
    version: int
    saved_at: str
    tree: str
    note: str
    tasks: dict[str, str]
    """Task id -> its state then."""
    is_present: bool
    """The story tree is this one now."""


class TreeCheckpointList(Wire):
    """Checkpoints, the oldest first."""

    items: tuple[TreeCheckpointView, ...]
    restoring: str | None
    """The checkpoint that was asked for and is not restored yet."""


def tree_checkpoint_list(state: StoryState) -> TreeCheckpointList:
    """The checkpoints of the story (PL-47)."""
    return TreeCheckpointList(
        items=tuple(
            TreeCheckpointView(
                checkpoint_id=c.checkpoint_id,
                version=c.version,
                saved_at=at(c.ts_ms),
                tree=c.tree,
                note=c.note,
                tasks=dict(c.task_states),
                is_present=c.tree == state.tree,
            )
            for c in state.checkpoints.values()
        ),
        restoring=state.restoration.checkpoint_id if state.restoration else None,
    )


class QuestionView(Wire):
    """One question and its answer."""

    question_id: str
    kind: str
    severity: str
    text: str
    answer: str | None


class QuestionList(Wire):
    """Questions in the order in which they were asked."""

    items: tuple[QuestionView, ...]


def question_list(state: StoryState) -> QuestionList:
    """The questions of the story."""
    return QuestionList(
        items=tuple(
            QuestionView(question_id=q.question_id, kind=q.kind, severity=q.severity, text=q.text, answer=q.answer)
            for q in state.questions.values()
        )
    )
