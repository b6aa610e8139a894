"""Stored entries: fields of EV-11 to StoredEvent and back."""

from __future__ import annotations

from collections.abc import Mapping

from fleet.adapters.appending import corrupted
from fleet.adapters.redis.connection import Word
from fleet.errors import FleetError
from fleet.events import StoredEvent
from fleet.ids import CommandId, Principal, StreamId

__all__ = ["decode", "words_of"]

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
