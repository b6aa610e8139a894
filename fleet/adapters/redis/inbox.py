"""Commands and their answers in Redis (EV-7, EV-10, EV-17, EV-22)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from fleet.adapters.redis.connection import Send, Word, call, call_together, pairs, repeat
from fleet.adapters.redis.keys import PARTITIONS, commands_key, dlq_key, partition_of, reply_key
from fleet.adapters.redis.script import Script
from fleet.errors import FleetError, StoreUnavailable
from fleet.ids import CommandId, Principal, StreamId
from fleet.ports import Answer, Command, Delivery

__all__ = ["RedisInbox"]

_GROUP = "council"
_ANSWER_TTL_S = 86_400
_POLL_S = 0.05

# The first answer stays: a repeated request gets the same response (EV-10).
_ANSWER = Script("""
if redis.call('HSETNX', KEYS[1], 'answer', ARGV[1]) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return {'OK'}
""")

_PARK = Script("""
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('XDEL', KEYS[1], ARGV[2])
  redis.call('XADD', KEYS[2], '*', 'source', 'commands', 'code', 'invalid_input', 'reason', ARGV[3], 'raw', ARGV[4],
    'attempts', ARGV[5])
end
return {'OK'}
""")

_FINISH = Script("""
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return {'OK'}
""")


class RedisInbox:
    """Implements the port Inbox: commands on the log's server, answers on the cache's.

    Args:
        log: client of the server that holds the event log.
        cache: client of the server that holds answers; may be the same.
        abandoned_after_s: a command that was taken and not acknowledged for so long is delivered again.
        batch: most commands of one partition that one `take` returns.
        block_s: longest single wait in the server; must be below the client's timeout. Abandoned commands are
            looked for as often.
    """

    def __init__(
        self,
        log: Redis,
        cache: Redis,
        *,
        abandoned_after_s: float = 30.0,
        batch: int = 16,
        block_s: float = 2.0,
        margin_s: float = 10.0,
    ) -> None:
        self._log = log
        self._cache = cache
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._batch = batch
        self._block_s = block_s
        self._margin_s = margin_s
        self._scan: dict[str, str] = {}
        self._has_groups = False

    async def submit(self, command: Command) -> None:
        """The command is queued (after a lost reply perhaps twice); nothing happens when its id has an answer."""
        if await self._stored(command.command_id) is not None:
            return
        key = commands_key(partition_of(command.stream))

        async def attempt(send: Send) -> Any:
            return await send("XADD", key, "*", "command", json.dumps(asdict(command)))

        await repeat(self._log, attempt, doing=f"queue command {command.command_id}", margin_s=self._margin_s)

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """Commands for this consumer; empty when the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            await self._ensure_groups()
            try:
                found = await self._abandoned(consumer)
                block_s = 0.0 if found else min(deadline - loop.time(), self._block_s)
                found += await self._fresh(consumer, block_s=block_s)
            except StoreUnavailable as error:
                if not _has_prefix(error, "NOGROUP"):
                    raise
                self._has_groups = False
                continue
            if (wanted := await self._unanswered(found)) or loop.time() >= deadline:
                return wanted

    async def _ensure_groups(self) -> None:
        if self._has_groups:
            return
        for partition in PARTITIONS:
            words: list[Word] = ["XGROUP", "CREATE", commands_key(partition), _GROUP, "0", "MKSTREAM"]
            try:
                await call(self._log, *words, doing="make the group of consumers")
            except StoreUnavailable as error:
                if not _has_prefix(error, "BUSYGROUP"):
                    raise
        self._has_groups = True

    async def _abandoned(self, consumer: str) -> list[Delivery]:
        """Commands that were taken and left, with the number of their deliveries."""
        commands = [self._autoclaim(consumer, partition) for partition in PARTITIONS]
        found: list[Delivery] = []
        replies = await call_together(self._log, commands, doing="take over abandoned commands")
        for partition, reply in zip(PARTITIONS, replies, strict=True):
            self._scan[partition] = reply[0].decode()
            for entry_id, fields in reply[1]:
                attempts = await self._attempts(partition, entry_id)
                found += await self._decoded(partition, entry_id, fields, attempts=attempts)
        return found

    def _autoclaim(self, consumer: str, partition: str) -> list[Word]:
        start = self._scan.get(partition, "0-0")
        key, idle_ms = commands_key(partition), self._abandoned_after_ms
        return ["XAUTOCLAIM", key, _GROUP, consumer, idle_ms, start, "COUNT", self._batch]

    async def _attempts(self, partition: str, entry_id: bytes) -> int:
        words: list[Word] = ["XPENDING", commands_key(partition), _GROUP, entry_id, entry_id, 1]
        rows: list[tuple[bytes, bytes, int, int]] = await call(self._log, *words, doing="count deliveries")
        return rows[0][3] if rows else 1

    async def _fresh(self, consumer: str, *, block_s: float) -> list[Delivery]:
        """Commands that were never delivered."""
        # BLOCK 0 would wait for ever, so a wait without time left does not block at all.
        block: list[Word] = ["BLOCK", int(block_s * 1000)] if block_s >= 0.001 else []
        keys = [commands_key(partition) for partition in PARTITIONS]
        words: list[Word] = ["XREADGROUP", "GROUP", _GROUP, consumer, "COUNT", self._batch, *block, "STREAMS"]
        reply = await call(self._log, *words, *keys, *[">"] * len(keys), doing="take commands")
        found: list[Delivery] = []
        for key, entries in reply or ():
            partition = PARTITIONS[keys.index(key.decode())]
            for entry_id, fields in entries:
                found += await self._decoded(partition, entry_id, fields, attempts=1)
        return found

    async def _decoded(
        self, partition: str, entry_id: bytes, fields: Sequence[bytes], *, attempts: int
    ) -> list[Delivery]:
        """The command; none when the entry is not one, which is then parked (EV-22)."""
        receipt = f"{partition}/{entry_id.decode()}"
        raw = pairs(fields).get(b"command", b"")
        try:
            return [Delivery(receipt=receipt, command=_decode(raw), attempts=attempts)]
        except (ValueError, KeyError, TypeError, FleetError) as error:
            keys = [commands_key(partition), dlq_key(partition)]
            words: list[Word] = [_GROUP, entry_id, f"{type(error).__name__}: {error}", raw, attempts]
            await self._run(self._log, _PARK, keys, words, doing="park a malformed command")
            return []

    async def _unanswered(self, found: list[Delivery]) -> list[Delivery]:
        """What still needs an answer; the rest was answered before its acknowledgement was lost, and leaves now."""
        wanted: list[Delivery] = []
        for delivery in found:
            if await self._stored(delivery.command.command_id) is None:
                wanted.append(delivery)
            else:
                await self._finish(delivery)
        return wanted

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The first answer of the command id is kept for 24 h; this delivery does not come again."""
        command_id = delivery.command.command_id
        words: list[Word] = [json.dumps(asdict(answer)), _ANSWER_TTL_S]
        doing = f"store the answer of {command_id}"
        await self._run(self._cache, _ANSWER, [reply_key(command_id)], words, doing=doing)
        await self._finish(delivery)

    async def _finish(self, delivery: Delivery) -> None:
        partition, entry_id = delivery.receipt.split("/", 1)
        await self._run(
            self._log,
            _FINISH,
            [commands_key(partition)],
            [_GROUP, entry_id],
            doing=f"acknowledge command {delivery.command.command_id}",
        )

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (stored := await self._stored(command_id)) is None:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return None
            await asyncio.sleep(min(_POLL_S, left_s))
        return Answer(**json.loads(stored))

    async def _stored(self, command_id: CommandId) -> bytes | None:
        return await call(
            self._cache, "HGET", reply_key(command_id), "answer", doing=f"read the answer of {command_id}"
        )

    async def _run(self, client: Redis, script: Script, keys: list[str], words: list[Word], *, doing: str) -> None:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        await repeat(client, attempt, doing=doing, margin_s=self._margin_s)


def _has_prefix(error: StoreUnavailable, prefix: str) -> bool:
    return isinstance(error.__cause__, ResponseError) and str(error.__cause__).startswith(prefix)


def _decode(raw: bytes) -> Command:
    document = json.loads(raw)
    return Command(
        command_id=CommandId(document["command_id"]),
        stream=StreamId(document["stream"]),
        name=document["name"],
        principal=Principal(document["principal"]),
        body=document["body"],
    )
