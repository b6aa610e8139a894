"""Graphs drawn by hand, in the graph under test and in the twin that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleet.events.envelope import GENESIS_HASH
from fleet.graph.changes import Cursor, GraphChange, NodeChange, RelationChange
from fleet.graph.memory.graph import MemoryGraph
from fleet.graph.port import DecisionGraph
from fleet.kernel.ids import StreamId
from tests.support.graphs import canonical, fresh


class Drawn:
    """A graph of one story, drawn by hand; every id ends in a part of its own."""

    def __init__(self) -> None:
        self.part = fresh()
        self.changes: list[GraphChange] = []
        self.story = self.id("st")

    def id(self, name: str) -> str:
        return f"{name}-{self.part}"

    def node(self, label: str, name: str, /, **props: Any) -> str:
        node_id = self.id(name)
        self.changes.append(NodeChange(label, node_id, {"stub": False, "story_id": self.story, **props}))
        return node_id

    def link(self, kind: str, start: tuple[str, str], end: tuple[str, str], **props: Any) -> None:
        key = {name: props.pop(name) for name in ("plan_id", "v") if name in props}
        ends = (start[0], self.id(start[1]), end[0], self.id(end[1]))
        self.changes.append(RelationChange(kind, *ends, key=key, props=props))

    def decision(self, name: str, plan: str, *, needs: Sequence[str] = (), **props: Any) -> str:
        found = self.node("Decision", name, title=name, category="ARCHITECTURE", status="ACCEPTED", **props)
        self.link("HAS_DECISION", ("Story", "st"), ("Decision", name))
        self.link("CONTAINS_DECISION", ("PlanVersion", plan), ("Decision", name))
        for other in needs:
            self.link("DEPENDS_ON", ("Decision", name), ("Decision", other))
        return found

    async def into(self, graph: DecisionGraph) -> MemoryGraph:
        """It is in the graph, and in a twin to compare with."""
        twin = MemoryGraph()
        stream = StreamId(f"story:{self.story}")
        for where in (graph, twin):
            assert await where.apply(
                stream, self.changes, expected=Cursor(0, GENESIS_HASH), reached=Cursor(1, "1".rjust(64, "0"))
            )
        return twin

    async def ask(self, graph: DecisionGraph, twin: MemoryGraph, name: str, **params: Any) -> list[dict[str, Any]]:
        """The answer, which is the twin's too; ids without this graph's own part."""
        found = await graph.query(name, params)
        assert canonical(found) == canonical(await twin.query(name, params))
        return found

    def short(self, node_id: str) -> str:
        return node_id.removesuffix(f"-{self.part}")
