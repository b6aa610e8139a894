"""Port: the decision graph, a projection of the streams (GR-3..GR-7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.ids import StreamId

__all__ = ["Cursor", "DecisionGraph", "GraphChange", "NodeChange", "RelationChange"]


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a stream is projected: version and that version's hash."""

    version: int
    hash: str


@dataclass(frozen=True, slots=True)
class NodeChange:
    """MERGE the node by (label, id), then SET the properties (GR-3)."""

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


GraphChange = NodeChange | RelationChange


class DecisionGraph(Protocol):
    """Batches apply whole and once per stream, in version order, together with the stream's cursor."""

    async def cursor(self, stream: StreamId) -> Cursor:
        """How far the stream is projected; version 0 with the genesis hash when not at all."""
        ...

    async def apply(
        self, stream: StreamId, changes: Sequence[GraphChange], *, expected: Cursor, reached: Cursor
    ) -> bool:
        """The changes and `reached` are stored in one transaction if the cursor still is `expected`; False otherwise.

        Raises StoreUnavailable (never poison).
        """
        ...

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95), completely ordered and bounded. NotFound, InvalidInput, StoreUnavailable."""
        ...

    async def digest(self) -> str:
        """64 hex digits over all nodes and relationships without cursors: equal graphs have equal digests (GR-3, GR-7)."""
        ...
