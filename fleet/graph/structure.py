"""Named queries about how decisions, tasks and files hang together (GR-81, GR-83, GR-84, GR-92, GR-94)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from fleet.graph.query import MAX_PAGE, NodeId, Query
from fleet.graph.schema import Label
from fleet.knowledge.rank import ask
from fleet.knowledge.words import terms_of, words_in
from fleet.planning.graph import PlanEdge, PlanNode, plan_layers

MAX_CYCLE = 6
"""Decisions of a cycle that is looked for (GR-83)."""
_MAX_CYCLES, _MAX_CRITICAL, _MAX_SIMILAR = 20, 10, 20
_MAX_EDGES, _MAX_TASKS, _MAX_CANDIDATES = 5_000, 2_000, 2_000
_MAX_STEPS = 100_000
"""Edges that are followed in search of cycles: a dense graph has more paths than anybody can wait for."""


class CriticalDecisions(Query):
    """Decisions of the adopted plan version alone, by how much hangs on them (GR-81, GR-97).

    `degree` is the sum of `dependents` (decisions of the plan that depend on it), `governed_by` (those that govern it)
    and `affects` (tasks of the plan). Then by time of creation and id.
    """

    story_id: NodeId
    limit: Annotated[int, Field(ge=1, le=_MAX_CRITICAL)] = _MAX_CRITICAL

    @property
    def statements(self) -> tuple[str, ...]:
        """One."""
        return ("critical_decisions",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story."""
        return Label.STORY, self.story_id

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit


class DecisionCycles(Query):
    """Cycles of at most six decisions of a story that depend on each other, each once (GR-83).

    `decisions` begins with the smallest id; each one depends on the next and the last on the first. Shorter cycles come
    first. Of a story with more than 5,000 dependencies the first by id are looked at.
    """

    story_id: NodeId
    limit: Annotated[int, Field(ge=1, le=_MAX_CYCLES)] = _MAX_CYCLES

    @property
    def statements(self) -> tuple[str, ...]:
        """One, for the dependencies; cycles are found among them here, so every store finds the same."""
        return ("decision_dependencies",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The story."""
        return Label.STORY, self.story_id

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit

    def params(self) -> dict[str, Any]:
        """With the bound of what is looked at."""
        return {"story_id": self.story_id, "limit": _MAX_EDGES}

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One row for each cycle."""
        needs: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            needs[row["id"]].append(row["needs"])
        return [{"decisions": list(cycle), "length": len(cycle)} for cycle in cycles_of(needs, limit=self.limit)]


def cycles_of(needs: Mapping[str, Sequence[str]], *, limit: int) -> list[tuple[str, ...]]:
    """At most `limit` simple cycles of at most six nodes, the shortest first, each once from its smallest node on."""
    cycles: list[tuple[str, ...]] = []
    steps = 0
    paths: list[tuple[str, ...]] = [(node,) for node in sorted(needs)]
    for _ in range(MAX_CYCLE):
        longer: list[tuple[str, ...]] = []
        for path in paths:
            for following in sorted(needs.get(path[-1], ())):
                steps += 1
                if steps > _MAX_STEPS or len(cycles) == limit:
                    return cycles
                if following == path[0]:
                    cycles.append(path)
                elif following > path[0] and following not in path:
                    longer.append((*path, following))
        paths = longer
    return cycles


class PlanLayerRows(Query):
    """The layers of a plan, first to last: tasks that can run side by side (GR-84, PL-31).

    The tasks of a row are in order of priority and id. What stands on or behind a cycle is a last row, `is_cyclic`.
    """

    rows = ("needs",)

    plan_id: NodeId

    @property
    def statements(self) -> tuple[str, ...]:
        """One, for the tasks and what they need."""
        return ("plan_tasks",)

    @property
    def subject(self) -> tuple[Label, str] | None:
        """The plan version."""
        return Label.PLAN_VERSION, self.plan_id

    def params(self) -> dict[str, Any]:
        """With the bound of what is looked at."""
        return {"plan_id": self.plan_id, "limit": _MAX_TASKS}

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """One row for each layer."""
        tasks = {row["id"]: row for row in rows}
        # A task that is no more than named by the plan has no priority yet; it goes last within its layer.
        nodes = [PlanNode(row["id"], row["priority"] or MAX_PAGE, row["estimated_hours"] or 0) for row in rows]
        edges = [PlanEdge(row["id"], need) for row in rows for need in row["needs"]]
        layers = plan_layers(nodes, edges)
        numbered = [(layer, False) for layer in layers.layers] + ([(layers.cyclic, True)] if layers.cyclic else [])
        return [
            {"layer": number, "is_cyclic": is_cyclic, "tasks": [tasks[task] for task in layer]}
            for number, (layer, is_cyclic) in enumerate(numbered)
        ]


class PathHistory(Query):
    """What touched a file or concerns it, the newest first, then by id (GR-92): tasks, their decisions, their runs."""

    path: NodeId
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = MAX_PAGE

    @property
    def statements(self) -> tuple[str, ...]:
        """One for each kind."""
        return ("path_history_tasks", "path_history_decisions", "path_history_runs")

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All kinds in one order; what has no time comes last."""
        return sorted(rows, key=lambda row: (-(row["at"] or 0), row["id"]))


class SimilarDecisions(Query):
    """Accepted decisions of one category, by how many of the keywords they hold, then the newest first (GR-94).

    Words meet in their base form. Without keywords all are equal; with some, a decision that holds none is left out.
    """

    category: NodeId
    keywords: Annotated[str, Field(max_length=1_000)] = ""
    project_id: NodeId | None = None
    limit: Annotated[int, Field(ge=1, le=_MAX_SIMILAR)] = _MAX_SIMILAR

    @property
    def statements(self) -> tuple[str, ...]:
        """One, for the newest decisions of the category."""
        return ("accepted_decisions",)

    @property
    def max_rows(self) -> int:
        """The bound of the answer."""
        return self.limit

    def params(self) -> dict[str, Any]:
        """With the bound of what is looked at."""
        return {"category": self.category, "project_id": self.project_id, "limit": _MAX_CANDIDATES}

    def shaped(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """With `matches`, how many keywords each holds."""
        terms = ask(self.keywords).terms.keys()
        scored = [{**row, "matches": len(terms & _terms(row))} for row in rows]
        kept = [row for row in scored if row["matches"] or not terms]
        return sorted(kept, key=lambda row: (-row["matches"], -(row["decided_at"] or 0), row["id"]))


def _terms(row: Mapping[str, Any]) -> set[str]:
    texts = (row["title"], row["rationale"], *(row["alternatives"] or ()))
    return {term for text in texts for word in words_in(text or "") for term in terms_of(word)}
