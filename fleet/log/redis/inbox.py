"""Commands and their answers in Redis (EV-7, EV-10, EV-17, EV-22)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import uniform
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import CommandId
from fleet.log.port import MAX_ATTEMPTS, Answer, Backlog, Command, Delivery, Failure
from fleet.log.redis.connection import (
    Script,
    Send,
    Word,
    call,
    call_together,
    decode_answer,
    encode_answer,
    pairs,
    repeat,
)
from fleet.log.redis.dead_letters import WRITE_LETTER, letter_words
from fleet.log.redis.group import ConsumerGroup, Taken, age_ms, milliseconds_of
from fleet.log.redis.keys import PARTITIONS, commands_key, dlq_key, letter_key, partition_of, reply_key
from fleet.log.rules import (
    command_failure,
    decode_command,
    encode_command,
    letter_id_of,
    malformed_failure,
    set_aside,
    set_aside_by,
)

_GROUP = "council"
_ANSWER_TTL_S = 86_400
_POLL_S = 0.05
_DEFER_MS = 1_000

# The first answer stays: a repeated request gets the same response (EV-10).
_ANSWER = Script("""
if redis.call('HSETNX', KEYS[1], 'answer', ARGV[1]) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return redis.call('HGET', KEYS[1], 'answer')
""")

# One piece of work has one letter: a record that names its entry is a letter that was not retried yet. Lua has no
# rollback, so the letter is there before the command is gone.
_PARK = Script(
    WRITE_LETTER
    + """
local queue, dlq, record, group, id, attempts, first = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if #redis.call('XPENDING', queue, group, id, id, 1) == 0 then return 0 end
if redis.call('HEXISTS', record, 'entry') == 0 then write_letter(dlq, record, 5, attempts, first) end
redis.call('XACK', queue, group, id)
redis.call('XDEL', queue, id)
return 1
"""
)

_FINISH = Script("""
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
""")

# One consumer gets it, and only if nobody did since it was looked at. The same call repeated finds its own claim.
_CLAIM = Script("""
local queue, group, consumer, id, seen, idle_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local row = redis.call('XPENDING', queue, group, id, id, 1)[1]
if not row then return 0 end
if row[2] == consumer and row[4] == seen + 1 then return 1 end
if row[4] ~= seen or row[3] < tonumber(idle_ms) then return 0 end
return #redis.call('XCLAIM', queue, group, consumer, idle_ms, id)
""")

_DEFER = Script("""
local queue, group, id, attempts, idle_ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local row = redis.call('XPENDING', queue, group, id, id, 1)[1]
if row and row[4] == attempts then
  redis.call('XCLAIM', queue, group, row[2], 0, id, 'IDLE', idle_ms, 'RETRYCOUNT', attempts - 1, 'JUSTID')
end
return 1
""")


class RedisInbox:
    """Implements the port Inbox: commands on the log's server, answers on the cache's.

    What counts against a command is a delivery that ended without an answer and without `defer`: whoever handles it
    answers every failure at once, so such a delivery means that its consumer died or hung. A first delivery comes
    with others and may be the victim of one of them; later ones come alone. Commands that are set aside have thus
    seen the end of `MAX_ATTEMPTS` consumers, all but one while they were handled by themselves. Looking for abandoned
    commands, or failing to do so because a store is down, counts nothing.

    Args:
        log: client of the server that holds the event log.
        cache: client of the server that holds answers; may be the same.
        abandoned_after_s: a command that was taken and not acknowledged for so long is delivered again.
        batch: most commands of one partition that one `take` returns.
        block_s: longest single wait in the server; must be below the client's timeout. Abandoned and deferred
            commands are looked for as often, at uneven times.
        max_attempts: deliveries without an answer after which a command is set aside.
    """

    def __init__(
        self,
        log: Redis,
        cache: Redis,
        *,
        abandoned_after_s: float = 30.0,
        batch: int = 16,
        block_s: float = 0.8,
        margin_s: float = 10.0,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._log = log
        self._cache = cache
        self._group = ConsumerGroup(log, name=_GROUP, key_of=commands_key, batch=batch, what="commands")
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._block_s = block_s
        self._margin_s = margin_s
        self._max_attempts = max_attempts

    async def submit(self, command: Command) -> None:
        """The command is queued (after a lost reply perhaps twice); nothing happens when its id has an answer."""
        if await self._stored(command.command_id) is not None:
            return
        key = commands_key(partition_of(command.stream))

        async def attempt(send: Send) -> Any:
            return await send("XADD", key, "*", "command", encode_command(command))

        await repeat(self._log, attempt, doing=f"queue command {command.command_id}", margin_s=self._margin_s)

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """Commands for this consumer; empty when the time is over. One that comes again comes alone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s

        async def look() -> list[Delivery]:
            if abandoned := await self._abandoned(consumer):
                return [abandoned]
            # Two consumers in step would meet a deferred command always in the same order: the one that cannot carry
            # it out would take it each time, and the one that can would never see it.
            block_s = self._block_s * uniform(0.4, 1.0)
            fresh = await self._group.fresh(consumer, block_s=min(deadline - loop.time(), block_s))
            return [delivery for taken in fresh if (delivery := await self._wanted(taken))]

        while True:
            deliveries = await self._group.guarded(look)
            if deliveries or loop.time() >= deadline:
                return deliveries

    async def _abandoned(self, consumer: str) -> Delivery | None:
        """One command that was taken and left. Those that need no consumer any more leave the queue on the way."""
        for partition, entry_id, attempts in await self._group.idle(idle_ms=self._abandoned_after_ms):
            fields = await self._group.entry(partition, entry_id)
            taken = Taken(partition, entry_id, fields or (), attempts)
            if fields is None:
                await self._finish(taken.receipt, doing="drop a command that is gone")
            elif attempts >= self._max_attempts:
                await self._set_aside(taken)
            elif (delivery := await self._wanted(taken)) and await self._claim(consumer, taken):
                return replace(delivery, attempts=attempts + 1)
        return None

    async def _claim(self, consumer: str, taken: Taken) -> bool:
        keys = [commands_key(taken.partition)]
        words: list[Word] = [_GROUP, consumer, taken.entry_id, taken.attempts, self._abandoned_after_ms]
        return bool(await self._run(self._log, _CLAIM, keys, words, doing="take over an abandoned command"))

    async def _wanted(self, taken: Taken) -> Delivery | None:
        """The command if it still needs an answer; one that was answered meanwhile leaves the queue."""
        command = await self._command(taken)
        if command is None:
            return None
        if await self._stored(command.command_id) is None:
            return Delivery(receipt=taken.receipt, command=command, attempts=taken.attempts)
        await self._finish(taken.receipt, doing=f"acknowledge command {command.command_id}")
        return None

    async def _command(self, taken: Taken) -> Command | None:
        """What the entry holds; an entry that is no command is parked and leaves the queue."""
        raw = pairs(taken.fields).get(b"command", b"").decode(errors="replace")
        try:
            return decode_command(raw)
        except InvalidInput as error:
            letter_id = letter_id_of(taken.partition, "commands", taken.receipt)
            await self._park(taken, letter_id, malformed_failure(raw, error))
            return None

    async def _set_aside(self, taken: Taken) -> None:
        """The command has its answer, then its letter. Whoever stops in between leaves it to the next look."""
        command = await self._command(taken)
        if command is None:
            return
        letter_id = _letter_id(taken.partition, command)
        answer = set_aside(command, letter_id, attempts=taken.attempts)
        if set_aside_by(await self._answered(command.command_id, answer)) == letter_id:
            await self._park(taken, letter_id, command_failure(command, attempts=taken.attempts))
        else:
            await self._finish(taken.receipt, doing=f"acknowledge command {command.command_id}")

    async def _park(self, taken: Taken, letter_id: str, failure: Failure) -> None:
        partition = taken.partition
        keys = [commands_key(partition), dlq_key(partition), letter_key(partition, letter_id)]
        words: list[Word] = [_GROUP, taken.entry_id, taken.attempts, milliseconds_of(taken.entry_id)]
        words += letter_words(letter_id, failure)
        await self._run(self._log, _PARK, keys, words, doing=f"set a command aside as {letter_id}")

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The first answer of the command id is kept for 24 h; this delivery does not come again."""
        command_id = delivery.command.command_id
        await self._answered(command_id, answer)
        await self._finish(delivery.receipt, doing=f"acknowledge command {command_id}")

    async def _answered(self, command_id: CommandId, answer: Answer) -> Answer:
        """The answer that the command has now: the first one."""
        words: list[Word] = [encode_answer(answer), _ANSWER_TTL_S]
        doing = f"store the answer of {command_id}"
        return decode_answer(await self._run(self._cache, _ANSWER, [reply_key(command_id)], words, doing=doing))

    async def defer(self, delivery: Delivery) -> None:
        """The command comes again after a second, and this delivery does not count (EV-23)."""
        partition, entry_id = delivery.receipt.split("/", 1)
        idle_ms = max(self._abandoned_after_ms - _DEFER_MS, 0)
        words: list[Word] = [_GROUP, entry_id, delivery.attempts, idle_ms]
        doing = f"defer command {delivery.command.command_id}"
        await self._run(self._log, _DEFER, [commands_key(partition)], words, doing=doing)

    async def _finish(self, receipt: str, *, doing: str) -> None:
        partition, entry_id = receipt.split("/", 1)
        await self._run(self._log, _FINISH, [commands_key(partition)], [_GROUP, entry_id], doing=doing)

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while (stored := await self._stored(command_id)) is None:
            left_s = deadline - loop.time()
            if left_s <= 0:
                return None
            await asyncio.sleep(min(_POLL_S, left_s))
        return decode_answer(stored)

    async def backlog(self) -> Backlog:
        """Commands without an answer, and how long the oldest waits; an acknowledged one has left the queue."""
        sizes: list[list[Word]] = [["XLEN", commands_key(partition)] for partition in PARTITIONS]
        heads: list[list[Word]] = [["XRANGE", commands_key(p), "-", "+", "COUNT", 1] for p in PARTITIONS]
        replies = await call_together(self._log, [*sizes, *heads, ["TIME"]], doing="measure the queue of commands")
        oldest = [milliseconds_of(entries[0][0]) for entries in replies[len(sizes) : -1] if entries]
        return Backlog(pending=sum(replies[: len(sizes)]), oldest_ms=age_ms(oldest, replies[-1]))

    async def _stored(self, command_id: CommandId) -> bytes | None:
        return await call(
            self._cache, "HGET", reply_key(command_id), "answer", doing=f"read the answer of {command_id}"
        )

    async def _run(self, client: Redis, script: Script, keys: list[str], words: list[Word], *, doing: str) -> Any:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        return await repeat(client, attempt, doing=doing, margin_s=self._margin_s)


def _letter_id(partition: str, command: Command) -> str:
    return letter_id_of(partition, "commands", command.stream, command.command_id)
