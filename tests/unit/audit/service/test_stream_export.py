"""A whole stream as bytes and back (EV-25)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fleet.audit.service.stream_export import commands_of, export_stream, read_export
from fleet.events.envelope import StoredEvent, event_hash
from fleet.kernel.errors import LogCorrupted
from fleet.log.rules import hashed_fields
from tests.support.story_events import STORY, story

EVENTS = story(until="base").events
DATA = export_stream(EVENTS, commands_of(EVENTS), proof=b"\x00proof")


def lines() -> list[bytes]:
    return DATA.split(b"\n")


def joined(changed: list[bytes]) -> bytes:
    return b"\n".join(changed)


@pytest.mark.rule("EV-25", "GL-13")
def test_export_gives_back_every_stored_field_the_commands_and_the_proof() -> None:
    found = read_export(DATA)
    assert found.events == tuple(EVENTS)
    assert found.commands == commands_of(EVENTS)
    assert list(found.commands) == list(dict.fromkeys(event.command_id for event in EVENTS))
    assert (found.stream, found.proof) == (f"story:{STORY}", b"\x00proof")
    assert (found.head.version, found.head.hash) == (len(EVENTS), EVENTS[-1].hash)
    assert export_stream(found.events, found.commands, proof=found.proof) == DATA


def test_export_is_lines_of_json_with_the_stored_fields_by_name() -> None:
    entry = json.loads(lines()[1])
    assert set(entry) == {"id", "t", "s", "b", "ts", "e", "c", "a", "k", "p", "h"}
    assert (entry["id"], entry["t"], entry["s"]) == ("1-0", "StoryCreated", "1")


def stored(**changes: Any) -> StoredEvent:
    """The first event with these fields changed, and a hash that fits."""
    fields = hashed_fields(EVENTS[0]) | changes
    return StoredEvent(**fields, hash=event_hash(**fields))


def test_export_keeps_a_body_that_is_no_text() -> None:
    event = stored(body=b"\x00\xff\n")
    found = read_export(export_stream([event], commands_of([event])))
    assert (found.events, found.proof) == ((event,), b"")


def test_export_of_an_event_without_a_principal_is_never_read() -> None:
    event = stored(actor="nobody")
    with pytest.raises(LogCorrupted, match="version 1 of .*nobody"):
        read_export(export_stream([event], commands_of([event])))


def replaced(number: int, old: bytes, new: bytes) -> Callable[[], bytes]:
    def change() -> bytes:
        changed = lines()
        assert old in changed[number]
        changed[number] = changed[number].replace(old, new, 1)
        return joined(changed)

    return change


def without(number: int) -> bytes:
    return joined([line for at, line in enumerate(lines()) if at != number])


def swapped() -> bytes:
    changed = lines()
    changed[1], changed[2] = changed[2], changed[1]
    return joined(changed)


def shortened() -> bytes:
    """The last event and its command are gone, and the counts say so: only the head's hash tells."""
    changed = lines()
    first = json.loads(changed[0])
    first["events"] -= 1
    changed[0] = json.dumps(first).encode()
    del changed[len(EVENTS)]
    return joined(changed)


DAMAGED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no json": lambda: b"\xff" + DATA,
    "another format": replaced(0, b"stream/1", b"stream/2"),
    "cut": lambda: DATA[:-20],
    "longer": lambda: DATA + b"{}\n",
    "an event less": lambda: without(2),
    "an event less, count too": shortened,
    "two events swapped": swapped,
    "a body": replaced(1, b'"b":"ey', b'"b":"ez'),
    "no base64": replaced(1, b'"b":"', b'"b":"*'),
    "an actor": replaced(1, b"user:ana", b"user:eve"),
    "no fields": replaced(1, b'"id":"1-0",', b""),
    "no object": lambda: joined([lines()[0], b"[]", *lines()[2:]]),
    "no number": replaced(1, b'"s":"1"', b'"s":"one"'),
    "the end": replaced(0, EVENTS[-1].hash.encode(), b"f" * 64),
    "a command": replaced(len(EVENTS) + 1, b'"first":1', b'"first":2'),
    "a command's name": replaced(len(EVENTS) + 1, b'"command":"', b'"command":"x'),
    "a command twice": lambda: joined([*lines()[: len(EVENTS) + 2], lines()[len(EVENTS) + 1], *lines()[-2:]]),
    "the proof": replaced(-2, b'"proof":"', b'"proof":"*'),
}


@pytest.mark.rule("EV-25", "EV-32")
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_damaged_export_is_never_read(damage: Callable[[], bytes]) -> None:
    assert damage() != DATA
    with pytest.raises(LogCorrupted, match="does not verify"):
        read_export(damage())
