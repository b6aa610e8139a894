"""Changes of one batch, folded so that each node and each relationship is written once, in its last state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fleet.graph.changes import GraphChange, NodeChange, RelationChange, RelationsClosed


class NodeKey(NamedTuple):
    """What makes a node one node."""

    label: str
    id: str


class RelationKey(NamedTuple):
    """What makes a relationship one relationship; `key` holds (name, value) pairs sorted by name."""

    type: str
    start: NodeKey
    end: NodeKey
    key: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, change: RelationChange) -> RelationKey:
        """The key of the relationship that a change writes."""
        start, end = NodeKey(change.from_label, change.from_id), NodeKey(change.to_label, change.to_id)
        return cls(change.type, start, end, tuple(sorted(change.key.items())))

    def is_met_by(self, closed: RelationsClosed) -> bool:
        """Whether a closing concerns this relationship."""
        near, far = (self.end, self.start) if closed.incoming else (self.start, self.end)
        return self.type == closed.type and near == (closed.label, closed.id) and closed.concerns(far.id)


@dataclass(frozen=True, slots=True)
class Batch:
    """What to write: first the closings on what is stored already, then nodes, then relationships."""

    closed: list[RelationsClosed] = field(default_factory=list[RelationsClosed])
    nodes: dict[NodeKey, dict[str, Any]] = field(default_factory=dict[NodeKey, dict[str, Any]])
    relations: dict[RelationKey, dict[str, Any]] = field(default_factory=dict[RelationKey, dict[str, Any]])


def fold(changes: Iterable[GraphChange]) -> Batch:
    """Writing the batch has the effect of applying the changes one after the other."""
    batch = Batch()
    for change in changes:
        match change:
            case NodeChange():
                batch.nodes.setdefault(NodeKey(change.label, change.id), {}).update(change.props)
            case RelationChange():
                key = RelationKey.of(change)
                batch.nodes.setdefault(key.start, {})
                batch.nodes.setdefault(key.end, {})
                batch.relations.setdefault(key, {}).update(change.props)
            case RelationsClosed():
                _close(batch, change)
    return batch


def _close(batch: Batch, closed: RelationsClosed) -> None:
    batch.closed.append(closed)
    for key, props in batch.relations.items():
        if key.is_met_by(closed) and props.get(closed.mark) is None:
            props[closed.mark] = closed.value
