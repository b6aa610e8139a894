"""The plan graph: validation, cycles, layers, critical path (PL-30..PL-32). No function here fails or loops."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from fleet.planning.coach import Problem

Node = TypeVar("Node", bound=Hashable)


@dataclass(frozen=True, slots=True)
class PlanNode:
    """What the graph needs to know of a task; priority 1 is the highest."""

    id: str
    priority: int
    estimated_hours: int
    role: str = ""
    paths: tuple[str, ...] = ()
    """Repository-relative globs that the task may change; none counts as all (PL-41)."""


@dataclass(frozen=True, slots=True)
class PlanEdge:
    """`task` cannot start before `depends_on` is done."""

    task: str
    depends_on: str
    inferred: bool = False


class PlanLayers(NamedTuple):
    """Tasks that can run side by side, first to last; `cyclic` holds what stands on or behind a cycle."""

    layers: tuple[tuple[str, ...], ...]
    cyclic: tuple[str, ...]


def prerequisites_of(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> dict[str, set[str]]:
    """Task -> the tasks it directly needs. Edges with an unknown end are left out (they are a problem of their own)."""
    prerequisites: dict[str, set[str]] = {n.id: set() for n in nodes}
    for edge in edges:
        if edge.task in prerequisites and edge.depends_on in prerequisites:
            prerequisites[edge.task].add(edge.depends_on)
    return prerequisites


def validate_graph(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> list[Problem]:
    """Every unknown end, self-dependency, duplicate edge, and one cycle with its tasks in order (PL-30)."""
    task_ids, seen = {n.id for n in nodes}, set[tuple[str, str]]()
    problems: list[Problem] = []
    for edge in edges:
        pair = (edge.task, edge.depends_on)
        if unknown := [e for e in pair if e not in task_ids]:
            problems.append(_edge_problem(edge, f"there is no task {unknown[0]}"))
        elif edge.task == edge.depends_on:
            problems.append(_edge_problem(edge, "it depends on itself"))
        elif pair in seen:
            problems.append(_edge_problem(edge, "the dependency is listed twice"))
        seen.add(pair)
    needs = {task: needed - {task} for task, needed in prerequisites_of(nodes, edges).items()}
    if cycle := find_cycle(sorted(needs), needs):
        path = " -> ".join((*cycle, cycle[0]))
        problems.append(Problem(code="plan_cycle", message=f"the dependencies form a cycle: {path}", ids=tuple(cycle)))
    return problems


def _edge_problem(edge: PlanEdge, reason: str) -> Problem:
    return Problem(
        code="task_dependency",
        message=f"task {edge.task} on {edge.depends_on}: {reason}",
        ids=(edge.task, edge.depends_on),
    )


def find_cycle(order: Sequence[Node], needs: Mapping[Node, Collection[Node]]) -> list[Node]:
    """The tasks of one cycle, each needing the next, from the one that is first in `order`. Empty without a cycle."""
    rank = {node: i for i, node in enumerate(order)}
    finished: set[Node] = set()
    for start in order:
        cycle = _cycle_from(start, needs, rank, finished)
        if cycle:
            first = cycle.index(min(cycle, key=rank.__getitem__))
            return cycle[first:] + cycle[:first]
    return []


def _cycle_from(
    start: Node, needs: Mapping[Node, Collection[Node]], rank: Mapping[Node, int], finished: set[Node]
) -> list[Node]:
    """Depth-first search without recursion, so that a long chain cannot exhaust the stack."""
    if start in finished:
        return []
    path, on_path = [start], {start}
    pending = [iter(sorted(needs[start], key=rank.__getitem__))]
    while path:
        following = next(pending[-1], None)
        if following is None:
            finished.add(path[-1])
            on_path.discard(path.pop())
            pending.pop()
        elif following in on_path:
            return path[path.index(following) :]
        elif following not in finished:
            path.append(following)
            on_path.add(following)
            pending.append(iter(sorted(needs[following], key=rank.__getitem__)))
    return []


def reaches(start: Node, goal: Node, needs: Mapping[Node, Collection[Node]]) -> bool:
    """True when `start` needs `goal`, directly or through others."""
    seen: set[Node] = set()
    todo = [start]
    while todo:
        for needed in needs[todo.pop()]:
            if needed == goal:
                return True
            if needed not in seen:
                seen.add(needed)
                todo.append(needed)
    return False


def plan_layers(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> PlanLayers:
    """Layers by Kahn's algorithm, ordered by (priority, id), so that every machine gives the same (PL-31)."""
    needs = prerequisites_of(nodes, edges)
    left = {n.id: n for n in sorted(nodes, key=_by_priority)}
    layers: list[tuple[str, ...]] = []
    while ready := tuple(i for i in left if not needs[i] & left.keys()):
        layers.append(ready)
        for task_id in ready:
            del left[task_id]
    return PlanLayers(tuple(layers), tuple(left))


def _by_priority(node: PlanNode) -> tuple[int, str]:
    return node.priority, node.id


def remaining_hours(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> dict[str, int]:
    """Task -> hours of the longest chain that starts with it; on a cycle only its own hours."""
    hours = {n.id: n.estimated_hours for n in nodes}
    following = _dependents(nodes, edges)
    total = dict(hours)
    for layer in reversed(plan_layers(nodes, edges).layers):
        for task_id in layer:
            total[task_id] += max((total[i] for i in following[task_id]), default=0)
    return total


def critical_path(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> tuple[str, ...]:
    """The longest chain by estimated hours, ties by task id; tasks on or behind a cycle are left out (PL-32)."""
    acyclic = {i for layer in plan_layers(nodes, edges).layers for i in layer}
    kept = [n for n in nodes if n.id in acyclic]
    total, following = remaining_hours(kept, edges), _dependents(kept, edges)
    path: list[str] = []
    candidates: Collection[str] = acyclic
    while candidates:
        path.append(min(candidates, key=lambda i: (-total[i], i)))
        candidates = following[path[-1]]
    return tuple(path)


def _dependents(nodes: Sequence[PlanNode], edges: Sequence[PlanEdge]) -> dict[str, set[str]]:
    dependents: dict[str, set[str]] = {n.id: set() for n in nodes}
    for task, needed in prerequisites_of(nodes, edges).items():
        for other in needed:
            dependents[other].add(task)
    return dependents


MAX_GLOB = 200


def is_repository_glob(text: str) -> bool:
    """True for a glob that stays inside the repository: relative, no `..`, no empty part, at most 200 characters."""
    if not 0 < len(text) <= MAX_GLOB or "\\" in text or not text.isprintable() or text != text.strip():
        return False
    parts = text.removesuffix("/").split("/")
    return all(p not in ("", ".", "..") and p.lower() != ".git" for p in parts)


def paths_overlap(first: Sequence[str], second: Sequence[str], *, optimistic: bool = False) -> bool:
    """True unless the two sets of globs cannot name one file (PL-41).

    A glob that names a folder covers all below it. Where exactness would cost more than it gives (`[...]`), the
    answer errs towards True.

    Args:
        optimistic: a task without paths then overlaps nothing instead of everything.
    """
    if not first or not second:
        return not optimistic
    return any(_overlap(_parts(a), _parts(b)) for a in first for b in second)


def _parts(glob: str) -> tuple[str, ...]:
    parts: list[str] = []
    for part in glob.strip("/").split("/"):
        # Two `**` in a row say no more than one and would cost exponential time.
        if part != "**" or parts[-1:] != ["**"]:
            parts.append(part)
    return tuple(parts)


@lru_cache(maxsize=1 << 16)
def _overlap(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    if not a or not b:
        return True  # the shorter one is a folder above the other
    if a[0] == "**":
        return _overlap(a[1:], b) or _overlap(a, b[1:])
    if b[0] == "**":
        return _overlap(a, b[1:]) or _overlap(a[1:], b)
    return _parts_meet(a[0], b[0]) and _overlap(a[1:], b[1:])


def _parts_meet(a: str, b: str) -> bool:
    """True when some name matches both patterns of one path part.

    `reached` holds the positions in `b` that some common beginning can lead to.
    """
    if "[" in a or "[" in b or "{" in a or "{" in b:
        return True
    reached = _skip_stars({0}, b)
    for char in a:
        if char == "*":
            reached = set(range(min(reached, default=len(b) + 1), len(b) + 1))
        else:
            steps = {i if b[i] == "*" else i + 1 for i in reached if i < len(b) and _same(char, b[i])}
            reached = _skip_stars(steps, b)
    return len(b) in reached


def _same(a: str, b: str) -> bool:
    return a == b or a == "?" or b in "?*"


def _skip_stars(positions: set[int], pattern: str) -> set[int]:
    reached = set(positions)
    for i in positions:
        while i < len(pattern) and pattern[i] == "*":
            i += 1
            reached.add(i)
    return reached
