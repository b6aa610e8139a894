"""One projection in memory: its nodes, relationships and cursors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.graph import (
    Cursor,
    GraphChange,
    NodeChange,
    NodeKey,
    RelationChange,
    RelationKey,
    RelationsClosed,
    graph_digest,
)
from fleet.ids import StreamId

__all__ = ["GraphSlot"]


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
