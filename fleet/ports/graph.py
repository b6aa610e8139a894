"""Port: the decision graph, a projection of the streams (GR-3..GR-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fleet.graph import Cursor, GraphChange, NodeChange, RelationChange, RelationsClosed
from fleet.ids import StreamId

__all__ = ["Cursor", "DecisionGraph", "GraphChange", "NodeChange", "RelationChange", "RelationsClosed"]


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
        """Rows of a named query (GR-80..GR-95), completely ordered and bounded.

        Raises NotFound for an unknown id, InvalidInput for an unknown name or a bad bound, StoreUnavailable.
        """
        ...

    async def digest(self) -> str:
        """64 hex digits over all nodes and relationships without cursors: equal graphs, equal digests (GR-3, GR-7)."""
        ...
