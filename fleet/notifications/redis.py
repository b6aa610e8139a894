"""What notification targets are owed, in Redis: beside the event log, synced to disk like it (LC-80)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from fleet.kernel.ids import StreamId
from fleet.log.redis.connection import Script, Send, Word, call, pairs, repeat
from fleet.log.redis.keys import notices_looked_key, notices_owed_key
from fleet.notifications.port import OwedNotice

_BEGUN = "begun"

# A hash without fields does not exist, so the mark says that a target of an empty log has begun too.
_BEGIN = Script("""
if redis.call('HSETNX', KEYS[1], 'begun', '1') == 0 then return 0 end
for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
""")

# Scores are numbers in the order of arrival; an entry that is there already keeps its place.
_ADVANCE = Script("""
local looked, owed = KEYS[1], KEYS[2]
local stream, expected, version = ARGV[1], ARGV[2], ARGV[3]
local found = redis.call('HGET', looked, stream) or '0'
if found ~= expected then
  return 0
end
for i = 4, #ARGV do
  local last = redis.call('ZRANGE', owed, -1, -1, 'WITHSCORES')
  local score = last[2] and tonumber(last[2]) + 1 or 1
  redis.call('ZADD', owed, 'NX', score, stream .. '@' .. ARGV[i])
end
redis.call('HSET', looked, 'begun', '1', stream, version)
return 1
""")


class RedisNotificationBook:
    """Implements the port NotificationBook.

    Args:
        client: of the log's server; whoever made it closes it.
        margin_s: how long a call is repeated after a lost reply before it raises CommitUnknown.
    """

    def __init__(self, client: Redis, *, margin_s: float = 5.0) -> None:
        self._client, self._margin_s = client, margin_s

    async def begin(self, target: str, heads: Mapping[StreamId, int]) -> None:
        """See `NotificationBook.begin`."""
        words: list[Word] = [word for stream, version in heads.items() for word in (stream, version)]
        await self._run(_BEGIN, [notices_looked_key(target)], words, doing=f"begin with target {target}")

    async def looked(self, target: str) -> dict[StreamId, int] | None:
        """See `NotificationBook.looked`."""
        doing = f"read how far target {target} is"
        hashes = pairs(await call(self._client, "HGETALL", notices_looked_key(target), doing=doing))
        versions = {name.decode(): int(value) for name, value in hashes.items()}
        if versions.pop(_BEGUN, None) is None:
            return None
        return {StreamId(name): version for name, version in versions.items()}

    async def advance(
        self, target: str, stream: StreamId, *, expected: int, version: int, owed: Sequence[int] = ()
    ) -> bool:
        """See `NotificationBook.advance`. A call whose reply was lost may answer False although it was carried out."""
        keys = [notices_looked_key(target), notices_owed_key(target)]
        words: list[Word] = [stream, expected, version, *owed]
        return bool(await self._run(_ADVANCE, keys, words, doing=f"note what target {target} is owed"))

    async def owed(self, target: str) -> list[OwedNotice]:
        """See `NotificationBook.owed`."""
        doing = f"read what target {target} is owed"
        members: list[bytes] = await call(self._client, "ZRANGE", notices_owed_key(target), 0, -1, doing=doing)
        return [_notice(member.decode()) for member in members]

    async def settle(self, target: str, notice: OwedNotice) -> None:
        """See `NotificationBook.settle`."""
        member = f"{notice.stream}@{notice.version}"

        async def attempt(send: Send) -> Any:
            return await send("ZREM", notices_owed_key(target), member)

        await repeat(self._client, attempt, doing=f"settle with target {target}", margin_s=self._margin_s)

    async def _run(self, script: Script, keys: list[str], words: list[Word], *, doing: str) -> Any:
        async def attempt(send: Send) -> Any:
            return await script.run(send, keys, words)

        return await repeat(self._client, attempt, doing=doing, margin_s=self._margin_s)


def _notice(member: str) -> OwedNotice:
    stream, _, version = member.rpartition("@")
    return OwedNotice(StreamId(stream), int(version))
