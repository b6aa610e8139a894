"""The log's keys as they are, for those who check them (EV-32)."""

from __future__ import annotations

import contextlib
import re

from redis.asyncio import Redis

from fleet.adapters.redis.connection import call, call_together
from fleet.adapters.redis.keys import PARTITIONS, stream_key, streams_key
from fleet.audit import RawEntry
from fleet.errors import InvalidInput
from fleet.events import Head
from fleet.ids import StreamId

__all__ = ["RedisRawLog"]

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
        found: set[StreamId] = set()
        cursor = b"0"
        while True:
            words = ("SCAN", cursor, "MATCH", "fleet:{p*}:*:log", "COUNT", _SCANNED, "TYPE", "stream")
            cursor, keys = await call(self._client, *words, doing="look for streams")
            found.update(s for key in keys if (s := _stream_of(key)) is not None)
            if cursor == b"0":
                return sorted(found)

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
