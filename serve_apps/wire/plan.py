"""Wire types of plan versions, and of what people send to write and decide them (AP-59, AP-60)."""

from __future__ import annotations

from typing import Any, Literal

from fleet.events.plan import Task
from fleet.planning.execution import ready_tasks
from fleet.planning.graph import PlanEdge, PlanNode, critical_path, plan_layers
from fleet.story.coarse import coarse_status
from fleet.story.state import Plan, StoryState
from serve_apps.wire.planner import PlanVersionView, plan_version
from serve_apps.wire.story import Wire


# Source: AP-61.
class DerivationView(Wire):
    """Tasks are being derived; the plan can be read once there is an answer."""

    plan_id: str
    status: Literal["requested"]
    status_url: str


class PlanVersionList(Wire):
    """Every plan version of a story, in the order of their numbers."""

    items: tuple[PlanVersionView, ...]


class VersionTask(Wire):
    """One task as a version holds it, and where it stands now."""

    task_id: str
    title: str
    description: str
    role: str
    kind: str
    estimated_hours: int
    points: int | None
    priority: int
    keywords: tuple[str, ...]
    depends_on: tuple[str, ...]
    acceptance_refs: tuple[str, ...]
    paths: tuple[str, ...]
    risk: str
    suggested_tech: tuple[str, ...]
    notes: str
    state: str | None
    """Its workflow state; null while the story does not have it."""
    status: str | None


# Source: PL-22.
class NeedView(Wire):
    """One task needs another; `inferred` when shared keywords say so."""

    task_id: str
    needs: str
    inferred: bool


# Source: AP-59.
class PlanPage(Wire):
    """One plan version: tasks, layers, critical path, and what may start now."""

    plan: PlanVersionView
    previous_plan_id: str | None
    tasks: tuple[VersionTask, ...]
    dependencies: tuple[NeedView, ...]
    layers: tuple[tuple[str, ...], ...]
    cyclic: tuple[str, ...]
    """Tasks on or behind a cycle."""
    critical_path: tuple[str, ...]
    """The longest chain by estimated hours."""
    critical_hours: int
    ready: tuple[str, ...]
    """Tasks that may start now, the first first; none of a version that is not adopted."""
    uncovered: tuple[str, ...]
    """Acceptance criteria that no task serves."""


def plan_version_list(state: StoryState) -> PlanVersionList:
    """The versions of the story."""
    versions = sorted(state.plans.values(), key=lambda plan: plan.proposal.version)
    return PlanVersionList(items=tuple(plan_version(state, plan) for plan in versions))


def plan_page(state: StoryState, plan: Plan) -> PlanPage:
    """The version as it was proposed, with where its tasks stand now."""
    proposal = plan.proposal
    nodes = [PlanNode(t.task_id, t.priority, t.estimated_hours, t.role, t.paths) for t in proposal.tasks]
    edges = [PlanEdge(d.from_, d.to, d.inferred) for d in proposal.dependencies]
    states: dict[str, str] = {
        t.task_id: state.tasks[t.task_id].state if t.task_id in state.tasks else "todo" for t in proposal.tasks
    }
    layers, path = plan_layers(nodes, edges), critical_path(nodes, edges)
    hours = {node.id: node.estimated_hours for node in nodes}
    served = {ref for task in proposal.tasks for ref in task.acceptance_refs}
    return PlanPage(
        plan=plan_version(state, plan),
        previous_plan_id=proposal.previous_plan_id,
        tasks=tuple(_task(state, task) for task in proposal.tasks),
        dependencies=tuple(NeedView(task_id=d.from_, needs=d.to, inferred=d.inferred) for d in proposal.dependencies),
        layers=layers.layers,
        cyclic=layers.cyclic,
        critical_path=path,
        critical_hours=sum(hours[task_id] for task_id in path),
        ready=ready_tasks(nodes, edges, states=states) if plan.status == "ADOPTED" else (),
        uncovered=tuple(c.ac_id for c in state.content.acceptance_criteria if c.ac_id not in served),
    )


def _task(state: StoryState, task: Task) -> VersionTask:
    current = state.tasks.get(task.task_id)
    fields: dict[str, Any] = {
        name: getattr(task, name) for name in VersionTask.model_fields if name not in ("state", "status")
    }
    return VersionTask(
        **fields, state=current.state if current else None, status=coarse_status(state, current) if current else None
    )
