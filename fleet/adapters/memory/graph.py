"""In-memory twin of the port DecisionGraph."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fleet.adapters.memory.graph_queries import ANSWERS
from fleet.adapters.memory.graph_slot import GraphSlot
from fleet.errors import StoreUnavailable
from fleet.events import GENESIS_HASH
from fleet.graph import Cursor, GraphChange, NodeKey, ProjectionState, RelationKey, Spare, plan_query
from fleet.ids import StreamId

__all__ = ["MemoryGraph"]

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
