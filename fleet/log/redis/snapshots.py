"""Snapshots in Redis (EV-6)."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from fleet.kernel.ids import StreamId
from fleet.log.port import Snapshot
from fleet.log.redis.connection import Script, Send, Word, call, repeat
from fleet.log.redis.keys import stream_key
from fleet.log.rules import MAX_SNAPSHOT_BYTES, packed, unpacked

_PUT = Script("""
local held = tonumber(redis.call('HGET', KEYS[1], 'v') or '0')
if not held or held <= tonumber(ARGV[1]) then
  redis.call('HSET', KEYS[1], 'v', ARGV[1], 'h', ARGV[2], 's', ARGV[3], 'd', ARGV[4])
end
return {'OK'}
""")


class RedisSnapshotStore:
    """Implements the port SnapshotStore beside the log, whose `erase` and `accept_loss` also drop the snapshot.

    Args:
        client: from `connect_redis`; whoever made it closes it.
        margin_s: how long a call is repeated after a lost reply.
        max_bytes: a snapshot that is larger when packed is not kept.
    """

    def __init__(self, client: Redis, *, margin_s: float = 2.0, max_bytes: int = MAX_SNAPSHOT_BYTES) -> None:
        self._client = client
        self._margin_s = margin_s
        self._max_bytes = max_bytes

    async def get(self, stream: StreamId) -> Snapshot | None:
        """The newest snapshot that was put, if it is still there and whole."""
        key = stream_key(stream, "snap")
        fields = await call(self._client, "HMGET", key, "v", "h", "s", "d", doing=f"read the snapshot of {stream}")
        version, hash_, schema, data = fields
        if data is None or version is None or not version.isdigit() or hash_ is None or schema is None:
            return None
        whole = unpacked(data)
        if whole is None:
            return None
        return Snapshot(version=int(version), hash=hash_.decode(), schema=schema.decode(), data=whole)

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        """The snapshot replaces one of the same or an older version; a newer one stays."""
        small = packed(snapshot.data, max_bytes=self._max_bytes)
        if small is None:
            return
        words: list[Word] = [snapshot.version, snapshot.hash, snapshot.schema, small]

        async def attempt(send: Send) -> Any:
            return await _PUT.run(send, [stream_key(stream, "snap")], words)

        await repeat(self._client, attempt, doing=f"store the snapshot of {stream}", margin_s=self._margin_s)

    async def drop(self, stream: StreamId) -> None:
        """There is no snapshot of the stream."""

        async def attempt(send: Send) -> Any:
            return await send("UNLINK", stream_key(stream, "snap"))

        await repeat(self._client, attempt, doing=f"drop the snapshot of {stream}", margin_s=self._margin_s)
