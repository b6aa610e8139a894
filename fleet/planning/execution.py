"""Which tasks of an adopted plan may start, and when the plan is complete (PL-40..PL-46)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.planning.graph import PlanEdge, PlanNode, paths_overlap, remaining_hours

TERMINAL = frozenset({"done", "cancelled"})


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


def _unmet(task_id: str, edges: Sequence[PlanEdge], states: Mapping[str, str]) -> set[str]:
    return {e.depends_on for e in edges if e.task == task_id and states.get(e.depends_on) != "done"}
