"""One whole stream as bytes that outlive it: entries as stored, command table, proof of a checkpoint (EV-25).

    {"commands":3,"events":12,"format":"swe-fleet/stream/1","hash":"...","stream":"story:st-1"}    the first line
    {"a":"user:ana","b":"<base64>","c":"...","e":"4",...,"id":"1-0",...}                           one line an entry
    {"command":"st-1/create","first":1,"last":3}                                                   one line a command
    {"proof":"<base64>"}                                                                           the last line

Every line is canonical JSON (GL-13), so equal streams give equal bytes and one digest.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from fleet.audit.chain import FIELDS, ChainCheck, RawEntry, raw_entry
from fleet.events.envelope import Head, StoredEvent
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import FleetError, LogCorrupted
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.kernel.types import Frozen


@dataclass(frozen=True, slots=True)
class StreamExport:
    """A stream as it was exported; `proof` is what was given with it, empty when nothing was."""

    stream: StreamId
    events: tuple[StoredEvent, ...]
    commands: Mapping[CommandId, tuple[int, int]]
    proof: bytes = b""

    @property
    def head(self) -> Head:
        """Where the stream ended, without its epoch."""
        return Head(self.events[-1].version, self.events[-1].hash)


_FIELDS_OF = TypeAdapter(dict[str, str])


class _First(Frozen):
    format: Literal["swe-fleet/stream/1"]
    stream: StreamId
    events: int = Field(ge=1)
    commands: int = Field(ge=1)
    hash: str


class _Command(Frozen):
    command: CommandId
    first: int = Field(ge=1)
    last: int = Field(ge=1)


class _Last(Frozen):
    proof: str


def export_stream(
    events: Sequence[StoredEvent], commands: Mapping[CommandId, tuple[int, int]], *, proof: bytes = b""
) -> bytes:
    """All events of one stream (at least one) and its command table as bytes; `read_export` gives them back."""
    last = events[-1]
    first = {
        "format": "swe-fleet/stream/1",
        "stream": last.stream,
        "events": len(events),
        "commands": len(commands),
        "hash": last.hash,
    }
    table = sorted(commands.items(), key=lambda entry: entry[1])
    lines: list[Any] = [
        first,
        *(_line(raw_entry(event)) for event in events),
        *({"command": command, "first": low, "last": high} for command, (low, high) in table),
        {"proof": base64.b64encode(proof).decode()},
    ]
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def _line(entry: RawEntry) -> dict[str, str]:
    plain = {name: value.decode() for name, value in entry.fields.items() if name != "b"}
    return {**plain, "id": entry.entry_id, "b": base64.b64encode(entry.fields["b"]).decode()}


def read_export(data: bytes) -> StreamExport:
    """The stream of an export, after its chain was recomputed from the bytes and its command table compared with it.

    Raises:
        LogCorrupted: these are not the bytes of a whole, unaltered export; says what is wrong.
    """
    lines = data.split(b"\n")
    try:
        first = _First.model_validate_json(lines[0])
        if len(lines) != first.events + first.commands + 3 or lines[-1]:
            raise ValueError(f"it has {len(lines) - 1} lines, its first one names {first.events + first.commands + 2}")
        entries = [_entry(line) for line in lines[1 : first.events + 1]]
        rows = [_Command.model_validate_json(line) for line in lines[first.events + 1 : -2]]
        proof = base64.b64decode(_Last.model_validate_json(lines[-2]).proof, validate=True)
    except (ValueError, KeyError) as error:
        raise _broken(str(error).splitlines()[0]) from error
    _check_chain(first, entries)
    events = tuple(_event(first.stream, version, entry) for version, entry in enumerate(entries, 1))
    commands = {row.command: (row.first, row.last) for row in rows}
    if commands != commands_of(events) or len(rows) != len(commands):
        raise _broken(f"the command table of {first.stream} does not name the commands of its events")
    return StreamExport(first.stream, events, commands, proof)


def _entry(line: bytes) -> RawEntry:
    fields = _FIELDS_OF.validate_json(line)
    entry_id = fields.pop("id")
    raw = {n: base64.b64decode(v, validate=True) if n == "b" else v.encode() for n, v in fields.items()}
    return RawEntry(entry_id, raw)


def _check_chain(first: _First, entries: Sequence[RawEntry]) -> None:
    chain = ChainCheck(first.stream)
    chain.take(entries)
    chain.close(Head(first.events, first.hash))
    if chain.findings:
        raise _broken(str(chain.findings[0]))


def _event(stream: StreamId, version: int, entry: RawEntry) -> StoredEvent:
    texts = {name: entry.fields[name].decode() for name in FIELDS if name != "b"}
    try:
        return StoredEvent(
            stream=stream,
            version=version,
            type=texts["t"],
            schema=int(texts["s"]),
            body=entry.fields["b"],
            ts_ms=int(texts["ts"]),
            epoch=int(texts["e"]),
            command_id=CommandId(texts["c"]),
            actor=Principal(texts["a"]),
            causation=texts["k"],
            prev_hash=texts["p"],
            hash=texts["h"],
        )
    except FleetError as error:
        raise _broken(f"version {version} of {stream}: {error.message}") from error


def commands_of(events: Iterable[StoredEvent]) -> dict[CommandId, tuple[int, int]]:
    """The command table that belongs to these events: each command with its first and last version."""
    table: dict[CommandId, tuple[int, int]] = {}
    for event in events:
        first, _ = table.get(event.command_id, (event.version, event.version))
        table[event.command_id] = (first, event.version)
    return table


def _broken(why: str) -> LogCorrupted:
    return LogCorrupted(f"the export of the stream does not verify: {why}; restore its blob from a backup")
