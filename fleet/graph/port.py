"""Port: the decision graph, a projection of the streams (GR-3..GR-7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.projection import ProjectionState
from fleet.kernel.ids import StreamId


class DecisionGraph(Protocol):
    """Batches apply whole and once per stream, in version order, together with the stream's cursor.

    There are one or two projections at a time: the active one, which queries read, and one that is built beside it
    (GR-7). Each has its own nodes and cursors. Where a method takes `projection`, None means the active one. Every
    method raises StoreUnavailable while the store does not answer, which is never the fault of a stream.
    """

    async def projection(self) -> ProjectionState:
        """Which projection is active, and which is wanted; a new graph has an empty, active one."""
        ...

    async def move_projection(self, expected: ProjectionState, to: ProjectionState) -> bool:
        """The state is `to`, in one statement, if it still was `expected`; False otherwise."""
        ...

    async def clear_spare(self, *, limit: int) -> int:
        """At most `limit` nodes of the place beside the active projection are gone; how many.

        0: nothing is left, or the state does not call it DIRTY. Nothing is ever removed in another state.
        """
        ...

    async def cursor(self, stream: StreamId, *, projection: int | None = None) -> Cursor:
        """How far the stream is projected; version 0 with the genesis hash when not at all."""
        ...

    async def cursors(self, *, projection: int | None = None) -> dict[StreamId, Cursor]:
        """The cursor of every stream that has one."""
        ...

    async def hold(self, stream: StreamId, *, reason: str) -> None:
        """The cursor of the stream in the active projection says why it waits for a rebuild; the first reason stays."""
        ...

    async def held(self) -> dict[StreamId, str]:
        """Streams of the active projection that wait for a rebuild, and why."""
        ...

    async def apply(
        self,
        stream: StreamId,
        changes: Sequence[GraphChange],
        *,
        expected: Cursor,
        reached: Cursor,
        projection: int | None = None,
    ) -> bool:
        """The changes and `reached` are stored in one transaction if the cursor still is `expected`; False otherwise.

        False also when the projection is neither active nor being built. Raises StoreUnavailable (never poison);
        whatever else it raises comes again for the same changes.
        """
        ...

    async def query(self, name: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of a named query (GR-80..GR-95), completely ordered and bounded, from one projection.

        Raises NotFound for an unknown id, InvalidInput for an unknown name or a bad bound, StoreUnavailable.
        """
        ...

    async def digest(self, *, projection: int | None = None) -> str:
        """64 hex digits over all nodes and relationships without cursors: equal graphs, equal digests (GR-3, GR-7)."""
        ...
