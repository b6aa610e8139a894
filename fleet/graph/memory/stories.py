"""The named queries about whole stories, projects and actors, answered in memory (GR-85, GR-86, GR-90..GR-95)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from fleet.graph.batch import NodeKey
from fleet.graph.memory.view import GraphView, Params, Row, ends_of, picked
from fleet.graph.schema import Label, Rel

_DAY_MS = 86_400_000
_HEADER = ("id", "project_id", "title", "state", "disposition", "rigor", "lifecycle", "version", "created_at")
_PLAN = ("id", "version", "status", "author_id", "rationale", "digest", "created_at")
_TASK = ("id", "title", "role", "kind", "state", "priority", "estimated_hours", "risk", "done_at")
_DECISION = ("id", "title", "rationale", "category", "status", "created_at", "decided_at")
_APPROVAL = ("id", "gate", "role", "status", "delegated", "requested_at", "decided_at")
_COUNCIL = ("id", "kind", "status", "outcome", "reason", "tokens_total", "minority_report_digest")
_LINKS = (Rel.DEPENDS_ON, Rel.GOVERNS, Rel.RELATES_TO, Rel.SUPERSEDES)


def _header(graph: GraphView, p: Params) -> list[Row]:
    key = _story(p)
    criteria = [
        {"id": c.id, **picked(graph.nodes[c], ("text", "position", "status"))}
        for c, has in graph.outgoing(key, Rel.HAS_CRITERION)
        if has.get("removed_v") is None
    ]
    constraints = [
        picked(graph.nodes[c], ("key", "value"))
        for c, has in graph.outgoing(key, Rel.HAS_CONSTRAINT)
        if has.get("removed_v") is None
    ]
    properties = picked(graph.nodes[key], (*_HEADER, "closed_at", "tree_digest"))
    return [{"part": "story", **properties, "criteria": criteria, "constraints": constraints}]


def _plans(graph: GraphView, p: Params) -> list[Row]:
    rows: list[Row] = [
        {"part": "plan", **picked(graph.nodes[plan], _PLAN), "current": has.get("current", False)}
        for plan, has in graph.outgoing(_story(p), Rel.HAS_PLAN)
    ]
    return sorted(rows, key=lambda row: (-(row["version"] or 0), row["id"]))[: p["limit"]]


def _tasks(graph: GraphView, p: Params) -> list[Row]:
    rows = [
        _task(graph, plan, task)
        for plan in ends_of(graph.outgoing(_story(p), Rel.HAS_PLAN))
        for task in ends_of(graph.outgoing(plan, Rel.HAS_TASK))
    ]
    return sorted(rows, key=lambda row: (row["plan_id"], row["id"]))[: p["limit"]]


def _task(graph: GraphView, plan: NodeKey, task: NodeKey) -> Row:
    needs = [o.id for o, need in graph.outgoing(task, Rel.DEPENDS_ON) if need.get("plan_id") == plan.id]
    blocked = [
        {"kind": str(other.label), "id": other.id, "reason": by.get("reason")}
        for other, by in graph.outgoing(task, Rel.BLOCKED_BY)
        if by.get("removed_v") is None
    ]
    properties = picked(graph.nodes[task], _TASK)
    return {"part": "task", "plan_id": plan.id, **properties, "needs": needs, "blocked_by": blocked}


def _decisions(graph: GraphView, p: Params) -> list[Row]:
    decisions = [key for key in ends_of(graph.outgoing(_story(p), Rel.HAS_DECISION)) if not graph.nodes[key]["stub"]]
    rows = [_decision(graph, key) for key in decisions]
    return sorted(rows, key=lambda row: (row["created_at"] or 0, row["id"]))[: p["limit"]]


def _decision(graph: GraphView, key: NodeKey) -> Row:
    authors = [author.id for author, _ in graph.outgoing(key, Rel.AUTHORED_BY)]
    tasks = [
        {"id": task.id, "title": graph.nodes[task].get("title")} for task in ends_of(graph.outgoing(key, Rel.AFFECTS))
    ]
    links = [{"rel": str(kind), "dst": end.id} for kind in _LINKS for end, _ in graph.outgoing(key, kind)]
    properties = picked(graph.nodes[key], _DECISION)
    return {
        "part": "decision",
        **properties,
        "author_id": authors[0] if authors else None,
        "tasks": tasks,
        "links": links,
    }


def _milestones(graph: GraphView, p: Params) -> list[Row]:
    rows: list[Row] = [
        {"part": "milestone", **picked(graph.nodes[key], ("id", "name", "ts", "ref")), "v": reached.get("v")}
        for key, reached in graph.outgoing(_story(p), Rel.REACHED)
    ]
    return sorted(rows, key=lambda row: (-row["v"], row["id"]))[: p["milestones"]]


def _questions(graph: GraphView, p: Params) -> list[Row]:
    columns = ("id", "kind", "text", "severity", "asked_at")
    rows = [
        {"part": "question", **picked(node, columns)}
        for _, node in _of_story(graph, Label.QUESTION, p)
        if node.get("status") == "open"
    ]
    return sorted(rows, key=lambda row: (row["asked_at"], row["id"]))[: p["limit"]]


def _approvals(graph: GraphView, p: Params) -> list[Row]:
    rows = [
        {"part": "approval", **picked(node, _APPROVAL)}
        for _, node in _of_story(graph, Label.APPROVAL, p)
        if not node["stub"]
    ]
    return sorted(rows, key=lambda row: (row["requested_at"], row["id"]))[: p["limit"]]


def _councils(graph: GraphView, p: Params) -> list[Row]:
    rows = [
        {"part": "council", **picked(node, _COUNCIL)}
        for _, node in _of_story(graph, Label.COUNCIL, p)
        if not node["stub"]
    ]
    return sorted(rows, key=lambda row: row["id"])[: p["limit"]]


def _runs(graph: GraphView, p: Params) -> list[Row]:
    counts = Counter(node.get("outcome") or "running" for _, node in _begun(graph, p))
    return [{"part": "runs", "outcome": outcome, "number": n} for outcome, n in sorted(counts.items())]


def _activity(part: str, kind: Rel, label: Label) -> Callable[[GraphView, Params], list[Row]]:
    def answer(graph: GraphView, p: Params) -> list[Row]:
        relations = graph.incoming(NodeKey(Label.ACTOR, p["actor_id"]), kind)
        if label is Label.RUN:
            times = [graph.nodes[start].get("started_at") for start, _ in relations if start.label == label]
        else:
            times = [at.get("at") for start, at in relations if start.label == label]
        days = Counter(at // _DAY_MS for at in times if at is not None and p["from"] <= at <= p["to"])
        return [{"part": part, "day": day, "number": days[day]} for day in sorted(days)[: p["limit"]]]

    return answer


def _orphan_criteria(graph: GraphView, p: Params) -> Iterator[Row]:
    closed = graph.nodes[_story(p)].get("closed_at") is not None
    for key, has in graph.outgoing(_story(p), Rel.HAS_CRITERION):
        if has.get("removed_v") is None:
            evidence = not closed or _any(graph.incoming(key, Rel.EVIDENCE_FOR))
            yield _orphan("RP-30", key, task=_any(graph.incoming(key, Rel.COVERS)), evidence=evidence)


def _orphan_tasks(graph: GraphView, p: Params) -> Iterator[Row]:
    for key, node in _of_story(graph, Label.TASK, p):
        if node.get("state") is not None:
            is_open = node["state"] != "done"
            yield _orphan(
                "RP-31",
                key,
                plan=_any(graph.incoming(key, Rel.HAS_TASK)),
                served=_any(graph.outgoing(key, Rel.COVERS)) or _any(graph.incoming(key, Rel.AFFECTS)),
                run=is_open or _any(graph.incoming(key, Rel.PART_OF)),
                reviewer=is_open or _any(graph.outgoing(key, Rel.REVIEWED_BY)),
            )


def _orphan_decisions(graph: GraphView, p: Params) -> Iterator[Row]:
    for key in ends_of(graph.outgoing(_story(p), Rel.HAS_DECISION)):
        node = graph.nodes[key]
        is_proposed = node.get("status", "PROPOSED") == "PROPOSED"
        is_timed = node.get("created_at") is not None
        yield _orphan(
            "RP-32",
            key,
            author=_any(graph.outgoing(key, Rel.AUTHORED_BY)),
            rationale=bool(node.get("rationale")),
            decider=is_proposed or _any(graph.outgoing(key, Rel.DECIDED_BY)),
            time=is_timed and (is_proposed or node.get("decided_at") is not None),
        )


def _orphan_councils(graph: GraphView, p: Params) -> Iterator[Row]:
    for key, node in _of_story(graph, Label.COUNCIL, p):
        if node.get("status") == "DECIDED":
            yield _orphan(
                "RP-33",
                key,
                candidates=_any(graph.outgoing(key, Rel.CONSIDERED)),
                ballots=node.get("tally") is not None or _any(graph.outgoing(key, Rel.HAS_BALLOT)),
                decision_hash=node.get("decision_hash") is not None,
                tokens=node.get("tokens_total") is not None,
            )


def _orphan_runs(graph: GraphView, p: Params) -> Iterator[Row]:
    for key, node in _begun(graph, p):
        yield _orphan(
            "RP-34",
            key,
            principal=_any(graph.outgoing(key, Rel.EXECUTED_BY)),
            rule=node.get("rule_id") is not None,
            effect=node.get("effect") is not None,
            outcome=node.get("finished_at") is None or node.get("outcome") is not None,
        )


def _orphan_approvals(graph: GraphView, p: Params) -> Iterator[Row]:
    for key, node in _of_story(graph, Label.APPROVAL, p):
        is_waiting = node.get("status") in ("requested", "expired")
        yield _orphan(
            "RP-35",
            key,
            gate=node.get("gate") is not None,
            subject=node.get("subject_digest") is not None and _any(graph.outgoing(key, Rel.FOR)),
            decider=is_waiting or _any(graph.outgoing(key, Rel.DECIDED_BY)),
        )


def _orphan_deployments(graph: GraphView, p: Params) -> Iterator[Row]:
    for key in ends_of(graph.outgoing(_story(p), Rel.DEPLOYED_AS)):
        node = graph.nodes[key]
        yield _orphan(
            "RP-38",
            key,
            run=_any(graph.outgoing(key, Rel.BY)),
            outcome=node.get("status") is not None,
            tree=node.get("tree_digest") is not None,
        )


def _bounded(rows: Callable[[GraphView, Params], Iterator[Row]]) -> Callable[[GraphView, Params], list[Row]]:
    return lambda graph, p: sorted(rows(graph, p), key=lambda row: row["id"])[: p["limit"]]


def _open_stories(graph: GraphView, p: Params) -> list[Row]:
    columns = ("id", "title", "state", "disposition", "rigor", "created_at")
    rows = [
        {"part": "story", **picked(node, columns)}
        for key, node in graph.nodes.items()
        if key.label == Label.STORY
        and node.get("project_id") == p["project_id"]
        and node.get("closed_at") is None
        and node.get("disposition") != "archived"
    ]
    return sorted(rows, key=lambda row: row["id"])[: p["limit"]]


def _pending_approvals(graph: GraphView, p: Params) -> list[Row]:
    columns = ("id", "story_id", "gate", "role", "requested_at")
    rows = [
        {"part": "approval", **picked(node, columns)}
        for key, node in graph.nodes.items()
        if key.label == Label.APPROVAL and node.get("status") == "requested"
    ]
    return sorted(rows, key=lambda row: (row["requested_at"], row["id"]))[: p["approvals"]]


def _story(p: Params) -> NodeKey:
    return NodeKey(Label.STORY, p["story_id"])


def _of_story(graph: GraphView, label: Label, p: Params) -> list[tuple[NodeKey, dict[str, Any]]]:
    return [
        (key, node) for key, node in graph.nodes.items() if key.label == label and node.get("story_id") == p["story_id"]
    ]


def _begun(graph: GraphView, p: Params) -> list[tuple[NodeKey, dict[str, Any]]]:
    return [(key, node) for key, node in _of_story(graph, Label.RUN, p) if node.get("started_at") is not None]


def _any(items: Iterable[object]) -> bool:
    return next(iter(items), None) is not None


def _orphan(rule: str, key: NodeKey, /, **links: bool) -> Row:
    return {"rule": rule, "kind": str(key.label), "id": key.id, "links": links}


STORY_ANSWERS: Mapping[str, Callable[[GraphView, Params], list[Row]]] = MappingProxyType(
    {
        "story_header": _header,
        "story_plans": _plans,
        "story_tasks": _tasks,
        "story_decisions": _decisions,
        "story_milestones": _milestones,
        "story_questions": _questions,
        "story_approvals": _approvals,
        "story_councils": _councils,
        "story_runs": _runs,
        "actor_decisions": _activity("decisions", Rel.DECIDED_BY, Label.DECISION),
        "actor_approvals": _activity("approvals", Rel.DECIDED_BY, Label.APPROVAL),
        "actor_reviews": _activity("reviews", Rel.REVIEWED_BY, Label.TASK),
        "actor_runs": _activity("runs", Rel.EXECUTED_BY, Label.RUN),
        "orphan_criteria": _bounded(_orphan_criteria),
        "orphan_tasks": _bounded(_orphan_tasks),
        "orphan_decisions": _bounded(_orphan_decisions),
        "orphan_councils": _bounded(_orphan_councils),
        "orphan_runs": _bounded(_orphan_runs),
        "orphan_approvals": _bounded(_orphan_approvals),
        "orphan_deployments": _bounded(_orphan_deployments),
        "open_stories": _open_stories,
        "pending_approvals": _pending_approvals,
    }
)
"""Each statement by its name, as the Cypher files are named."""
