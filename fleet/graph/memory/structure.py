"""The named queries about how decisions, tasks and files hang together, answered in memory (GR-81, GR-83..GR-94)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from fleet.graph.batch import NodeKey
from fleet.graph.memory.view import GraphView, Params, Row, ends_of, ids_of, picked
from fleet.graph.schema import Label, Rel


def _critical_decisions(graph: GraphView, p: Params) -> list[Row]:
    plans = graph.outgoing(NodeKey(Label.STORY, p["story_id"]), Rel.HAS_PLAN)
    rows = [row for plan, has in plans if has.get("current") is True for row in _degrees(graph, plan)]
    return sorted(rows, key=lambda row: (-row["degree"], row["created_at"], row["id"]))[: p["limit"]]


def _degrees(graph: GraphView, plan: NodeKey) -> Iterable[Row]:
    inside, planned = (ends_of(graph.outgoing(plan, kind)) for kind in (Rel.CONTAINS_DECISION, Rel.HAS_TASK))
    for key in inside:
        if graph.nodes[key]["stub"]:
            continue
        counts = {
            "dependents": len(ends_of(graph.incoming(key, Rel.DEPENDS_ON)) & inside),
            "governed_by": len(ends_of(graph.incoming(key, Rel.GOVERNS)) & inside),
            "affects": len(ends_of(graph.outgoing(key, Rel.AFFECTS)) & planned),
        }
        named = picked(graph.nodes[key], ("id", "title", "category", "status", "created_at"))
        yield {**named, **counts, "degree": sum(counts.values())}


def _decision_dependencies(graph: GraphView, p: Params) -> list[Row]:
    decisions = ids_of(graph.outgoing(NodeKey(Label.STORY, p["story_id"]), Rel.HAS_DECISION))
    edges = [(d, n) for d in decisions for n in ids_of(graph.outgoing(NodeKey(Label.DECISION, d), Rel.DEPENDS_ON))]
    return [{"id": id, "needs": needs} for id, needs in sorted(edges)[: p["limit"]]]


def _plan_tasks(graph: GraphView, p: Params) -> list[Row]:
    tasks = sorted(ends_of(graph.outgoing(NodeKey(Label.PLAN_VERSION, p["plan_id"]), Rel.HAS_TASK)))
    return [
        {
            **picked(graph.nodes[task], ("id", "title", "role", "state", "priority", "estimated_hours")),
            "needs": [o.id for o, need in graph.outgoing(task, Rel.DEPENDS_ON) if need.get("plan_id") == p["plan_id"]],
        }
        for task in tasks[: p["limit"]]
    ]


def _touching(graph: GraphView, p: Params) -> set[NodeKey]:
    files = [key for key, props in graph.nodes.items() if key.label == Label.FILE and props.get("path") == p["path"]]
    return {task for file in files for task in ends_of(graph.incoming(file, Rel.TOUCHED))}


def _path_history_tasks(graph: GraphView, p: Params) -> list[Row]:
    return _history(graph, p, _touching(graph, p), "title", "state", ("done_at", "created_at"))


def _path_history_decisions(graph: GraphView, p: Params) -> list[Row]:
    decisions = {key for task in _touching(graph, p) for key in ends_of(graph.incoming(task, Rel.AFFECTS))}
    return _history(graph, p, decisions, "title", "status", ("decided_at", "created_at"))


def _path_history_runs(graph: GraphView, p: Params) -> list[Row]:
    runs = {key for task in _touching(graph, p) for key in ends_of(graph.incoming(task, Rel.PART_OF))}
    return _history(graph, p, runs, "tool", "outcome", ("finished_at", "started_at"))


def _history(
    graph: GraphView, p: Params, keys: Iterable[NodeKey], title: str, state: str, times: tuple[str, ...]
) -> list[Row]:
    rows: list[Row] = []
    for key in keys:
        node = graph.nodes[key]
        at = next((node[name] for name in times if node.get(name) is not None), None)
        named = {"story_id": node.get("story_id"), "title": node.get(title), "state": node.get(state)}
        rows.append({"kind": str(key.label), "id": key.id, **named, "at": at})
    return sorted(rows, key=lambda row: (-(row["at"] or 0), row["id"]))[: p["limit"]]


def _accepted_decisions(graph: GraphView, p: Params) -> list[Row]:
    columns = ("id", "story_id", "project_id", "title", "category", "rationale", "alternatives", "decided_at")
    rows = [
        picked(node, columns)
        for key, node in graph.nodes.items()
        if key.label == Label.DECISION
        and node.get("category") == p["category"]
        and node.get("status") == "ACCEPTED"
        and p["project_id"] in (None, node.get("project_id"))
    ]
    return sorted(rows, key=lambda row: (-(row["decided_at"] or 0), row["id"]))[: p["limit"]]


STRUCTURE_ANSWERS: Mapping[str, Callable[[GraphView, Params], list[Row]]] = MappingProxyType(
    {
        "critical_decisions": _critical_decisions,
        "decision_dependencies": _decision_dependencies,
        "plan_tasks": _plan_tasks,
        "path_history_tasks": _path_history_tasks,
        "path_history_decisions": _path_history_decisions,
        "path_history_runs": _path_history_runs,
        "accepted_decisions": _accepted_decisions,
    }
)
"""Each statement by its name, as the Cypher files are named."""
