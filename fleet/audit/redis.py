"""Checkpoints and the raw log on Redis."""

from __future__ import annotations

import contextlib
import re
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from fleet.audit.chain import RawEntry
from fleet.audit.checkpoint import Leaf, SignedCheckpoint
from fleet.audit.port import StoredNote
from fleet.audit.rules import not_next
from fleet.events.envelope import Head
from fleet.kernel.errors import InvalidInput, LogCorrupted
from fleet.kernel.ids import StreamId
from fleet.log.redis.connection import Script, Send, call, call_together, pairs, repeat
from fleet.log.redis.keys import PARTITIONS, stream_key, streams_key

_CHECKPOINTS = "fleet:audit:checkpoints"
_HEADS = "fleet:audit:heads"
_LOSSES = "fleet:audit:losses"
_LEAVES = TypeAdapter(tuple[Leaf, ...])

# One script, so that of two notaries one is first; the heads of the newest checkpoint change together with it.
_APPEND = Script("""
local checkpoints, heads = KEYS[1], KEYS[2]
local sequence, note, leaves = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local newest = redis.call('XREVRANGE', checkpoints, '+', '-', 'COUNT', 1)[1]
local last = 0
if newest then last = tonumber(string.match(newest[1], '^%d+')) end
if last == sequence and newest[2][2] == note then return {'OK'} end
if last + 1 ~= sequence then return {'TAKEN', string.format('%d', last)} end
redis.call('XADD', checkpoints, string.format('%d-0', sequence), 'n', note)
redis.call('SET', heads, leaves)
return {'OK'}
""")
_LATEST = Script("""
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not newest then return {} end
return {newest[2], redis.call('GET', KEYS[2])}
""")
_ADD_LOSS = Script("""
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  if entry[2][2] == ARGV[1] then return {'OK'} end
end
redis.call('XADD', KEYS[1], '*', 'n', ARGV[1])
return {'OK'}
""")


class RedisCheckpointStore:
    """Implements the port CheckpointStore on one Redis server with `appendfsync always` and `noeviction`.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long a write is repeated after a lost reply before it raises CommitUnknown.
    """

    def __init__(self, client: Redis, *, margin_s: float = 10.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def append(self, signed: SignedCheckpoint, *, sequence: int) -> None:
        """The checkpoint is on disk as number `sequence`, one above the last; the same one again changes nothing."""

        async def attempt(send: Send) -> list[bytes]:
            words = [sequence, signed.note, _LEAVES.dump_json(signed.leaves)]
            return await _APPEND.run(send, [_CHECKPOINTS, _HEADS], words)

        reply = await repeat(self._client, attempt, doing=f"store checkpoint {sequence}", margin_s=self._margin_s)
        if reply[0] == b"TAKEN":
            raise not_next(sequence, last=int(reply[1]))

    async def latest(self) -> SignedCheckpoint | None:
        """The newest checkpoint with its heads."""

        async def attempt(send: Send) -> list[Any]:
            return await _LATEST.run(send, [_CHECKPOINTS, _HEADS], [])

        reply = await repeat(self._client, attempt, doing="read the newest checkpoint", margin_s=self._margin_s)
        return SignedCheckpoint(note=_note(reply[0]), leaves=_leaves(reply[1])) if reply else None

    async def notes(self, *, after: int = 0, limit: int | None = None) -> list[StoredNote]:
        """The notes of the sequences above `after`, in order, at most `limit`."""
        count = () if limit is None else ("COUNT", limit)
        entries = await call(
            self._client, "XRANGE", _CHECKPOINTS, f"({after}", "+", *count, doing="read the checkpoints"
        )
        return [StoredNote(int(entry_id.split(b"-")[0]), _note(fields)) for entry_id, fields in entries]

    async def add_loss(self, note: str) -> None:
        """The signed record is on disk; the same one again changes nothing."""

        async def attempt(send: Send) -> Any:
            return await _ADD_LOSS.run(send, [_LOSSES], [note])

        await repeat(self._client, attempt, doing="record an accepted loss", margin_s=self._margin_s)

    async def losses(self) -> list[str]:
        """Every record that was added, in order."""
        entries = await call(self._client, "XRANGE", _LOSSES, "-", "+", doing="read the accepted losses")
        return [_note(fields) for _, fields in entries]


def _note(fields: list[bytes]) -> str:
    # Bytes that are no text do not verify later; here they must only not break the reader.
    return pairs(fields).get(b"n", b"").decode(errors="replace")


def _leaves(raw: bytes | None) -> tuple[Leaf, ...]:
    try:
        return _LEAVES.validate_json(raw or b"")
    except ValidationError as error:
        raise LogCorrupted(
            f"the heads of the newest checkpoint ({_HEADS}) are damaged: run `fleet audit verify`", key=_HEADS
        ) from error


_LOG_KEY = re.compile(rb"fleet:\{p\d\d\}:(.+):log")
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,15}")
_HASH = re.compile(rb"[0-9a-f]{64}")
_SCANNED = 1000


class RedisRawLog:
    """Implements the port RawLog on the log's Redis. Only reads."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def held(self) -> list[StreamId]:
        """Streams of which there are entries, sorted, found among the keys of the server."""
        streams: set[StreamId] = set()
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", "fleet:{p*}:*:log", "COUNT", _SCANNED, "TYPE", "stream")
            cursor, keys = await call(self._client, *words, doing="look for streams")
            streams.update(s for key in keys if (s := _stream_of(key)) is not None)
            if cursor == b"0":
                return sorted(streams)

    async def listed(self) -> list[StreamId]:
        """Streams that the log's own list names, sorted; what is no stream's id is left out."""
        commands = [("SMEMBERS", streams_key(partition)) for partition in PARTITIONS]
        sets = await call_together(self._client, commands, doing="list the streams")
        return sorted(s for members in sets for member in members if (s := _stream_id(member)) is not None)

    async def entries(self, stream: StreamId, *, after: int = 0, limit: int) -> list[RawEntry]:
        """Entries whose id is above `<after>-0`, in the order of their ids, at most `limit`."""
        key, first = stream_key(stream, "log"), f"({after}-0"
        page = await call(self._client, "XRANGE", key, first, "+", "COUNT", limit, doing=f"read {stream}")
        return [RawEntry(entry_id.decode(), _fields(flat)) for entry_id, flat in page]

    async def head(self, stream: StreamId) -> Head | None:
        """What the record of the head says."""
        key = stream_key(stream, "head")
        version, hash_ = await call(self._client, "HMGET", key, "v", "h", doing=f"read the head of {stream}")
        if not version or not hash_ or not _NUMBER.fullmatch(version) or not _HASH.fullmatch(hash_):
            return None
        return Head(int(version), hash_.decode())


def _stream_of(key: bytes) -> StreamId | None:
    match = _LOG_KEY.fullmatch(key)
    stream = _stream_id(match[1]) if match else None
    # The same stream under a foreign partition is not where the log reads it.
    return stream if stream is not None and stream_key(stream, "log").encode() == key else None


def _stream_id(raw: bytes) -> StreamId | None:
    with contextlib.suppress(InvalidInput, UnicodeDecodeError):
        return StreamId(raw.decode())
    return None


def _fields(flat: list[bytes]) -> dict[str, bytes]:
    return {name.decode(errors="backslashreplace"): value for name, value in zip(flat[::2], flat[1::2], strict=True)}
