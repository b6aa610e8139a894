"""What an event changes in the decision graph, as data (GR-3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream is projected: version and that version's hash."""

    version: int
    hash: str


@dataclass(frozen=True, slots=True)
class NodeChange:
    """MERGE the node by (label, id), then SET the properties (GR-3); None removes one.

    A node that nothing described yet is a stub: `stub` is true from its creation until a change sets it to false.
    """

    label: str
    id: str
    props: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class RelationChange:
    """MERGE both end nodes (as stubs when unknown), then the relationship by (type, ends, key), then SET properties."""

    type: str
    from_label: str
    from_id: str
    to_label: str
    to_id: str
    key: dict[str, Any] = field(default_factory=dict[str, Any])
    props: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class RelationsClosed:
    """SET `mark` to `value` on relationships of one node that do not carry it yet.

    A relationship is never deleted; every RelationChange of a type that can be closed states its mark (None: open).

    Args:
        incoming: the node (label, id) is the end of the relationships, not their start.
        only: ids of the other ends; None takes all.
        keep: ids of the other ends that stay as they are.
    """

    type: str
    label: str
    id: str
    mark: str
    value: int
    incoming: bool = False
    only: tuple[str, ...] | None = None
    keep: tuple[str, ...] = ()

    def concerns(self, other_id: str) -> bool:
        """Whether a relationship to or from this other end is meant."""
        return other_id not in self.keep and (self.only is None or other_id in self.only)


GraphChange = NodeChange | RelationChange | RelationsClosed
