"""Leases in Redis, by the server's clock (EV-3, EV-4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.ids import StreamId
from fleet.log.port import Lease
from fleet.log.redis.connection import Script, Send, Word, repeat
from fleet.log.redis.keys import stream_key
from fleet.log.rules import lease_held, lease_lost, shard_of

_NOW = """
local function now_ms()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
"""

_CLAIM = Script(
    _NOW
    + """
local lease, head, owner, shard, ttl_ms = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
local held, now = redis.call('HMGET', lease, 'owner', 'exp_ms'), now_ms()
if held[1] and tonumber(held[2]) > now and string.match(held[1], '^[^/]*') ~= shard then
  return {'HELD', held[1], string.format('%d', tonumber(held[2]) - now)}
end
local epoch = string.format('%d', redis.call('HINCRBY', head, 'epoch', 1))
redis.call('HSET', lease, 'owner', owner, 'epoch', epoch, 'exp_ms', string.format('%d', now + ttl_ms))
redis.call('PEXPIRE', lease, ttl_ms)
return {'OK', epoch}
"""
)

_RENEW = Script(
    _NOW
    + """
local now, answers = now_ms(), {}
for n, lease in ipairs(KEYS) do
  local owner, epoch, ttl_ms = ARGV[3 * n - 2], ARGV[3 * n - 1], tonumber(ARGV[3 * n])
  local held = redis.call('HMGET', lease, 'owner', 'epoch', 'exp_ms')
  if held[1] ~= owner or held[2] ~= epoch or tonumber(held[3]) <= now then
    answers[n] = 'LOST'
  else
    redis.call('HSET', lease, 'exp_ms', string.format('%d', now + ttl_ms))
    redis.call('PEXPIRE', lease, ttl_ms)
    answers[n] = 'OK'
  end
end
return answers
"""
)

_RELEASE = Script("""
local held = redis.call('HMGET', KEYS[1], 'owner', 'epoch')
if held[1] == ARGV[1] and held[2] == ARGV[2] then redis.call('DEL', KEYS[1]) end
return {'OK'}
""")


class RedisLeaseStore:
    """Implements the port LeaseStore on the server that holds the event log.

    Every call may be repeated: a claim that was carried out twice has only raised the epoch twice.
    """

    def __init__(self, client: Redis, *, margin_s: float = 2.0) -> None:
        self._client = client
        self._margin_s = margin_s

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """The caller owns the stream for `ttl_s` under a new epoch; LeaseHeld while another shard's lease lives."""
        keys = [stream_key(stream, "lease"), stream_key(stream, "head")]
        reply = await self._run(_CLAIM, keys, [owner, shard_of(owner), ttl_s * 1000], doing=f"claim {stream}")
        if reply[0] == "HELD":
            raise lease_held(stream, owner=reply[1], expires_in_ms=int(reply[2]))
        return Lease(stream=stream, owner=owner, epoch=int(reply[1]), ttl_s=ttl_s)

    async def renew(self, lease: Lease) -> None:
        """The lease lives for another `ttl_s`; OwnershipLost when it is no longer this owner's."""
        if await self._renewed([lease], doing=f"renew the lease of {lease.stream}"):
            raise lease_lost(lease)

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """The leases live for another `ttl_s`; the streams of those that were lost."""
        return await self._renewed(leases, doing=f"renew {len(leases)} leases") if leases else frozenset()

    async def _renewed(self, leases: Sequence[Lease], *, doing: str) -> frozenset[StreamId]:
        keys = [stream_key(lease.stream, "lease") for lease in leases]
        words: list[Word] = [w for lease in leases for w in (lease.owner, lease.epoch, lease.ttl_s * 1000)]
        answers = await self._run(_RENEW, keys, words, doing=doing)
        return frozenset(lease.stream for lease, said in zip(leases, answers, strict=True) if said == "LOST")

    async def release(self, lease: Lease) -> None:
        """The stream is free if the lease still held it."""
        await self._run(
            _RELEASE,
            [stream_key(lease.stream, "lease")],
            [lease.owner, lease.epoch],
            doing=f"release the lease of {lease.stream}",
        )

    async def _run(self, script: Script, keys: list[str], words: list[Word], *, doing: str) -> list[str]:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        reply = await repeat(self._client, attempt, doing=doing, margin_s=self._margin_s)
        return [part.decode() for part in reply]
