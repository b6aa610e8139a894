"""The event log in Redis Streams (EV-1..EV-5, EV-11..EV-18)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from fleet.events.envelope import GENESIS_HASH, Head, StoredEvent
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate
from fleet.log.redis.connection import Script, Send, Word, call, call_together, pairs, repeat
from fleet.log.redis.keys import PARTITIONS, feed_key, open_key, partition_of, refused_key, stream_key, streams_key
from fleet.log.rules import (
    chain,
    check_entry,
    corrupted,
    fenced,
    moved,
    not_erased,
    oversize,
    regressed,
    require_events,
    require_reason,
    too_large,
)

_FIELDS = ("t", "s", "b", "ts", "e", "c", "a", "k", "p", "h")


def words_of(event: StoredEvent) -> list[Word]:
    """The values of one entry in the order t s b ts e c a k p h."""
    return [
        event.type,
        event.schema,
        event.body,
        event.ts_ms,
        event.epoch,
        event.command_id,
        event.actor,
        event.causation,
        event.prev_hash,
        event.hash,
    ]


def decode(stream: StreamId, entry_id: bytes, fields: Mapping[bytes, bytes], *, expected_version: int) -> StoredEvent:
    """The event of one entry. Raises LogCorrupted when it has not the form of EV-11; hashes are checked elsewhere."""
    try:
        version, zero = entry_id.decode().split("-")
        if zero != "0" or set(fields) != {name.encode() for name in _FIELDS}:
            raise ValueError("foreign entry id or fields")
        return _event(stream, int(version), {name: fields[name.encode()] for name in _FIELDS})
    except (ValueError, FleetError) as error:
        raise corrupted(stream, expected_version, f"holds an entry {entry_id!r} that is no event") from error


def _event(stream: StreamId, version: int, raw: Mapping[str, bytes]) -> StoredEvent:
    return StoredEvent(
        stream=stream,
        version=version,
        type=raw["t"].decode(),
        schema=int(raw["s"]),
        body=raw["b"],
        ts_ms=int(raw["ts"]),
        epoch=int(raw["e"]),
        command_id=CommandId(raw["c"].decode()),
        actor=Principal(raw["a"].decode()),
        causation=raw["k"].decode(),
        prev_hash=raw["p"].decode(),
        hash=raw["h"].decode(),
    )


_PAGE = 500

# Lua has no rollback: every check comes before the first write. XLEN equals the version because versions have no gaps;
# if it did not, XADD would fail in the middle.
_APPEND = Script("""
local log, head, cmds, open, streams, feed, refused = unpack(KEYS)
local stream, command, epoch, version, hash = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local oversize, closes, hints = ARGV[6], ARGV[7], ARGV[8]
local known = redis.call('HGET', cmds, command)
if known then return {'DUP', known} end
local reason = redis.call('HGET', refused, stream)
if reason then return {'REFUSED', reason} end
local now = redis.call('HMGET', head, 'v', 'h', 'epoch')
local v, h, e = now[1] or '0', now[2] or string.rep('0', 64), now[3] or '0'
if e ~= epoch then return {'FENCED', e} end
if v ~= version or h ~= hash then return {'CONFLICT', v, h, e} end
if oversize == '1' then return {'OVERSIZE'} end
local held = redis.call('XLEN', log)
if held ~= tonumber(v) then return {'DAMAGED', v, tostring(held)} end
local last = tonumber(v)
for i = 9, #ARGV, 10 do
  last = last + 1
  redis.call('XADD', log, string.format('%d-0', last), 't', ARGV[i], 's', ARGV[i+1], 'b', ARGV[i+2], 'ts', ARGV[i+3],
    'e', ARGV[i+4], 'c', ARGV[i+5], 'a', ARGV[i+6], 'k', ARGV[i+7], 'p', ARGV[i+8], 'h', ARGV[i+9])
end
local reached = string.format('%d', last)
local status = closes == '1' and 'closed' or 'open'
redis.call('HSET', head, 'v', reached, 'h', ARGV[#ARGV], 'epoch', e, 'status', status)
redis.call('HSET', cmds, command, string.format('%d-%d', tonumber(v) + 1, last))
redis.call(closes == '1' and 'SREM' or 'SADD', open, stream)
redis.call('SADD', streams, stream)
redis.call('XADD', feed, 'MAXLEN', '~', hints, '*', 's', stream, 'v', reached)
return {'OK'}
""")


# The epoch stays for ever: a stream that is made anew under the same id must not accept an owner of the old one (EV-3).
_ERASE = Script("""
local log, head, cmds, lease, snap, open, streams, refused = unpack(KEYS)
local stream, version, hash, epoch = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now = redis.call('HMGET', head, 'v', 'h', 'epoch')
if not now[1] then return {'OK'} end
local e = now[3] or '0'
if now[1] ~= version or now[2] ~= hash or e ~= epoch then return {'CONFLICT', now[1], now[2], e} end
redis.call('UNLINK', log, cmds, lease, snap)
redis.call('HDEL', head, 'v', 'h')
redis.call('HSET', head, 'epoch', e, 'status', 'erased')
redis.call('SREM', open, stream)
redis.call('SREM', streams, stream)
redis.call('HDEL', refused, stream)
return {'OK'}
""")

# A snapshot of what was lost must not outlive the acceptance of the loss: no older one could ever replace it.
_ACCEPT = Script("""
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('UNLINK', KEYS[2]) end
return {'OK'}
""")


class RedisEventLog:
    """Implements the port EventLog on one Redis server with `appendfsync always` and `noeviction`.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long an append is repeated after a lost reply before it raises CommitUnknown.
        max_hints: about how many hints a partition's feed keeps.
    """

    def __init__(self, client: Redis, *, margin_s: float = 10.0, max_hints: int = 100_000) -> None:
        self._client = client
        self._margin_s = margin_s
        self._max_hints = max_hints

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """Store all events of the request after `expected`, or nothing (EV-14).

        Raises LogCorrupted also when entries and head disagree; nothing was written then.
        """
        require_events(request)
        finding = oversize(request)
        events = () if finding else chain(request)
        keys, words = _keys(request.stream), self._words(request, events)

        async def attempt(send: Send) -> list[bytes]:
            return await _APPEND.run(send, keys, words)

        reply = await repeat(self._client, attempt, doing=f"append to {request.stream}", margin_s=self._margin_s)
        return _outcome(request, events, finding, [part.decode() for part in reply])

    def _words(self, request: AppendRequest, events: tuple[StoredEvent, ...]) -> list[Word]:
        expected = request.expected
        words: list[Word] = [request.stream, request.command_id, expected.epoch, expected.version, expected.hash]
        # Events over a limit stay here: the script only has to make the checks that come before.
        words += [int(not events), int(request.closes), self._max_hints]
        for event in events:
            words += words_of(event)
        return words

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`, each verified against its hash.

        Raises LogCorrupted naming the first version that is missing, altered or out of order.
        """
        events: list[StoredEvent] = []
        prev = GENESIS_HASH if after <= 0 else None
        version = max(after, 0)
        while limit is None or len(events) < limit:
            count = _PAGE if limit is None else min(_PAGE, limit - len(events))
            page = await self._page(stream, after=version, count=count)
            for entry_id, fields in page:
                event = decode(stream, entry_id, pairs(fields), expected_version=version + 1)
                check_entry(event, expected_version=version + 1, prev_hash=prev)
                events.append(event)
                version, prev = event.version, event.hash
            if len(page) < count:
                break
        return events

    async def _page(self, stream: StreamId, *, after: int, count: int) -> list[tuple[bytes, list[bytes]]]:
        key, first = stream_key(stream, "log"), f"({after}-0"
        return await call(self._client, "XRANGE", key, first, "+", "COUNT", count, doing=f"read {stream}")

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends now; `Head()` for an unknown stream."""
        values = await call(
            self._client, "HMGET", stream_key(stream, "head"), "v", "h", "epoch", doing=f"read the head of {stream}"
        )
        version, hash_, epoch = values
        return Head(int(version or 0), hash_.decode() if hash_ else GENESIS_HASH, int(epoch or 0))

    async def open_streams(self) -> list[StreamId]:
        """Streams that have events and are not closed, sorted."""
        return await self._members([open_key(partition) for partition in PARTITIONS], doing="list the open streams")

    async def streams(self) -> list[StreamId]:
        """Every stream that has events, sorted."""
        return await self._members([streams_key(partition) for partition in PARTITIONS], doing="list the streams")

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until `accept_loss`; the first reason stays (EV-19)."""
        require_reason(stream, reason)

        async def attempt(send: Send) -> Any:
            return await send("HSETNX", refused_key(partition_of(stream)), stream, reason)

        await repeat(self._client, attempt, doing=f"refuse {stream}", margin_s=self._margin_s)

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, sorted, and why."""
        commands = [("HGETALL", refused_key(partition)) for partition in PARTITIONS]
        tables: list[Any] = await call_together(self._client, commands, doing="list the refused streams")
        return dict(sorted((StreamId(k.decode()), v.decode()) for table in tables for k, v in pairs(table).items()))

    async def accept_loss(self, stream: StreamId) -> None:
        """The stream takes appends again, from its present head."""
        keys = [refused_key(partition_of(stream)), stream_key(stream, "snap")]

        async def attempt(send: Send) -> Any:
            return await _ACCEPT.run(send, keys, [stream])

        await repeat(self._client, attempt, doing=f"accept the loss of {stream}", margin_s=self._margin_s)

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """Every command id of the stream with the versions that it wrote, by version.

        Raises LogCorrupted when the table holds something else.
        """
        key, doing = stream_key(stream, "cmds"), f"read the commands of {stream}"
        flat: list[bytes] = await call(self._client, "HGETALL", key, doing=doing)
        commands = [_command(stream, name, value) for name, value in pairs(flat).items()]
        return dict(sorted(commands, key=lambda entry: entry[1]))

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """Entries, commands, lease and snapshot of the stream are gone; of the head only the epoch is left."""
        partition = partition_of(stream)
        keys = [stream_key(stream, part) for part in ("log", "head", "cmds", "lease", "snap")]
        keys += [open_key(partition), streams_key(partition), refused_key(partition)]
        words: list[Word] = [stream, expected.version, expected.hash, expected.epoch]

        async def attempt(send: Send) -> list[bytes]:
            return await _ERASE.run(send, keys, words)

        reply = await repeat(self._client, attempt, doing=f"erase {stream}", margin_s=self._margin_s)
        match [part.decode() for part in reply]:
            case ["CONFLICT", version, hash_, epoch]:
                raise not_erased(stream, expected=expected, actual=Head(int(version), hash_, int(epoch)))
            case _:
                return

    async def _members(self, keys: list[str], *, doing: str) -> list[StreamId]:
        sets: list[Any] = await call_together(self._client, [("SMEMBERS", key) for key in keys], doing=doing)
        return sorted(StreamId(member.decode()) for members in sets for member in members)


def _keys(stream: StreamId) -> list[str]:
    partition = partition_of(stream)
    own = [stream_key(stream, part) for part in ("log", "head", "cmds")]
    return [*own, open_key(partition), streams_key(partition), feed_key(partition), refused_key(partition)]


def _command(stream: StreamId, name: bytes, value: bytes) -> tuple[CommandId, tuple[int, int]]:
    try:
        first, last = value.decode().split("-")
        return CommandId(name.decode()), (int(first), int(last))
    except (ValueError, FleetError) as error:
        raise corrupted(stream, 0, f"holds a command {name!r} with versions {value!r}") from error


def _outcome(
    request: AppendRequest, events: tuple[StoredEvent, ...], finding: str | None, reply: list[str]
) -> Appended | Duplicate:
    match reply:
        case ["OK"]:
            last = events[-1]
            return Appended(head=Head(last.version, last.hash, last.epoch), events=events)
        case ["DUP", versions]:
            first, last_version = versions.split("-")
            return Duplicate(first=int(first), last=int(last_version))
        case ["REFUSED", reason]:
            raise regressed(request.stream, reason)
        case ["FENCED", epoch]:
            raise fenced(request, epoch=int(epoch))
        case ["CONFLICT", version, hash_, epoch]:
            raise moved(request, Head(int(version), hash_, int(epoch)))
        case ["OVERSIZE"]:
            raise too_large(request, finding or "too many bytes")
        case ["DAMAGED", version, held]:
            raise corrupted(
                request.stream, request.expected.version, f"holds {held} entries while its head is at version {version}"
            )
        case _:
            raise AssertionError(reply)
