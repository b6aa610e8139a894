"""The feed of hints in Redis (EV-7, EV-20)."""

from __future__ import annotations

import asyncio
import base64
import json
import re

from redis.asyncio import Redis

from fleet.adapters.redis.connection import Word, call, call_together, pairs
from fleet.adapters.redis.keys import PARTITIONS, feed_key
from fleet.errors import InvalidInput
from fleet.ids import StreamId
from fleet.ports import FeedHint

__all__ = ["RedisFeed"]

_ENTRY_ID = re.compile(r"\d{1,20}-\d{1,20}")
_START = "0-0"


class RedisFeed:
    """Implements the port Feed over the feeds of all partitions, without a consumer group.

    Args:
        batch: most hints of one partition that one `wait` returns.
        block_s: longest single wait in the server; must be below the client's timeout.
    """

    def __init__(self, client: Redis, *, batch: int = 500, block_s: float = 2.0) -> None:
        self._client = client
        self._batch = batch
        self._block_s = block_s

    async def position(self) -> str:
        """The cursor after every hint so far."""
        commands = [("XREVRANGE", feed_key(partition), "+", "-", "COUNT", 1) for partition in PARTITIONS]
        newest = await call_together(self._client, commands, doing="find the end of the feed")
        return _encode({p: found[0][0].decode() for p, found in zip(PARTITIONS, newest, strict=True) if found})

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor; empty when the time is over. InvalidInput for a foreign cursor."""
        after = _decode(cursor)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            left_s = deadline - loop.time()
            hints = await self._read(after, block_s=min(left_s, self._block_s))
            if hints or deadline <= loop.time():
                return hints, _encode(after)

    async def _read(self, after: dict[str, str], *, block_s: float) -> list[FeedHint]:
        """What came after the positions, which move on."""
        # BLOCK 0 would wait for ever, so a wait without time left does not block at all.
        block: list[Word] = ["BLOCK", int(block_s * 1000)] if block_s >= 0.001 else []
        keys = [feed_key(partition) for partition in PARTITIONS]
        ids = [after.get(partition, _START) for partition in PARTITIONS]
        words: list[Word] = ["XREAD", "COUNT", self._batch, *block, "STREAMS", *keys, *ids]
        hints: list[FeedHint] = []
        for key, entries in await call(self._client, *words, doing="read the feed") or ():
            for entry_id, flat in entries:
                fields = pairs(flat)
                hints.append(FeedHint(stream=StreamId(fields[b"s"].decode()), version=int(fields[b"v"])))
                after[PARTITIONS[keys.index(key.decode())]] = entry_id.decode()
        return hints


def _encode(after: dict[str, str]) -> str:
    raw = json.dumps(after, separators=(",", ":"), sort_keys=True).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decode(cursor: str) -> dict[str, str]:
    try:
        after = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if all(p in PARTITIONS and _ENTRY_ID.fullmatch(entry_id) for p, entry_id in after.items()):
            return after
    except (ValueError, AttributeError, TypeError):
        pass
    raise InvalidInput(f"{cursor[:100]!r} is no cursor of this feed: start from `position`", value=cursor[:100])
