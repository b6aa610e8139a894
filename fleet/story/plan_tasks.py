"""What the tasks of the adopted plan owe, one task at a time (PL-40, LC-100..LC-116)."""

from __future__ import annotations

from fleet.events.plan import Blocker
from fleet.events.story import Topic
from fleet.events.task import TaskTransitioned
from fleet.kernel.ids import SYSTEM, EntityId
from fleet.story.approvals import last_request, subject_of
from fleet.story.delegation import delegated_intents
from fleet.story.escalation import escalation_intents, is_asked_again
from fleet.story.guards import current_score
from fleet.story.intents import (
    CommitWork,
    Intent,
    MeasureTree,
    MergeTask,
    OpenTaskCouncil,
    Park,
    ReleaseReview,
    ReopenTaskCouncil,
    RequestGate,
    ReviewTask,
    StartTask,
    TestTask,
)
from fleet.story.lifecycle import FsmConfig
from fleet.story.state import CouncilRecord, StoryState, TaskState, attempts_of

REVIEWS = {"arch_reviewing": "pending_arch_review", "qa_testing": "pending_qa"}
"""The states of a review under way, and where the task waits for one."""


def held_reviews(state: StoryState) -> tuple[TaskState, ...]:
    """The tasks that a person reviews: until that person decides, or the claim ends, the story does not (LC-130)."""
    return tuple(t for t in state.tasks.values() if t.state in REVIEWS and t.claim and t.claim.principal.is_human)


def is_orphaned(state: StoryState, council: CouncilRecord) -> bool:
    """Whether the council deliberates on what nobody wants any more: its task is past being implemented, or the gate
    that it was to decide does not wait any more.
    """
    asked = state.approvals.get(council.opened.approval_id or "")
    if asked is not None:
        return asked.status != "requested" or asked.voided
    task = state.tasks.get(council.opened.task_id or "")
    return task is not None and not council.is_advice and task.state not in ("todo", "implementing")


def plan_tasks(state: StoryState, config: FsmConfig, now_ms: int) -> tuple[Intent, ...]:
    """The next intent of the task under way, or of the next ready one.

    Tasks run one after the other: each starts from the tree that the one before left, so a prompt never depends on
    the order in which two tasks happen to finish.
    """
    active = [t for t in state.tasks.values() if not t.is_terminal and t.state != "todo"]
    if active:
        return _task(state, config, active[0], now_ms)
    ready = [t for t in state.tasks.values() if t.state == "todo" and _is_ready(state, t)]
    if ready:
        first = min(ready, key=lambda t: (t.task.priority, _position(state, t)))
        return (StartTask(task_id=first.task.task_id),)
    blockers = find_blockers(state)
    if blockers:
        why = "; ".join(f"task {b.task_id} waits for {b.waits_for.id}: {b.reason}" for b in blockers[:10])
        return (Park(cause="plan_stalled", detail=f"{why}. Adopt another version of the plan"),)
    return (Park(cause="plan_stalled", detail="every task of the plan is cancelled"),)


def find_blockers(state: StoryState) -> tuple[Blocker, ...]:
    """What each open task waits for: its dependencies that are not done; a cancelled one never is (PL-45, PL-46)."""
    return tuple(
        Blocker(
            task_id=task.task.task_id,
            waits_for=Topic(kind="task", id=needed),
            reason=f"dependency is {state.tasks[needed].state}",
        )
        for task in state.tasks.values()
        if not task.is_terminal
        for needed in task.task.depends_on
        if needed in state.tasks and state.tasks[needed].state != "done"
    )


def _position(state: StoryState, task: TaskState) -> int:
    return list(state.tasks).index(task.task.task_id)


def _is_ready(state: StoryState, task: TaskState) -> bool:
    return all(state.tasks[d].state == "done" for d in task.task.depends_on if d in state.tasks)


def _task(state: StoryState, config: FsmConfig, task: TaskState, now_ms: int) -> tuple[Intent, ...]:
    task_id = task.task.task_id
    rejected = max(task.rejections.values(), default=0)
    if rejected > config.limits.max_rework:
        return (Park(cause="rework_limit", detail=f"task {task_id} was rejected {rejected} times"),)
    if task in held_reviews(state):
        return _held(state, task, now_ms)
    match task.state:
        case "implementing":
            return _implement(state, task)
        case "pending_arch_review" | "arch_reviewing":
            return (ReviewTask(task_id=task_id, attempt=task.attempt),)
        case "pending_qa" | "qa_testing":
            return (TestTask(task_id=task_id, attempt=task.attempt),)
        case "pending_po_approval":
            return _accept(state, config, task, now_ms)
        case "po_approved":
            return (MergeTask(task_id=task_id, attempt=task.attempt),)
        case _:
            return (Park(cause="internal_error", detail=f"task {task_id} rests in state {task.state}"),)


def _held(state: StoryState, task: TaskState, now_ms: int) -> tuple[Intent, ...]:
    """What a person's review needs of the story: the measurement of the work, and an end when the person gives none."""
    assert task.claim is not None
    if task.claim.expires_at_ms <= now_ms:
        return (ReleaseReview(task_id=task.task.task_id),)
    score = current_score(state, task.candidate_tree, now_ms=now_ms)
    if task.state == "qa_testing" and task.candidate_tree and score is None:
        return (MeasureTree(tree=task.candidate_tree),)
    return ()


def _implement(state: StoryState, task: TaskState) -> tuple[Intent, ...]:
    councils = state.councils_on(task.task.task_id)
    if attempts_of(councils) < task.attempt:
        return (OpenTaskCouncil(task_id=task.task.task_id, attempt=task.attempt),)
    last = councils[-1]
    if last.status == "CANCELLED" or is_asked_again(state, last):
        # A person ended it and let the story go on since, or asks the same of another one: the attempt is held again.
        return (ReopenTaskCouncil(task_id=task.task.task_id, attempt=task.attempt, after=last.opened.council_id),)
    if last.status == "DECIDED":
        return (CommitWork(task_id=task.task.task_id, council_id=last.opened.council_id),)
    detail = f"the council on task {task.task.task_id} ended without a decision: {last.reason}"
    return escalation_intents(state, last) or (Park(cause="council_undecided", detail=detail),)


def _accept(state: StoryState, config: FsmConfig, task: TaskState, now_ms: int) -> tuple[Intent, ...]:
    gate = config.gate(state.lifecycle, "task_acceptance")
    subject = subject_of(state, gate, task)
    if subject is None:
        return (Park(cause="internal_error", detail=f"task {task.task.task_id} has no candidate tree"),)
    if "qa" not in needed_reviews(config, task) and current_score(state, subject.digest, now_ms=now_ms) is None:
        return (MeasureTree(tree=subject.digest),)  # nobody tested it, and who accepts it looks at what was measured
    request = last_request(state, "task_acceptance", subject.digest)
    task_id = task.task.task_id
    # A rejection sent the task back, so this is its next attempt, and it may have ended in the very same tree.
    if request is None or request.status in ("expired", "revoked", "rejected") or request.voided:
        return (RequestGate(gate="task_acceptance", subject=subject.digest, task_id=task_id),)
    return delegated_intents(state, request, subject, now_ms=now_ms, task_id=task_id)


_ROUTES = (
    ("dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review", "architect"),
    ("arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa", "qa"),
    ("qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval", "po"),
    ("pending_po_approval", "APPROVE_STORY", "po_approved", ""),
)
"""Where work leaves from, how, where it waits next, and for a review by whom."""


def needed_reviews(config: FsmConfig, task: TaskState) -> frozenset[str]:
    """The roles that review a task of this kind; never its own role alone (LC-119)."""
    needed = frozenset[str](config.task_workflow.reviews_by_kind.get(task.task.kind, ("architect", "qa", "po")))
    return needed if needed - {task.task.role} else needed | {"po"}


def route_task(config: FsmConfig, task: TaskState, from_: str) -> tuple[TaskTransitioned, ...]:
    """The steps to the next review that the task needs; reviews that its kind does not need are passed through."""
    first = next(n for n, route in enumerate(_ROUTES) if route[0] == from_)
    needed = needed_reviews(config, task)
    steps = list[TaskTransitioned]()
    for _, action, to, reviewer in _ROUTES[first:]:
        steps.append(system_step(task.task.task_id, from_, action, to, is_skip=bool(steps)))
        if reviewer in needed:
            break
        from_ = to
    return tuple(steps)


def system_step(
    task_id: EntityId, from_: str, action: str, to: str, *, evidence: tuple[str, ...] = (), is_skip: bool = False
) -> TaskTransitioned:
    """A task transition that the system makes; `is_skip`: in place of a review that the task does not need."""
    return TaskTransitioned(
        task_id=task_id,
        from_=from_,  # pyright: ignore[reportArgumentType]
        action=action,  # pyright: ignore[reportArgumentType]
        to=to,  # pyright: ignore[reportArgumentType]
        actor_type="system",
        principal=SYSTEM,
        as_role="system",
        evidence=evidence,
        skipped_by_config=True if is_skip else None,
    )
