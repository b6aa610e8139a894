"""Tool sessions in Redis (RT-68), each under a key that goes away by itself."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter
from redis.asyncio import Redis

from fleet.kernel.ids import EntityId
from fleet.log.redis.connection import Send, call, repeat
from fleet.log.redis.keys import tool_origin_key, tool_session_key
from fleet.tools.port import ORIGIN_S, SESSION_IDLE_S, ToolOrigin, ToolSession

_SESSION = TypeAdapter(ToolSession)
_ORIGIN = TypeAdapter(ToolOrigin)


class RedisToolSessions:
    """Implements the port ToolSessions, on the cache instance: a session that is lost is opened again.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long a call is repeated after a lost reply.
    """

    def __init__(self, client: Redis, *, margin_s: float = 2.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def open(self, session: ToolSession, *, idle_s: int = SESSION_IDLE_S) -> ToolSession:
        """The session is there; the one that is there already when this id was opened before."""
        key, stored = tool_session_key(session.session_id), _SESSION.dump_json(session)

        async def attempt(send: Send) -> Any:
            return await send("SET", key, stored, "NX", "EX", idle_s)

        await repeat(self._client, attempt, doing=f"open tool session {session.session_id}", margin_s=self._margin_s)
        # It may have been there, or expired in between.
        return await self.use(session.session_id, idle_s=idle_s) or session

    async def use(self, session_id: EntityId, *, idle_s: int = SESSION_IDLE_S) -> ToolSession | None:
        """The session, alive for `idle_s` from now; None when it is over or never was."""
        key = tool_session_key(session_id)
        value = await call(self._client, "GETEX", key, "EX", idle_s, doing=f"use tool session {session_id}")
        return None if value is None else _SESSION.validate_json(value)

    async def close(self, session_id: EntityId) -> bool:
        """The session is over; False when it was already."""
        key = tool_session_key(session_id)
        return bool(await call(self._client, "DEL", key, doing=f"close tool session {session_id}"))

    async def remember(self, entity_id: EntityId, origin: ToolOrigin, *, ttl_s: int = ORIGIN_S) -> None:
        """The id leads to its story for `ttl_s` seconds."""
        key, stored = tool_origin_key(entity_id), _ORIGIN.dump_json(origin)

        async def attempt(send: Send) -> Any:
            return await send("SET", key, stored, "EX", ttl_s)

        await repeat(self._client, attempt, doing=f"remember {entity_id}", margin_s=self._margin_s)

    async def origin_of(self, entity_id: EntityId) -> ToolOrigin | None:
        """Where the id belongs; None when nobody knows any more."""
        value = await call(self._client, "GET", tool_origin_key(entity_id), doing=f"look up {entity_id}")
        return None if value is None else _ORIGIN.validate_json(value)
