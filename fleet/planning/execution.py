"""Which tasks of an adopted plan may start, and when the plan is complete or stalled (PL-40..PL-46)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fleet.planning.graph import PlanEdge, PlanNode, paths_overlap, remaining_hours

TERMINAL = frozenset({"done", "cancelled"})
Obstacle = Literal["task_parked", "missing_role", "budget_exhausted"]


@dataclass(frozen=True, slots=True)
class PlanBlocker:
    """Why a task cannot go on."""

    task_id: str
    reason: Obstacle | Literal["unmet_dependency"]
    waits_for: tuple[str, ...] = ()
    """The dependencies that are not done."""


def ready_tasks(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge], *, states: Mapping[str, str]) -> tuple[str, ...]:
    """The `todo` tasks whose dependencies are all `done`, first to start first (PL-40).

    A cancelled dependency is not done (PL-46), nor is one that the plan does not hold.

    Args:
        states: workflow state by task id (LC-100).
    """
    hours = remaining_hours(nodes, edges)
    ready = [n for n in nodes if states[n.id] == "todo" and not _unmet(n.id, edges, states)]
    return tuple(n.id for n in sorted(ready, key=lambda n: (n.priority, -hours[n.id], n.id)))


def startable_tasks(
    nodes: Sequence[PlanNode],
    edges: Sequence[PlanEdge],
    *,
    states: Mapping[str, str],
    free_agents: Mapping[str, int],
    max_parallel_tasks: int,
    optimistic: bool = False,
) -> tuple[str, ...]:
    """The ready tasks that may start now beside those that are under way (PL-40, PL-41).

    Args:
        free_agents: agents without work, by role.
        optimistic: `parallel: optimistic`: a task without paths overlaps nothing.
    """
    by_id = {n.id: n for n in nodes}
    running = [n for n in nodes if states[n.id] != "todo" and states[n.id] not in TERMINAL]
    free, started = dict(free_agents), list[str]()
    for task_id in ready_tasks(nodes, edges, states=states):
        node = by_id[task_id]
        clash = any(paths_overlap(node.paths, other.paths, optimistic=optimistic) for other in running)
        if len(running) < max_parallel_tasks and free.get(node.role, 0) > 0 and not clash:
            free[node.role] -= 1
            running.append(node)
            started.append(task_id)
    return tuple(started)


def is_plan_complete(states: Mapping[str, str]) -> bool:
    """True when every task is terminal and at least one is done (PL-44)."""
    return all(s in TERMINAL for s in states.values()) and "done" in states.values()


def plan_blockers(
    nodes: Sequence[PlanNode],
    edges: Sequence[PlanEdge],
    *,
    states: Mapping[str, str],
    busy: Collection[str] = (),
    waiting: Collection[str] = (),
    obstacles: Mapping[str, Obstacle] | None = None,
) -> tuple[PlanBlocker, ...]:
    """Why a stalled plan cannot go on, by task; empty while it is not stalled (PL-45).

    Args:
        busy: tasks with a step under way.
        waiting: tasks that wait for a person's approval or a retry timer; that is not a stall.
        obstacles: what keeps a task from going on although its dependencies are done.
    """
    hindered = obstacles or {}
    open_tasks = [n.id for n in nodes if states[n.id] not in TERMINAL]
    if any(i in busy or i in waiting for i in open_tasks):
        return ()
    # A task beyond `todo` that nothing hinders goes on by itself.
    if any(i not in hindered and not (states[i] == "todo" and _unmet(i, edges, states)) for i in open_tasks):
        return ()
    return tuple(_blocker(i, edges, states, hindered) for i in sorted(open_tasks))


def _blocker(
    task_id: str, edges: Sequence[PlanEdge], states: Mapping[str, str], obstacles: Mapping[str, Obstacle]
) -> PlanBlocker:
    if task_id in obstacles:
        return PlanBlocker(task_id, obstacles[task_id])
    return PlanBlocker(task_id, "unmet_dependency", tuple(sorted(_unmet(task_id, edges, states))))


def _unmet(task_id: str, edges: Sequence[PlanEdge], states: Mapping[str, str]) -> set[str]:
    return {e.depends_on for e in edges if e.task == task_id and states.get(e.depends_on) != "done"}
