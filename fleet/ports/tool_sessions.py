"""Port: tool sessions (RT-68). A session says on whose behalf calls are made; it lets no call through by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.ids import EntityId, Principal, StoryId
from fleet.tools.roles import Phase

__all__ = ["ORIGIN_S", "SESSION_IDLE_S", "ToolOrigin", "ToolSession", "ToolSessions"]

SESSION_IDLE_S = 3600
"""Seconds without a call after which a session is gone (RT-68)."""
ORIGIN_S = 7 * 86_400
"""Seconds for which an id alone is enough to find the story that it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSession:
    """What the product bound when the session was opened; every call is decided anew by the owner of the story."""

    session_id: EntityId
    principal: Principal
    role: str
    story_id: StoryId
    phase: Phase
    epoch: int
    task_id: EntityId | None = None
    is_read_only: bool = False
    offered: tuple[str, ...] = ()
    """Operations `<tool>.<op>` that it was told about, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOrigin:
    """To which story the id of a session or run belongs, and who asked for it."""

    story_id: StoryId
    principal: Principal


class ToolSessions(Protocol):
    """Sessions of any process of the fleet. A session that is lost is opened again; nothing of a story is kept here."""

    async def open(self, session: ToolSession, *, idle_s: int = SESSION_IDLE_S) -> ToolSession:
        """The session is there; the one that is there already when this id was opened before."""
        ...

    async def use(self, session_id: EntityId, *, idle_s: int = SESSION_IDLE_S) -> ToolSession | None:
        """The session, which then lives for `idle_s` seconds from now; None when it is over or never was."""
        ...

    async def close(self, session_id: EntityId) -> bool:
        """The session is over; False when it was already."""
        ...

    async def remember(self, entity_id: EntityId, origin: ToolOrigin, *, ttl_s: int = ORIGIN_S) -> None:
        """The id leads to its story for `ttl_s` seconds. A hint: the story itself says what there is."""
        ...

    async def origin_of(self, entity_id: EntityId) -> ToolOrigin | None:
        """Where the id belongs; None when nobody knows any more."""
        ...
