"""How a dead letter lies in Redis: one entry of a dlq, found by the record of its id (EV-7, EV-22)."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.adapters.redis.connection import Word
from fleet.errors import FleetError, LogCorrupted
from fleet.ids import StreamId
from fleet.ports import DeadLetter, Failure, is_letter_source

__all__ = ["NOW", "WRITE_LETTER", "letter_of", "letter_words"]

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
