"""One consumer group over the streams of all partitions: made when it is missing, read, taken over (EV-7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fleet.kernel.errors import StoreUnavailable
from fleet.log.redis.connection import Word, call, call_together
from fleet.log.redis.keys import PARTITIONS

T = TypeVar("T")


class Taken(NamedTuple):
    """An entry of one partition that this consumer was given for the `attempts`-th time."""

    partition: str
    entry_id: bytes
    fields: Sequence[bytes]
    attempts: int

    @property
    def receipt(self) -> str:
        """Names the entry among all partitions: `NN/<entry id>`."""
        return f"{self.partition}/{self.entry_id.decode()}"


class ConsumerGroup:
    """The group `name` on the stream `key_of(partition)` of every partition.

    It starts at the first entry there is, so that nothing is missed that was written before it was made.

    Args:
        batch: most entries of one partition that one read returns.
        what: what the entries are, for messages: `commands`.
    """

    def __init__(self, client: Redis, *, name: str, key_of: Callable[[str], str], batch: int, what: str) -> None:
        self.name = name
        self._client = client
        self._key_of = key_of
        self._batch = batch
        self._what = what
        self._scan: dict[str, str] = {}
        self._is_made = False

    async def guarded(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns; it is called again when the server has lost the group, which is made anew then."""
        while True:
            await self._make()
            try:
                return await work()
            except StoreUnavailable as error:
                if not _has_prefix(error, "NOGROUP"):
                    raise
                self._is_made = False

    async def _make(self) -> None:
        if self._is_made:
            return
        for partition in PARTITIONS:
            words: list[Word] = ["XGROUP", "CREATE", self._key_of(partition), self.name, "0", "MKSTREAM"]
            try:
                await call(self._client, *words, doing=f"make the group {self.name}")
            except StoreUnavailable as error:
                if not _has_prefix(error, "BUSYGROUP"):
                    raise
        self._is_made = True

    async def fresh(self, consumer: str, *, block_s: float) -> list[Taken]:
        """Entries that were never delivered; waits in the server for at most `block_s`."""
        # BLOCK 0 would wait for ever, so a wait without time left does not block at all.
        block: list[Word] = ["BLOCK", int(block_s * 1000)] if block_s >= 0.001 else []
        keys = [self._key_of(partition) for partition in PARTITIONS]
        words: list[Word] = ["XREADGROUP", "GROUP", self.name, consumer, "COUNT", self._batch, *block, "STREAMS"]
        reply = await call(self._client, *words, *keys, *[">"] * len(keys), doing=f"take {self._what}")
        return [
            Taken(PARTITIONS[keys.index(key.decode())], entry_id, fields, 1)
            for key, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def take_over(self, consumer: str, *, idle_ms: int) -> list[Taken]:
        """Entries that were delivered and left for `idle_ms`; those that were trimmed meanwhile are dropped."""
        commands = [self._autoclaim(consumer, partition, idle_ms) for partition in PARTITIONS]
        replies = await call_together(self._client, commands, doing=f"take over abandoned {self._what}")
        abandoned: list[Taken] = []
        for partition, reply in zip(PARTITIONS, replies, strict=True):
            self._scan[partition] = reply[0].decode()
            attempts = await self._attempts(partition, consumer, [entry_id for entry_id, _ in reply[1]])
            abandoned += [
                Taken(partition, entry_id, fields, attempts.get(entry_id, 1)) for entry_id, fields in reply[1]
            ]
        return abandoned

    def _autoclaim(self, consumer: str, partition: str, idle_ms: int) -> list[Word]:
        start = self._scan.get(partition, "0-0")
        return ["XAUTOCLAIM", self._key_of(partition), self.name, consumer, idle_ms, start, "COUNT", self._batch]

    async def _attempts(self, partition: str, consumer: str, ids: Sequence[bytes]) -> dict[bytes, int]:
        if not ids:
            return {}
        words: list[Word] = ["XPENDING", self._key_of(partition), self.name, ids[0], ids[-1], self._batch, consumer]
        rows = await call(self._client, *words, doing="count deliveries")
        return {row[0]: row[3] for row in rows}

    async def idle(self, *, idle_ms: int) -> list[tuple[str, bytes, int]]:
        """Partition, entry and deliveries so far of what was left for `idle_ms`; nothing is taken over by looking."""
        commands = [
            ("XPENDING", self._key_of(partition), self.name, "IDLE", idle_ms, "-", "+", self._batch)
            for partition in PARTITIONS
        ]
        replies: list[Any] = await call_together(self._client, commands, doing=f"find abandoned {self._what}")
        return [
            (partition, row[0], row[3]) for partition, rows in zip(PARTITIONS, replies, strict=True) for row in rows
        ]

    async def entry(self, partition: str, entry_id: bytes) -> Sequence[bytes] | None:
        """The fields of one entry; None when it is gone."""
        words: list[Word] = ["XRANGE", self._key_of(partition), entry_id, entry_id]
        entries = await call(self._client, *words, doing=f"read abandoned {self._what}")
        return entries[0][1] if entries else None


def _has_prefix(error: StoreUnavailable, prefix: str) -> bool:
    return isinstance(error.__cause__, ResponseError) and str(error.__cause__).startswith(prefix)


def milliseconds_of(entry_id: bytes) -> int:
    """When the server made this id, milliseconds since 1970 UTC by its clock."""
    return int(entry_id.split(b"-")[0])


def age_ms(oldest: Sequence[int], time_reply: Sequence[bytes]) -> int:
    """How long the oldest of these times is past at the server's TIME; 0 when there is none."""
    now_ms = int(time_reply[0]) * 1000 + int(time_reply[1]) // 1000
    return max(now_ms - min(oldest), 0) if oldest else 0
