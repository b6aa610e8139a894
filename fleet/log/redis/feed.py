"""The feed of hints in Redis (EV-7, EV-20)."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.errors import FleetError, InvalidInput
from fleet.kernel.ids import StreamId
from fleet.log.port import Backlog, FeedHint, HintDelivery
from fleet.log.redis.connection import Word, call, call_together, pairs
from fleet.log.redis.group import ConsumerGroup, Taken, age_ms, milliseconds_of
from fleet.log.redis.keys import PARTITIONS, feed_key

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
        return _encode({p: entries[0][0].decode() for p, entries in zip(PARTITIONS, newest, strict=True) if entries})

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


class RedisFeedGroup:
    """Implements the port FeedGroup over the feeds of all partitions.

    Args:
        client: from `connect_redis`, on the log's server; whoever made it closes it.
        group: its consumers share the hints; another group gets all of them too.
        abandoned_after_s: a hint that was taken and not acknowledged for so long is delivered again; more than three
            times what handling one takes.
        batch: most hints of one partition that one `take` returns.
        block_s: longest single wait in the server; must be below the client's timeout.
    """

    def __init__(
        self,
        client: Redis,
        *,
        group: str = "projector",
        abandoned_after_s: float = 30.0,
        batch: int = 500,
        block_s: float = 2.0,
    ) -> None:
        self._client = client
        self._group = ConsumerGroup(client, name=group, key_of=feed_key, batch=batch, what="hints")
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._block_s = block_s

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """Hints for this consumer; empty when the time is over. A hint that was trimmed meanwhile does not come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s

        async def look() -> list[Taken]:
            abandoned = await self._group.take_over(consumer, idle_ms=self._abandoned_after_ms)
            block_s = 0.0 if abandoned else min(deadline - loop.time(), self._block_s)
            return abandoned + await self._group.fresh(consumer, block_s=block_s)

        while True:
            hints = await self._readable(await self._group.guarded(look))
            if hints or loop.time() >= deadline:
                return hints

    async def _readable(self, taken: Sequence[Taken]) -> list[HintDelivery]:
        """The hints of these entries. What is none leaves the group: it can tell nobody anything."""
        hints: list[HintDelivery] = []
        strange: list[str] = []
        for entry in taken:
            try:
                hints.append(HintDelivery(receipt=entry.receipt, hint=_hint(entry), attempts=entry.attempts))
            except (KeyError, ValueError, FleetError):
                strange.append(entry.receipt)
        await self._leave(strange)
        return hints

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """These hints are not delivered again."""
        await self._leave([delivery.receipt for delivery in deliveries])

    async def _leave(self, receipts: Sequence[str]) -> None:
        ids: dict[str, list[str]] = {}
        for receipt in receipts:
            partition, entry_id = receipt.split("/", 1)
            ids.setdefault(partition, []).append(entry_id)
        commands = [("XACK", feed_key(partition), self._group.name, *some) for partition, some in ids.items()]
        if commands:
            await call_together(self._client, commands, doing="acknowledge hints")

    async def backlog(self) -> Backlog:
        """Hints that this group has not acknowledged, and how long the oldest waits."""
        return await self._group.guarded(self._backlog)

    async def _backlog(self) -> Backlog:
        delivered = await self._each(lambda key: ["XPENDING", key, self._group.name])
        rows = await self._each(lambda key: ["XINFO", "GROUPS", key])
        groups = [_named(row, self._group.name) for row in rows]
        sizes = await self._each(lambda key: ["XLEN", key])
        commands: list[list[Word]] = [
            ["XRANGE", feed_key(partition), b"(" + group[b"last-delivered-id"], "+", "COUNT", 1]
            for partition, group in zip(PARTITIONS, groups, strict=True)
        ]
        *waiting, now = await call_together(self._client, [*commands, ["TIME"]], doing="measure the feed")
        pending, oldest = 0, list[int]()
        for left, group, size, first in zip(delivered, groups, sizes, waiting, strict=True):
            # The server cannot tell how many wait once one of them was deleted: at most all that are there.
            pending += left[0] + (group[b"lag"] if group[b"lag"] is not None else size)
            oldest += [milliseconds_of(left[1])] if left[0] else []
            oldest += [milliseconds_of(first[0][0])] if first else []
        return Backlog(pending=pending, oldest_ms=age_ms(oldest, now))

    async def _each(self, words: Callable[[str], Sequence[Word]]) -> list[Any]:
        """The replies of all partitions to the command that `words` makes of a feed's key."""
        commands = [words(feed_key(partition)) for partition in PARTITIONS]
        return await call_together(self._client, commands, doing="measure the feed")


def _hint(entry: Taken) -> FeedHint:
    fields = pairs(entry.fields)
    return FeedHint(stream=StreamId(fields[b"s"].decode()), version=int(fields[b"v"]))


def _named(rows: Sequence[Sequence[Any]], name: str) -> Mapping[bytes, Any]:
    groups = [pairs(row) for row in rows]
    return next(group for group in groups if group[b"name"] == name.encode())
