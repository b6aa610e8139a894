"""Signed checkpoints and accepted losses in the log's Redis (EV-9)."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from fleet.adapters.checkpointing import not_next
from fleet.adapters.redis.connection import Send, call, pairs, repeat
from fleet.adapters.redis.script import Script
from fleet.audit import Leaf, SignedCheckpoint
from fleet.errors import LogCorrupted
from fleet.ports import StoredNote

__all__ = ["RedisCheckpointStore"]

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

        found = await repeat(self._client, attempt, doing="read the newest checkpoint", margin_s=self._margin_s)
        return SignedCheckpoint(note=_note(found[0]), leaves=_leaves(found[1])) if found else None

    async def notes(self, *, after: int = 0, limit: int | None = None) -> list[StoredNote]:
        """The notes of the sequences above `after`, in order, at most `limit`."""
        count = () if limit is None else ("COUNT", limit)
        found = await call(self._client, "XRANGE", _CHECKPOINTS, f"({after}", "+", *count, doing="read the checkpoints")
        return [StoredNote(int(entry_id.split(b"-")[0]), _note(fields)) for entry_id, fields in found]

    async def add_loss(self, note: str) -> None:
        """The signed record is on disk; the same one again changes nothing."""

        async def attempt(send: Send) -> Any:
            return await _ADD_LOSS.run(send, [_LOSSES], [note])

        await repeat(self._client, attempt, doing="record an accepted loss", margin_s=self._margin_s)

    async def losses(self) -> list[str]:
        """Every record that was added, in order."""
        found = await call(self._client, "XRANGE", _LOSSES, "-", "+", doing="read the accepted losses")
        return [_note(fields) for _, fields in found]


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
