"""Audit lines of secrets in Redis: one stream beside the event log, synced to disk like it (RT-65)."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from fleet.log.redis.connection import Send, call, pairs, repeat
from fleet.log.redis.keys import secret_accesses_key
from fleet.policy.secret_grants import SecretAccess

_MAX_LINES = 1_000_000


class RedisAccessTrail:
    """Implements the port AccessTrail.

    Args:
        client: of the log instance.
        margin_s: how long a line is written again after a lost reply.
    """

    def __init__(self, client: Redis, *, margin_s: float = 5.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def record(self, line: SecretAccess) -> None:
        """The line is on disk."""
        words = ["XADD", secret_accesses_key(), "MAXLEN", "~", _MAX_LINES, "*", "l", line.model_dump_json()]

        async def attempt(send: Send) -> Any:
            return await send(*words)

        await repeat(self._client, attempt, doing="record the use of a secret", margin_s=self._margin_s)

    async def newest(self, *, limit: int = 100) -> list[SecretAccess]:
        """The last lines, the newest first."""
        words = ("XREVRANGE", secret_accesses_key(), "+", "-", "COUNT", limit)
        entries = await call(self._client, *words, doing="read the uses of secrets")
        return [SecretAccess.model_validate_json(pairs(flat)[b"l"]) for _, flat in entries]
