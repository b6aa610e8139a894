"""The named queries, answered over nodes and relationships in memory (GR-80..GR-89)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fleet.graph.batch import NodeKey
from fleet.graph.memory.stories import STORY_ANSWERS
from fleet.graph.memory.structure import STRUCTURE_ANSWERS
from fleet.graph.memory.view import GraphView, Params, Row, ends_of, ids_of, picked
from fleet.graph.schema import Label, Rel


def _columns(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_DECISION = _columns(
    "id story_id title category status origin rationale alternatives created_at decided_at council_id approval_id"
    " decision_hash"
)
_APPROVAL = _columns(
    "id gate role status delegated subject_kind subject_id subject_digest requested_at decided_at notes"
)
_COUNCIL = _columns(
    "id story_id kind status outcome reason rule_version seed quorum decided_in winner verdict estimate tokens_total"
    " tally counterfactuals minority_report_digest decision_hash approval_id"
)
_CANDIDATE = _columns(
    "id digest round gates_ok failed_gates trusted_passed trusted_total cluster_size diff_lines lint_errors tree_digest"
)
_QUESTION = _columns("id story_id kind text severity about_kind about_id asked_at")


def _page(rows: list[Row], p: Params, key: Callable[[Row], Any]) -> list[Row]:
    return sorted(rows, key=key)[p["skip"] : p["skip"] + p["limit"]]


def _trail_of_story(graph: GraphView, p: Params) -> list[Row]:
    return _trail(graph, p, ends_of(graph.outgoing(NodeKey(Label.STORY, p["story_id"]), Rel.HAS_DECISION)))


def _trail_of_task(graph: GraphView, p: Params) -> list[Row]:
    return _trail(graph, p, ends_of(graph.incoming(NodeKey(Label.TASK, p["task_id"]), Rel.AFFECTS)))


def _trail_of_path(graph: GraphView, p: Params) -> list[Row]:
    files = [key for key, props in graph.nodes.items() if key.label == Label.FILE and props.get("path") == p["path"]]
    tasks = {key for file in files for key in ends_of(graph.incoming(file, Rel.TOUCHED))}
    return _trail(graph, p, {key for task in tasks for key in ends_of(graph.incoming(task, Rel.AFFECTS))})


def _trail(graph: GraphView, p: Params, decisions: set[NodeKey]) -> list[Row]:
    rows = [_decision(graph, key) for key in decisions if _is_asked_for(graph.nodes[key], p)]
    return _page(rows, p, lambda row: (p["never"] if row["decided_at"] is None else row["decided_at"], row["id"]))


def _is_asked_for(node: Mapping[str, Any], p: Params) -> bool:
    at = node.get("decided_at")
    return (
        not node["stub"]
        and p["status"] in (None, node.get("status"))
        and (p["from"] is None or (at is not None and at >= p["from"]))
        and (p["to"] is None or (at is not None and at <= p["to"]))
    )


def _decision(graph: GraphView, key: NodeKey) -> Row:
    decided = graph.outgoing(key, Rel.DECIDED_BY)
    return {
        **picked(graph.nodes[key], _DECISION),
        "author": next(iter(ids_of(graph.outgoing(key, Rel.AUTHORED_BY))), None),
        "decided_by": [{"principal": a.id, **picked(r, ("as_role", "verdict", "at"))} for a, r in decided],
        "evidence": [
            {"kind": str(end.label), "id": end.id, "verdict": _verdict(graph, end)}
            for end, _ in graph.outgoing(key, Rel.BASED_ON)
        ],
        "tasks": ids_of(graph.outgoing(key, Rel.AFFECTS)),
        "supersedes": ids_of(graph.outgoing(key, Rel.SUPERSEDES)),
    }


def _verdict(graph: GraphView, key: NodeKey) -> Any:
    """The verdict of a report, that of the report of a run, or else the outcome of the run."""
    node, reports = graph.nodes[key], (graph.nodes[end] for end, _ in graph.outgoing(key, Rel.REPORTED))
    verdicts = [node.get("verdict"), *(report.get("verdict") for report in reports), node.get("outcome")]
    return next((verdict for verdict in verdicts if verdict is not None), None)


def _who_approved(graph: GraphView, p: Params) -> list[Row]:
    rows = [
        {
            **picked(node, _APPROVAL),
            "decided_by": [
                {"principal": a.id, **picked(r, ("as_role", "at"))} for a, r in graph.outgoing(key, Rel.DECIDED_BY)
            ],
        }
        for key, node in graph.nodes.items()
        if key.label == Label.APPROVAL
        and not node["stub"]
        and node.get("story_id") == p["story_id"]
        and p["gate"] in (None, node.get("gate"))
    ]
    return _page(rows, p, lambda row: (row["requested_at"], row["id"]))


def _council_record(graph: GraphView, p: Params) -> list[Row]:
    key = NodeKey(Label.COUNCIL, p["council_id"])
    return [
        {
            **picked(graph.nodes[key], _COUNCIL),
            "about": ids_of(graph.outgoing(key, Rel.ABOUT)),
            "decisions": ids_of(graph.incoming(key, Rel.RESULT_OF)),
            "candidates": [_candidate(graph, end, r) for end, r in graph.outgoing(key, Rel.CONSIDERED)],
            "ballots": [
                picked(graph.nodes[end], ("id", "round", "voter", "votes", "ranking"))
                for end, _ in graph.outgoing(key, Rel.HAS_BALLOT)
            ],
        }
    ]


def _candidate(graph: GraphView, key: NodeKey, considered: Mapping[str, Any]) -> Row:
    author = next(iter(ids_of(graph.outgoing(key, Rel.AUTHORED_BY))), None)
    return {
        **picked(graph.nodes[key], _CANDIDATE),
        "author": author,
        "winner": considered.get("winner", False),
    }


def _unanswered_questions(graph: GraphView, p: Params) -> list[Row]:
    rows = [
        {
            **picked(node, _QUESTION),
            "age_ms": p["now_ms"] - node["asked_at"],
            "asked_by": ids_of(graph.outgoing(key, Rel.ASKED_BY)),
            "blocking": [t.id for t, b in graph.incoming(key, Rel.BLOCKED_BY) if b.get("removed_v") is None],
        }
        for key, node in graph.nodes.items()
        if key.label == Label.QUESTION
        and node.get("status") == "open"
        and p["story_id"] in (None, node.get("story_id"))
        and p["severity"] in (None, node.get("severity"))
        and node["asked_at"] <= p["asked_before"]
    ]
    return _page(rows, p, lambda row: (row["severity"] != "blocking", row["asked_at"], row["id"]))


def _impact_decisions(graph: GraphView, p: Params) -> list[Row]:
    steps = _dependents(graph, p)
    rows = [_reached(graph, key, n, "title", "status") for key, n in steps.items() if n > 0]
    return _nearest(rows, p)


def _impact_tasks(graph: GraphView, p: Params) -> list[Row]:
    return _nearest([_reached(graph, t, n + 1, "title", "state") for t, n in _tasks(graph, p).items()], p)


def _impact_around(graph: GraphView, p: Params) -> list[Row]:
    distances: dict[NodeKey, int] = {}
    for task, steps in _tasks(graph, p).items():
        near = ends_of(graph.outgoing(task, Rel.TOUCHED)) | ends_of(graph.outgoing(task, Rel.COVERS))
        for key in near | ends_of(graph.incoming(task, Rel.PART_OF)):
            distances[key] = min(steps + 2, distances.get(key, steps + 2))
    return _nearest([_reached(graph, key, n, "path text tool", "status outcome") for key, n in distances.items()], p)


def _tasks(graph: GraphView, p: Params) -> dict[NodeKey, int]:
    distances: dict[NodeKey, int] = {}
    for decision, steps in _dependents(graph, p).items():
        for task in ends_of(graph.outgoing(decision, Rel.AFFECTS)):
            distances[task] = min(steps, distances.get(task, steps))
    return distances


def _dependents(graph: GraphView, p: Params) -> dict[NodeKey, int]:
    """Each decision that depends on the asked one within `depth` steps, and by how many; the asked one by none."""
    distances = {NodeKey(Label.DECISION, p["decision_id"]): 0}
    ring = list(distances)
    for distance in range(1, p["depth"] + 1):
        ring = [x for key in ring for x in ends_of(graph.incoming(key, Rel.DEPENDS_ON)) if x not in distances]
        distances |= dict.fromkeys(ring, distance)
    return distances


def _reached(graph: GraphView, key: NodeKey, distance: int, titles: str, states: str) -> Row:
    node = graph.nodes[key]
    return {
        "kind": str(key.label),
        "id": key.id,
        "distance": distance,
        "title": next((node[name] for name in titles.split() if name in node), None),
        "state": next((node[name] for name in states.split() if name in node), None),
    }


def _nearest(rows: list[Row], p: Params) -> list[Row]:
    return sorted(rows, key=lambda row: (row["distance"], row["id"]))[: p["limit"]]


ANSWERS: Mapping[str, Callable[[GraphView, Params], list[Row]]] = MappingProxyType(
    {
        "decision_trail_of_story": _trail_of_story,
        "decision_trail_of_task": _trail_of_task,
        "decision_trail_of_path": _trail_of_path,
        "who_approved": _who_approved,
        "council_record": _council_record,
        "unanswered_questions": _unanswered_questions,
        "unanswered_questions_of_story": _unanswered_questions,
        "decision_impact_decisions": _impact_decisions,
        "decision_impact_tasks": _impact_tasks,
        "decision_impact_around": _impact_around,
        **STRUCTURE_ANSWERS,
        **STORY_ANSWERS,
    }
)
"""Each statement of a named query by its name, as the Cypher files are named."""
