"""The hash of an event covers every stored field (EV-11)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.events.envelope import GENESIS_HASH, Head, StoredEvent, event_hash
from fleet.kernel.ids import CommandId, Principal, StreamId

FIELDS: dict[str, Any] = {
    "stream": "story:st-cart7",
    "version": 1,
    "type": "StoryClosed",
    "schema": 1,
    "body": b'{"final_state":"DONE","meta":{"origin":"planning","trace_id":""}}',
    "ts_ms": 1_767_323_045_006,
    "epoch": 1,
    "command_id": "st-cart7/close/finish",
    "actor": "system:council",
    "causation": "",
    "prev_hash": GENESIS_HASH,
}
KNOWN = "3ee163c4128a0a2213ce246bcb241fe9df78768d60a8c7103eb47904dd2fb04c"


@pytest.mark.rule("EV-11")
def test_event_hash_of_known_event_stays_the_same_forever():
    assert event_hash(**FIELDS) == KNOWN


@pytest.mark.rule("EV-11")
@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("stream", "story:st-cart8"),
        ("version", 2),
        ("type", "StoryCancelled"),
        ("schema", 2),
        ("body", b"{}"),
        ("ts_ms", 1_767_323_045_007),
        ("epoch", 2),
        ("command_id", "st-cart7/close/start"),
        ("actor", "user:ana"),
        ("causation", "story:st-cart7/1"),
        ("prev_hash", "1" * 64),
    ],
)
def test_event_hash_with_one_field_changed_is_another(field: str, other: Any):
    assert event_hash(**{**FIELDS, field: other}) != event_hash(**FIELDS)


@pytest.mark.rule("EV-11")
def test_event_hash_with_bytes_moved_between_fields_is_another():
    left = {**FIELDS, "type": "StoryClosed1", "schema": 1}
    right = {**FIELDS, "type": "StoryClosed", "schema": 11}
    assert event_hash(**left) != event_hash(**right)


def test_event_hash_covers_every_field_of_a_stored_event_but_itself():
    assert set(FIELDS) == set(StoredEvent.__dataclass_fields__) - {"hash", "payload"}


@pytest.mark.rule("EV-12")
def test_event_id_is_stream_and_version():
    event = StoredEvent(
        **{
            **FIELDS,
            "stream": StreamId("story:st-cart7"),
            "command_id": CommandId("c"),
            "actor": Principal("user:ana"),
            "hash": "",
        }
    )
    assert event.event_id == "story:st-cart7/1"


def test_head_of_an_empty_stream_is_the_genesis():
    assert Head() == Head(version=0, hash=GENESIS_HASH, epoch=0)
