"""In-memory twin of the port DecisionGraph."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from fleet.adapters.memory.graph_queries import ANSWERS
from fleet.errors import StoreUnavailable
from fleet.events import GENESIS_HASH
from fleet.graph import (
    Cursor,
    GraphChange,
    NodeChange,
    NodeKey,
    RelationChange,
    RelationKey,
    RelationsClosed,
    graph_digest,
    plan_query,
)
from fleet.ids import StreamId

__all__ = ["MemoryGraph"]


class MemoryGraph:
    """Nodes and relationships kept as long as the object. Implements the port DecisionGraph.

    Changes are applied one by one, not folded, so that it checks the folding of the real one.
    """

    def __init__(self) -> None:
        self.nodes: dict[NodeKey, dict[str, Any]] = {}
        self.relations: dict[RelationKey, dict[str, Any]] = {}
        self.is_down = False
        """While true every call raises StoreUnavailable."""
        self._cursors: dict[StreamId, Cursor] = {}

    async def cursor(self, stream: StreamId) -> Cursor:
        """How far the stream is projected."""
        await self._answering()
        return self._cursors.get(stream, Cursor(0, GENESIS_HASH))

    async def apply(
        self, stream: StreamId, changes: Sequence[GraphChange], *, expected: Cursor, reached: Cursor
    ) -> bool:
        """The changes and `reached` are stored together if the cursor still is `expected`."""
        await self._answering()
        if self._cursors.get(stream, Cursor(0, GENESIS_HASH)) != expected:
            return False
        for change in changes:
            match change:
                case NodeChange():
                    self._set_node(NodeKey(str(change.label), str(change.id)), change.props)
                case RelationChange():
                    self._set_relation(change)
                case RelationsClosed():
                    self._close(change)
        self._cursors[stream] = reached
        return True

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95)."""
        plan = plan_query(name, params)
        await self._answering()
        if plan.subject is not None and NodeKey(*plan.subject) not in self.nodes:
            raise plan.not_found()
        return plan.answer([row for statement in plan.statements for row in ANSWERS[statement](self, plan.params)])

    async def digest(self) -> str:
        """64 hex digits over all nodes and relationships."""
        await self._answering()
        return graph_digest(
            [(key.label, props) for key, props in self.nodes.items()],
            [
                (key.type, key.start.label, key.start.id, key.end.label, key.end.id, props)
                for key, props in self.relations.items()
            ],
        )

    def outgoing(self, start: NodeKey, kind: str) -> Iterator[tuple[NodeKey, dict[str, Any]]]:
        """Ends and properties of the relationships of this type that start here."""
        return ((key.end, props) for key, props in self.relations.items() if key.type == kind and key.start == start)

    def incoming(self, end: NodeKey, kind: str) -> Iterator[tuple[NodeKey, dict[str, Any]]]:
        """Starts and properties of the relationships of this type that end here."""
        return ((key.start, props) for key, props in self.relations.items() if key.type == kind and key.end == end)

    async def _answering(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailable("the graph is switched off: set `is_down` to false")

    def _set_node(self, key: NodeKey, props: dict[str, Any]) -> None:
        node = self.nodes.setdefault(key, {"id": key.id, "stub": True})
        node.update(props)
        _drop_absent(node)

    def _set_relation(self, change: RelationChange) -> None:
        key = RelationKey.of(change)
        self._set_node(key.start, {})
        self._set_node(key.end, {})
        relation = self.relations.setdefault(key, dict(change.key))
        relation.update(change.props)
        _drop_absent(relation)

    def _close(self, closed: RelationsClosed) -> None:
        for key, props in self.relations.items():
            if key.is_met_by(closed):
                props.setdefault(closed.mark, closed.value)


def _drop_absent(props: dict[str, Any]) -> None:
    for name in [name for name, value in props.items() if value is None]:
        del props[name]
