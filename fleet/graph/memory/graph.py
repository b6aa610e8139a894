"""The decision graph in memory, for unit tests and the simulation."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fleet.events.envelope import GENESIS_HASH
from fleet.graph.batch import NodeKey, RelationKey
from fleet.graph.changes import Cursor, GraphChange, NodeChange, RelationChange, RelationsClosed
from fleet.graph.digest import graph_digest
from fleet.graph.memory.queries import ANSWERS
from fleet.graph.projection import ProjectionState, Spare
from fleet.graph.queries import plan_query
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import StreamId


@dataclass(slots=True)
class GraphSlot:
    """What one projection holds. Changes are applied one by one, not folded."""

    nodes: dict[NodeKey, dict[str, Any]] = field(default_factory=dict[NodeKey, dict[str, Any]])
    relations: dict[RelationKey, dict[str, Any]] = field(default_factory=dict[RelationKey, dict[str, Any]])
    cursors: dict[StreamId, Cursor] = field(default_factory=dict[StreamId, Cursor])
    held: dict[StreamId, str] = field(default_factory=dict[StreamId, str])

    def change(self, change: GraphChange) -> None:
        """The change is part of the graph."""
        match change:
            case NodeChange():
                self._set_node(NodeKey(str(change.label), str(change.id)), change.props)
            case RelationChange():
                self._set_relation(change)
            case RelationsClosed():
                self._close(change)

    def drop(self, limit: int) -> int:
        """At most `limit` nodes are gone, with their relationships and, first of all, every cursor; how many."""
        self.cursors.clear()
        self.held.clear()
        gone = set(list(self.nodes)[:limit])
        self.nodes = {key: props for key, props in self.nodes.items() if key not in gone}
        self.relations = {
            key: props for key, props in self.relations.items() if key.start not in gone and key.end not in gone
        }
        return len(gone)

    def digest(self) -> str:
        """64 hex digits over all nodes and relationships."""
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


_GENESIS = Cursor(0, GENESIS_HASH)


class MemoryGraph:
    """Nodes and relationships kept as long as the object. Implements the port DecisionGraph.

    Changes are applied one by one, not folded, so that it checks the folding of the real one.

    Args:
        state: what the graph starts with.
    """

    def __init__(self, state: ProjectionState | None = None) -> None:
        self.is_down = False
        """While true every call raises StoreUnavailable."""
        self._state = state or ProjectionState()
        self._slots: defaultdict[int, GraphSlot] = defaultdict(GraphSlot)

    @property
    def nodes(self) -> dict[NodeKey, dict[str, Any]]:
        """The nodes that queries see."""
        return self._slots[self._state.active].nodes

    @property
    def relations(self) -> dict[RelationKey, dict[str, Any]]:
        """The relationships that queries see."""
        return self._slots[self._state.active].relations

    async def projection(self) -> ProjectionState:
        """Which projection is active, and which is wanted."""
        await self._answering()
        return self._state

    async def move_projection(self, expected: ProjectionState, to: ProjectionState) -> bool:
        """The state is `to` if it still was `expected`."""
        await self._answering()
        if self._state != expected:
            return False
        self._state = to
        return True

    async def clear_spare(self, *, limit: int) -> int:
        """At most `limit` nodes of the place beside the active projection are gone; how many."""
        await self._answering()
        if self._state.spare is not Spare.DIRTY:
            return 0
        spare = [number for number in self._slots if number != self._state.active]
        return sum(self._slots[number].drop(limit) for number in spare)

    async def cursor(self, stream: StreamId, *, projection: int | None = None) -> Cursor:
        """How far the stream is projected."""
        await self._answering()
        return self._slot(projection).cursors.get(stream, _GENESIS)

    async def cursors(self, *, projection: int | None = None) -> dict[StreamId, Cursor]:
        """The cursor of every stream that has one."""
        await self._answering()
        return dict(self._slot(projection).cursors)

    async def hold(self, stream: StreamId, *, reason: str) -> None:
        """The stream waits for a rebuild; the first reason stays."""
        await self._answering()
        self._slot(None).held.setdefault(stream, reason)

    async def held(self) -> dict[StreamId, str]:
        """Streams of the active projection that wait for a rebuild, and why."""
        await self._answering()
        return dict(self._slot(None).held)

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        """The changes and `reached` are stored together if the cursor still is `expected`."""
        await self._answering()
        number = self._state.active if projection is None else projection
        if not self._state.takes(number) or self._slots[number].cursors.get(stream, _GENESIS) != expected:
            return False
        for change in changes:
            self._slots[number].change(change)
        self._slots[number].cursors[stream] = reached
        return True

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95)."""
        plan = plan_query(name, params)
        await self._answering()
        slot = self._slot(None)
        if plan.subject is not None and NodeKey(*plan.subject) not in slot.nodes:
            raise plan.not_found()
        return plan.answer([row for statement in plan.statements for row in ANSWERS[statement](slot, plan.params)])

    async def digest(self, *, projection: int | None = None) -> str:
        """64 hex digits over all nodes and relationships."""
        await self._answering()
        return self._slot(projection).digest()

    def _slot(self, projection: int | None) -> GraphSlot:
        return self._slots[self._state.active if projection is None else projection]

    async def _answering(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise StoreUnavailable("the graph is switched off: set `is_down` to false")
