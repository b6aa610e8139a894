"""Graph effects of plan and task events (GR-15, GR-16, GR-26, GR-42..GR-46, GR-60, GR-61, GR-64, GR-69)."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected, PlanStalled, Task
from fleet.events.task import (
    TaskAdded,
    TaskClaimed,
    TaskClaimReleased,
    TaskEstimated,
    TaskTransitioned,
    TaskUpdated,
    TreeMerged,
)
from fleet.graph.changes import GraphChange, RelationsClosed
from fleet.graph.effects.at import At, Ref, link, ref_of, texts
from fleet.graph.effects.story import milestone
from fleet.graph.schema import RELATIONS, Label, Rel
from fleet.kernel.digest import digest_of
from fleet.planning.graph import PlanEdge, PlanNode, plan_layers

_STAGE = {
    "APPROVE_DESIGN": ("arch", "approved"),
    "REJECT_DESIGN": ("arch", "rejected"),
    "APPROVE_TESTS": ("qa", "approved"),
    "REJECT_TESTS": ("qa", "rejected"),
    "APPROVE_STORY": ("po", "approved"),
    "REJECT_STORY": ("po", "rejected"),
}

_UPDATABLE = ("title", "role", "kind", "priority", "estimated_hours", "points", "risk")


def plan_proposed(at: At, e: PlanProposed) -> Iterator[GraphChange]:
    """The plan version with its tasks, their layers and what they need; the tasks are stubs until they are added."""
    plan: Ref = (Label.PLAN_VERSION, e.plan_id)
    yield at.describe(
        *plan,
        version=e.version,
        status="proposed",
        author_id=e.author,
        digest=e.plan_digest,
        content_digest=e.content_digest,
        created_at=at.ts_ms,
        **texts(rationale=e.rationale),
    )
    yield link(Rel.HAS_PLAN, at.ref, plan, current=False)
    layer_of = _layers(e)
    for position, task in enumerate(e.tasks):
        layer = layer_of.get(task.task_id)
        yield link(Rel.HAS_TASK, plan, (Label.TASK, task.task_id), layer=layer, position=position)
    for need in e.dependencies:
        ends = (Label.TASK, need.from_), (Label.TASK, need.to)
        yield link(Rel.DEPENDS_ON, *ends, {"plan_id": str(e.plan_id)}, inferred=need.inferred)


def _layers(e: PlanProposed) -> dict[str, int]:
    nodes = [PlanNode(t.task_id, t.priority, t.estimated_hours, t.role, t.paths) for t in e.tasks]
    edges = [PlanEdge(d.from_, d.to, d.inferred) for d in e.dependencies]
    return {task: number for number, layer in enumerate(plan_layers(nodes, edges).layers) for task in layer}


def plan_adopted(at: At, e: PlanAdopted) -> Iterator[GraphChange]:
    """The story follows this plan alone."""
    plan: Ref = (Label.PLAN_VERSION, e.plan_id)
    yield at.update(*plan, status="adopted")
    if e.supersedes is not None:
        old: Ref = (Label.PLAN_VERSION, e.supersedes)
        yield at.update(*old, status="superseded")
        yield link(Rel.HAS_PLAN, at.ref, old, current=False)
        yield link(Rel.SUPERSEDES, plan, old)
    yield link(Rel.HAS_PLAN, at.ref, plan, current=True)
    # The choice that it was made for was proposed before there was a plan to name.
    yield link(Rel.CONTAINS_DECISION, plan, (Label.DECISION, e.decision_id))
    yield from milestone(at, name="plan adopted", ref=e.plan_id)


def plan_rejected(at: At, e: PlanRejected) -> Iterator[GraphChange]:
    """The plan will not be followed."""
    yield at.update(Label.PLAN_VERSION, e.plan_id, status="rejected")


def plan_stalled(at: At, e: PlanStalled) -> Iterator[GraphChange]:
    """Each blocked task names what it waits for."""
    for blocker in e.blockers:
        waits_for = ref_of(blocker.waits_for.id)
        if waits_for is not None and (Label.TASK, waits_for[0]) in RELATIONS[Rel.BLOCKED_BY].ends:
            ends = (Label.TASK, blocker.task_id), waits_for
            yield link(Rel.BLOCKED_BY, *ends, reason=blocker.reason, removed_v=None)


def task_added(at: At, e: TaskAdded) -> Iterator[GraphChange]:
    """The task is part of the plan and serves its criteria."""
    task: Ref = (Label.TASK, e.task.task_id)
    yield at.describe(*task, state="todo", created_at=at.ts_ms, **_task_fields(e.task))
    yield link(Rel.HAS_TASK, (Label.PLAN_VERSION, e.plan_id), task)
    yield from _covers(at, task, e.task.acceptance_refs)
    yield from _serves(task, e.task.acceptance_refs)


def _task_fields(task: Task) -> dict[str, object]:
    return {name: getattr(task, name) for name in _UPDATABLE}


def _covers(at: At, task: Ref, refs: tuple[str, ...] | list[str]) -> Iterator[GraphChange]:
    for ref in refs:
        if ref.startswith("ac-"):
            yield link(Rel.COVERS, task, (Label.CRITERION, at.scoped(ref)))


def _serves(task: Ref, refs: tuple[str, ...]) -> Iterator[GraphChange]:
    """Decisions and incidents that a task names as its cause (PL-13, GR-48, GR-67)."""
    for ref in refs:
        if ref.startswith("de-"):
            yield link(Rel.AFFECTS, (Label.DECISION, ref), task)
        elif ref.startswith("in-"):
            yield link(Rel.HANDLED_BY, (Label.INCIDENT, ref), task)


def task_updated(at: At, e: TaskUpdated) -> Iterator[GraphChange]:
    """Fields of the task have new values."""
    yield at.update(Label.TASK, e.task_id, **{n: e.changes[n] for n in _UPDATABLE if n in e.changes})
    match e.changes.get("acceptance_refs"):
        case list() as refs:
            yield from _covers(at, (Label.TASK, e.task_id), [str(r) for r in refs])
        case _:
            pass


def task_transitioned(at: At, e: TaskTransitioned) -> Iterator[GraphChange]:
    """The task is in its new state; a review keeps reviewer and verdict; what goes on is blocked no more."""
    task: Ref = (Label.TASK, e.task_id)
    yield at.update(*task, state=e.to, **({"done_at": at.ts_ms} if e.to == "done" else {}))
    yield RelationsClosed(Rel.BLOCKED_BY, *task, mark="removed_v", value=at.version)
    if e.to == "done":
        yield RelationsClosed(Rel.BLOCKED_BY, *task, mark="removed_v", value=at.version, incoming=True)
    if e.action in _STAGE:
        stage, verdict = _STAGE[e.action]
        feedback = None if e.feedback is None else digest_of(e.feedback.encode())
        key = {"v": at.version}
        facts = {"stage": stage, "verdict": verdict, "at": at.ts_ms, "feedback_digest": feedback}
        yield from at.by(Rel.REVIEWED_BY, task, e.principal, key, **facts)


def task_claimed(at: At, e: TaskClaimed) -> Iterator[GraphChange]:
    """The task is the principal's from now on."""
    yield from at.by(Rel.ASSIGNED_TO, (Label.TASK, e.task_id), e.principal, {"v": at.version}, from_=at.ts_ms, to=None)


def task_claim_released(at: At, e: TaskClaimReleased) -> Iterator[GraphChange]:
    """The principal's open claim of the task has ended."""
    yield RelationsClosed(Rel.ASSIGNED_TO, Label.TASK, e.task_id, mark="to", value=at.ts_ms, only=(str(e.principal),))


def task_estimated(at: At, e: TaskEstimated) -> Iterator[GraphChange]:
    """The task has an estimate."""
    hours = {} if e.hours is None else {"estimated_hours": e.hours}
    yield at.update(Label.TASK, e.task_id, points=e.points, **hours)


def tree_merged(at: At, e: TreeMerged) -> Iterator[GraphChange]:
    """The story tree, and the files that the task touched."""
    yield at.story(tree_digest=e.result_digest)
    if e.task_id is None:
        return
    task: Ref = (Label.TASK, e.task_id)
    yield at.update(*task, tree_digest=e.task_tree_digest or e.result_digest)
    for file in e.files:
        # One node per story and path: a node that several streams fed would hold what came last (GR-5).
        node: Ref = (Label.FILE, at.scoped(file.path))
        yield at.describe(*node, path=file.path, last_tree=e.result_digest)
        run_id = {} if e.step_id is None else {"run_id": at.scoped(e.step_id)}
        yield link(Rel.TOUCHED, task, node, {"v": at.version}, change=file.change, **run_id)
