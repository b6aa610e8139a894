"""Dead letters in Redis: counts of failures, and what was set aside (EV-22)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.errors import FleetError, LogCorrupted, NotFound
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.port import MAX_ATTEMPTS, DeadLetter, Failure, LetterSource, is_letter_source
from fleet.log.redis.connection import Script, Send, Word, call, call_together, decode_answer, pairs, repeat
from fleet.log.redis.keys import PARTITIONS, commands_key, dlq_key, letter_key, partition_of, reply_key, retried_key
from fleet.log.rules import letter_id_of, no_letter, partition_in, retried_command, set_aside_by, standing_still

NOW = """
local function now_ms()
  local t = redis.call('TIME')
  return string.format('%d', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
end
"""

# `from` is where letter_words begin in ARGV. The record outlives every count, so that nothing is written twice.
WRITE_LETTER = (
    NOW
    + """
local function write_letter(dlq, record, from, attempts, first)
  local entry = redis.call('XADD', dlq, '*', 'id', ARGV[from], 'source', ARGV[from+1], 'stream', ARGV[from+2],
    'version', ARGV[from+3], 'code', ARGV[from+4], 'reason', ARGV[from+5], 'raw', ARGV[from+6],
    'attempts', attempts, 'first_seen', first, 'last_seen', now_ms())
  redis.call('HSET', record, 'entry', entry)
  redis.call('PERSIST', record)
  return entry
end
"""
)


def letter_words(letter_id: str, failure: Failure) -> list[Word]:
    """The arguments of `write_letter`: id, source, stream, version, code, reason, raw."""
    return [
        letter_id,
        failure.source,
        failure.stream,
        failure.version,
        failure.code,
        failure.reason,
        failure.raw,
    ]


def letter_of(key: str, entry_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """The letter of one entry. Raises LogCorrupted when the entry is none."""
    try:
        raw = {name.decode(): value.decode(errors="replace") for name, value in fields.items()}
        source = raw["source"]
        if not is_letter_source(source):
            raise ValueError(f"unknown source {source!r}")
        return DeadLetter(
            letter_id=raw["id"],
            failure=Failure(
                source=source,
                stream=StreamId(raw["stream"]),
                version=int(raw["version"]),
                code=raw["code"],
                reason=raw["reason"],
                raw=raw["raw"],
            ),
            attempts=int(raw["attempts"]),
            first_seen_ms=int(raw["first_seen"]),
            last_seen_ms=int(raw["last_seen"]),
        )
    except (KeyError, ValueError, FleetError) as error:
        raise LogCorrupted(
            f"entry {entry_id.decode()} of {key} is no dead letter ({type(error).__name__}: {error}): "
            "look at it with XRANGE, keep a copy, and delete it with XDEL",
            key=key,
            entry=entry_id.decode(),
        ) from error


_COUNT_TTL_MS = 7 * 86_400_000
_REPEATS_TTL_MS = 300_000

# A call names itself by a token: repeated after a lost reply, it counts once.
_FAILED = Script(
    WRITE_LETTER
    + """
local record, dlq, token, max, ttl_ms = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local entry = redis.call('HGET', record, 'entry')
if entry then
  local held = redis.call('XRANGE', dlq, entry, entry)
  if #held > 0 then return held end
  redis.call('DEL', record)
end
if redis.call('HSETNX', record, 'call:' .. token, '1') == 1 then
  redis.call('HINCRBY', record, 'attempts', 1)
  redis.call('HSETNX', record, 'first_seen', now_ms())
  redis.call('PEXPIRE', record, ttl_ms)
end
local counted = redis.call('HMGET', record, 'attempts', 'first_seen')
if tonumber(counted[1]) < max then return {} end
entry = write_letter(dlq, record, 4, counted[1], counted[2])
return redis.call('XRANGE', dlq, entry, entry)
"""
)

# Lua has no rollback, so the command is back before the letter is gone.
_RETRY = Script("""
local record, dlq, queue, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local entry, command, ttl_ms = ARGV[1], ARGV[2], ARGV[3]
if redis.call('EXISTS', done) == 1 then return 1 end
if redis.call('HGET', record, 'entry') ~= entry then return 0 end
if command ~= '' then redis.call('XADD', queue, '*', 'command', command) end
redis.call('XDEL', dlq, entry)
redis.call('DEL', record)
redis.call('SET', done, '1', 'PX', ttl_ms)
return 1
""")

_FORGET_ANSWER = Script("""
if redis.call('HGET', KEYS[1], 'answer') == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")


class RedisDeadLetters:
    """Implements the port DeadLetters: letters on the log's server, answers of commands on the cache's.

    A count that stays below `MAX_ATTEMPTS` is forgotten a week after its last failure; letters are kept for ever.

    Args:
        log: client of the server that holds the event log.
        cache: client of the server that holds the answers of commands; may be the same.
        margin_s: how long a call is repeated after a lost reply before it raises CommitUnknown.
    """

    def __init__(self, log: Redis, cache: Redis, *, margin_s: float = 10.0) -> None:
        self._log = log
        self._cache = cache
        self._margin_s = margin_s

    async def failed(self, failure: Failure) -> DeadLetter | None:
        """One more attempt failed; the letter once it is parked."""
        partition = partition_of(failure.stream)
        letter_id = letter_id_of(partition, failure.source, failure.stream, failure.version)
        dlq = dlq_key(partition)
        keys = [letter_key(partition, letter_id), dlq]
        words: list[Word] = [secrets.token_hex(8), MAX_ATTEMPTS, _COUNT_TTL_MS, *letter_words(letter_id, failure)]
        doing = f"count a failure of {failure.source} at {failure.stream}"
        held = await self._run(self._log, _FAILED, keys, words, doing=doing)
        return letter_of(dlq, held[0][0], pairs(held[0][1])) if held else None

    async def parked(self, source: LetterSource) -> dict[StreamId, DeadLetter]:
        """Streams at which this consumer stands still; none for `commands`, whose letters hold up nothing.

        An entry that is no letter is passed over: it names no stream, and must not stop the consumer of all others.
        """
        letters: list[DeadLetter] = []
        for key, entry_id, fields in await self._entries():
            with suppress(LogCorrupted):
                letters.append(letter_of(key, entry_id, pairs(fields)))
        return standing_still([letter for letter in letters if letter.failure.source == source])

    async def letter(self, source: LetterSource, stream: StreamId, version: int) -> DeadLetter | None:
        """The letter of exactly this piece of work. LogCorrupted when what lies there is none."""
        partition = partition_of(stream)
        with suppress(NotFound):
            return (await self._find(partition, letter_id_of(partition, source, stream, version)))[1]
        return None

    async def letters(self) -> list[DeadLetter]:
        """Every letter, oldest first. Raises LogCorrupted naming an entry that is none."""
        letters = [letter_of(key, entry_id, pairs(fields)) for key, entry_id, fields in await self._entries()]
        return sorted(letters, key=lambda letter: (letter.last_seen_ms, letter.letter_id))

    async def _entries(self) -> list[tuple[str, bytes, Sequence[bytes]]]:
        """Key, id and fields of every entry of every dlq."""
        keys = [dlq_key(partition) for partition in PARTITIONS]
        commands = [("XRANGE", key, "-", "+") for key in keys]
        replies = await call_together(self._log, commands, doing="list the dead letters")
        return [
            (key, entry_id, fields) for key, entries in zip(keys, replies, strict=True) for entry_id, fields in entries
        ]

    async def retry(self, letter_id: str) -> DeadLetter:
        """Letter, count and mark are gone; a command is back in its queue, and its answer is open again.

        Raises NotFound, and InvalidInput when what was set aside is no command; the letter stays then.
        """
        partition = partition_in(letter_id)
        if partition not in PARTITIONS:
            raise no_letter(letter_id)
        entry, letter = await self._find(partition, letter_id)
        command = retried_command(letter)
        if command is not None:
            # Before the command is back: a consumer drops what already has an answer.
            await self._forget_answer(command.command_id, letter_id)
        queue = commands_key(partition)
        done = retried_key(partition, secrets.token_hex(8))
        keys = [letter_key(partition, letter_id), dlq_key(partition), queue, done]
        words: list[Word] = [entry, letter.failure.raw if command else "", _REPEATS_TTL_MS]
        if not await self._run(self._log, _RETRY, keys, words, doing=f"retry dead letter {letter_id}"):
            raise no_letter(letter_id)
        return letter

    async def _find(self, partition: str, letter_id: str) -> tuple[bytes, DeadLetter]:
        doing = f"find dead letter {letter_id}"
        entry: bytes | None = await call(self._log, "HGET", letter_key(partition, letter_id), "entry", doing=doing)
        held = await call(self._log, "XRANGE", dlq_key(partition), entry, entry, doing=doing) if entry else ()
        if not entry or not held:
            raise no_letter(letter_id)
        return entry, letter_of(dlq_key(partition), entry, pairs(held[0][1]))

    async def _forget_answer(self, command_id: CommandId, letter_id: str) -> None:
        key, doing = reply_key(command_id), f"open the answer of {command_id} again"
        stored: bytes | None = await call(self._cache, "HGET", key, "answer", doing=doing)
        if stored is not None and set_aside_by(decode_answer(stored)) == letter_id:
            await self._run(self._cache, _FORGET_ANSWER, [key], [stored], doing=doing)

    async def _run(self, client: Redis, script: Script, keys: list[str], words: list[Word], *, doing: str) -> Any:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        return await repeat(client, attempt, doing=doing, margin_s=self._margin_s)
