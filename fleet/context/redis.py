"""Kept bundles in Redis, each under a key that goes away by itself (CX-32, CX-43)."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from fleet.kernel.ids import Digest, StoryId
from fleet.log.redis.connection import Send, call, repeat
from fleet.log.redis.keys import bundle_key


class RedisBundleStore:
    """Implements the port BundleStore, on the cache instance: the time that each was given stands before its bytes.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long a call is repeated after a lost reply.
    """

    def __init__(self, client: Redis, *, margin_s: float = 2.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def keep(self, story_id: StoryId, version: int, hash: Digest, data: bytes, *, ttl_s: int) -> None:
        """See the port."""
        key, stored = bundle_key(story_id, version, hash), b"%d\n%b" % (ttl_s, data)

        async def attempt(send: Send) -> Any:
            return await send("SET", key, stored, "EX", ttl_s)

        await repeat(self._client, attempt, doing=f"keep a bundle of {story_id}", margin_s=self._margin_s)

    async def get(self, story_id: StoryId, version: int, hash: Digest) -> bytes | None:
        """See the port."""
        key, doing = bundle_key(story_id, version, hash), f"read a bundle of {story_id}"
        value: bytes | None = await call(self._client, "GET", key, doing=doing)
        if value is None:
            return None
        ttl_s, _, data = value.partition(b"\n")
        await call(self._client, "EXPIRE", key, int(ttl_s), doing=doing)
        return data
