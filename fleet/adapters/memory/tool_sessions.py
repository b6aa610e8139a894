"""In-memory twin of the port ToolSessions."""

from __future__ import annotations

from fleet.adapters.clock import SystemClock
from fleet.ids import EntityId
from fleet.ports import ORIGIN_S, SESSION_IDLE_S, Clock, ToolOrigin, ToolSession

__all__ = ["MemoryToolSessions"]


class MemoryToolSessions:
    """Sessions kept as long as the object. Implements the port ToolSessions.

    Args:
        clock: says when a session has been idle for too long.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._held: dict[EntityId, tuple[ToolSession, int]] = {}
        self._origins: dict[EntityId, tuple[ToolOrigin, int]] = {}

    async def open(self, session: ToolSession, *, idle_s: int = SESSION_IDLE_S) -> ToolSession:
        """The session is there; the one that is there already when this id was opened before."""
        known = await self.use(session.session_id, idle_s=idle_s)
        if known is not None:
            return known
        self._held[session.session_id] = (session, self._until_ms(idle_s))
        return session

    async def use(self, session_id: EntityId, *, idle_s: int = SESSION_IDLE_S) -> ToolSession | None:
        """The session, alive for `idle_s` from now; None when it is over or never was."""
        session, until_ms = self._held.get(session_id, (None, 0))
        if session is None or until_ms <= self._clock.monotonic_ms():
            self._held.pop(session_id, None)
            return None
        self._held[session_id] = (session, self._until_ms(idle_s))
        return session

    async def close(self, session_id: EntityId) -> bool:
        """The session is over; False when it was already."""
        is_there = await self.use(session_id) is not None
        self._held.pop(session_id, None)
        return is_there

    async def remember(self, entity_id: EntityId, origin: ToolOrigin, *, ttl_s: int = ORIGIN_S) -> None:
        """The id leads to its story for `ttl_s` seconds."""
        self._origins[entity_id] = (origin, self._until_ms(ttl_s))

    async def origin_of(self, entity_id: EntityId) -> ToolOrigin | None:
        """Where the id belongs; None when nobody knows any more."""
        origin, until_ms = self._origins.get(entity_id, (None, 0))
        return origin if until_ms > self._clock.monotonic_ms() else None

    def _until_ms(self, idle_s: int) -> int:
        return self._clock.monotonic_ms() + idle_s * 1000
