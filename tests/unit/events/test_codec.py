"""Bodies, their refusal, and the published form (EV-11..EV-13, EV-30)."""

from __future__ import annotations

import json
from dataclasses import replace
from types import NoneType
from typing import Any, ClassVar, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.events.codec import MAX_BODY_BYTES, decode, encode, published, rfc3339
from fleet.events.decision import DecisionProposed
from fleet.events.envelope import NewEvent, StoredEvent
from fleet.events.payload import Payload
from fleet.events.story import QuestionAnswered, StoryCancelled, StoryEdited, StoryTransitioned
from fleet.events.upcasters import upcast
from fleet.events.values import EventGroup, Origin
from fleet.kernel.errors import LogCorrupted, PayloadTooLarge, UnsupportedSchema
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from tests.support.event_samples import digest, samples

META = {"origin": "planning", "trace_id": "t-1"}


def stored(type: str, body: Any, *, schema: int = 1) -> StoredEvent:
    return StoredEvent(
        stream=StreamId("story:st-cart7"),
        version=12,
        type=type,
        schema=schema,
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        ts_ms=1_767_323_045_006,
        epoch=4,
        command_id=CommandId("st-cart7/step/finish"),
        actor=Principal("user:ana"),
        causation="story:st-cart7/11",
        prev_hash="0" * 64,
        hash="f" * 64,
    )


def as_stored(event: NewEvent) -> StoredEvent:
    return stored(event.type, event.body, schema=event.schema)


@pytest.mark.rule("EV-11", "GL-13")
def test_encode_gives_canonical_json_with_aliases_and_meta():
    event = encode(
        StoryTransitioned(from_="DRAFT", event="approve_scope", to="DESIGN"), trace_id="t-1", causation="cmd-1"
    )
    assert event == NewEvent(
        type="StoryTransitioned",
        schema=1,
        body=b'{"event":"approve_scope","from":"DRAFT","guards":[],"loopback":false,'
        b'"meta":{"origin":"planning","trace_id":"t-1"},"skipped":[],"to":"DESIGN"}',
        causation="cmd-1",
    )


def test_encode_with_another_origin_of_the_type_records_it():
    event = encode(samples()["DecisionProposed"], origin="council")
    body = published(as_stored(event))
    assert (body["origin"], body["body"]["origin"]) == ("council", "human")


def test_encode_with_an_origin_that_never_records_the_type_is_refused():
    with pytest.raises(AssertionError, match="never comes from scorer"):
        encode(StoryCancelled(reason="the shop closes"), origin="scorer")


@pytest.mark.rule("EV-13")
def test_encode_of_a_body_at_the_limit_passes_and_one_byte_more_is_refused():
    def answer(length: int) -> QuestionAnswered:
        return QuestionAnswered(question_id=EntityId("qu-one1"), answer="a" * length, answered_by=Principal("user:ana"))

    room = MAX_BODY_BYTES - len(encode(answer(0)).body)
    assert len(encode(answer(room)).body) == MAX_BODY_BYTES
    with pytest.raises(PayloadTooLarge, match="QuestionAnswered.*65537 bytes") as caught:
        encode(answer(room + 1))
    assert caught.value.details == {"type": "QuestionAnswered", "size_bytes": 65537, "limit_bytes": 65536}


@pytest.mark.rule("GL-12")
@pytest.mark.parametrize("value", [0.5, {"a": [1, 2.0]}, [{"b": 1e3}]])
def test_payload_with_a_float_is_refused(value: Any):
    with pytest.raises(ValidationError, match="no floats"):
        StoryEdited(changes={"x": value}, content_digest=digest("a"), previous_content_digest=digest("b"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(changes=st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_any_json_without_floats_survives_encode_and_decode(changes: dict[str, Any]):
    payload = StoryEdited(changes=changes, content_digest=digest("a"), previous_content_digest=digest("b"))
    event = encode(payload)
    again = decode(as_stored(event))
    assert again == payload
    assert encode(again) == event


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"reason": "no", "colour": "red", "meta": META}, "colour"),
        ({"meta": META}, "reason"),
        ({"reason": 7, "meta": META}, "reason"),
        ({"reason": None, "meta": META}, "reason"),
    ],
)
@pytest.mark.rule("GL-7")
def test_decode_of_a_body_unlike_its_model_is_corrupted_and_names_the_field(body: dict[str, Any], names: str):
    with pytest.raises(LogCorrupted, match=rf"story:st-cart7/12 \(StoryCancelled, schema 1\).*{names}") as caught:
        decode(stored("StoryCancelled", body))
    details = caught.value.details
    assert (details["stream"], details["version"], details["type"]) == ("story:st-cart7", 12, "StoryCancelled")


def test_decode_takes_stored_names_only_not_the_python_ones():
    body = {"from_": "DRAFT", "event": "approve_scope", "to": "DESIGN", "meta": META}
    with pytest.raises(LogCorrupted, match="from_"):
        decode(stored("StoryTransitioned", body))


@pytest.mark.parametrize("number", [1.0, "1", True])
def test_decode_of_a_number_in_another_form_is_corrupted(number: Any):
    body = {"approval_id": "ap-one1", "attempt": number, "meta": META}
    with pytest.raises(LogCorrupted, match="attempt"):
        decode(stored("ApprovalExpired", body))


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe{}", b"[]", b"{}", b'{"meta":{"origin":"planning"}}'])
@pytest.mark.parametrize("read", [decode, published])
def test_reading_a_body_that_is_no_body_is_corrupted(raw: bytes, read: Any):
    with pytest.raises(LogCorrupted, match="story:st-cart7/12"):
        read(stored("StoryCancelled", raw))


@pytest.mark.rule("EV-30")
def test_decode_of_an_unknown_type_is_unsupported():
    with pytest.raises(UnsupportedSchema, match="StoryPainted") as caught:
        decode(stored("StoryPainted", {"meta": META}))
    assert caught.value.details == {
        "stream": "story:st-cart7",
        "version": 12,
        "type": "StoryPainted",
        "schema": 1,
    }


@pytest.mark.rule("EV-30")
def test_decode_of_a_newer_schema_is_unsupported_and_names_both():
    with pytest.raises(UnsupportedSchema, match="has schema 2, this version reads up to 1") as caught:
        decode(stored("StoryCancelled", {"reason": "no", "meta": META}, schema=2))
    assert caught.value.details["version"] == 12


@pytest.mark.rule("EV-12", "GL-11")
def test_published_is_the_envelope_without_meta_in_the_body():
    event = stored("StoryCancelled", {"reason": "the shop closes", "meta": META})
    assert published(event) == {
        "event_id": "story:st-cart7/12",
        "stream": "story:st-cart7",
        "version": 12,
        "type": "StoryCancelled",
        "schema": 1,
        "ts": "2026-01-02T03:04:05.006Z",
        "actor": "user:ana",
        "origin": "planning",
        "command_id": "st-cart7/step/finish",
        "causation_id": "story:st-cart7/11",
        "trace_id": "t-1",
        "epoch": 4,
        "body": {"reason": "the shop closes"},
        "hash": "f" * 64,
    }


def test_published_form_is_json():
    event = as_stored(encode(samples()["StepStarted"]))
    assert json.loads(json.dumps(published(event))) == published(event)


@pytest.mark.rule("GL-11")
@pytest.mark.parametrize(
    ("ts_ms", "text"),
    [(0, "1970-01-01T00:00:00.000Z"), (1, "1970-01-01T00:00:00.001Z"), (951_827_696_789, "2000-02-29T12:34:56.789Z")],
)
def test_rfc3339_has_milliseconds_and_z(ts_ms: int, text: str):
    assert rfc3339(ts_ms) == text


class Painted(Payload):
    """Third schema of an example type: v1 {color}, v2 {colour}, v3 {colour, coats}."""

    schema_version = 3
    group: ClassVar[EventGroup] = "story"
    origin: ClassVar[Origin] = "planning"
    colour: str
    coats: int


EXAMPLE_TABLE = {
    ("Painted", 1): lambda body: {"colour": body.pop("color"), **body},
    ("Painted", 2): lambda body: {**body, "coats": 1},
}


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize(
    ("schema", "body"),
    [(1, {"color": "red"}), (2, {"colour": "red"}), (3, {"colour": "red", "coats": 1})],
)
def test_decode_lifts_every_older_schema_to_the_present_model(schema: int, body: dict[str, Any]):
    event = stored("Painted", {**body, "meta": META}, schema=schema)
    assert decode(event, types={"Painted": Painted}, upcasters=EXAMPLE_TABLE) == Painted(colour="red", coats=1)
    assert published(event)["body"] == body


@pytest.mark.rule("EV-30")
def test_decode_with_a_missing_upcaster_is_unsupported():
    event = stored("Painted", {"color": "red", "meta": META}, schema=1)
    with pytest.raises(UnsupportedSchema, match="no upcaster from schema 2"):
        decode(event, types={"Painted": Painted}, upcasters={("Painted", 1): EXAMPLE_TABLE["Painted", 1]})


def test_decode_with_a_schema_below_one_is_unsupported():
    event = stored("StoryCancelled", {"reason": "no", "meta": META}, schema=0)
    with pytest.raises(UnsupportedSchema, match="no upcaster from schema 0"):
        decode(event)


def test_upcast_leaves_the_given_body_as_it_is():
    body = {"color": "red"}
    assert upcast(body, type="Painted", schema=1, to=3, table=EXAMPLE_TABLE) == {"colour": "red", "coats": 1}
    assert body == {"color": "red"}


def test_decision_keeps_its_own_origin_apart_from_the_recording_service():
    event = as_stored(encode(samples()["DecisionProposed"]))
    payload = decode(event)
    assert isinstance(payload, DecisionProposed)
    assert (payload.origin_, payload.origin) == ("human", "tasks")


@pytest.mark.rule("EV-11", "EV-12")
@pytest.mark.parametrize("payload", samples().values(), ids=samples().keys())
def test_event_remembers_what_a_reader_of_its_body_finds(payload: Payload) -> None:
    """Who folds what it has just appended sees what the next owner reads, in its types and in its order."""
    event = encode(payload)
    read = decode(as_stored(event))
    assert event.payload is None or (event.payload == read and repr(event.payload) == repr(read))
    written = as_stored(event)
    assert decode(written) is decode(written)
    assert written.payload == read


def test_types_with_maps_and_free_json_are_read_from_the_body() -> None:
    remembered = {name for name, payload in samples().items() if encode(payload).payload is not None}
    assert {"StepStarted", "StepFinished", "DraftReceived", "StoryTransitioned"} <= remembered
    assert remembered.isdisjoint({"StoryCreated", "StoryEdited", "BudgetSet", "UsageAdjusted"})


def test_field_that_may_be_left_out_is_none_without_a_value() -> None:
    """What is left out of the body comes back as the default, which therefore must be what was left out."""
    for payload in samples().values():
        for name, field in type(payload).model_fields.items():
            takes_none = NoneType in get_args(field.annotation)
            assert not takes_none or field.is_required() or field.default is None, f"{payload.type}.{name}"


def test_copy_of_an_event_with_another_body_forgets_its_payload() -> None:
    event = as_stored(encode(StoryCancelled(reason="the shop closes")))
    assert decode(event) == StoryCancelled(reason="the shop closes")
    changed = replace(event, body=event.body.replace(b"closes", b"opens!"))
    assert decode(changed) == StoryCancelled(reason="the shop opens!")


@pytest.mark.rule("CX-60")
def test_encode_takes_secrets_out_of_what_is_recorded_and_remembered() -> None:
    event = encode(StoryCancelled(reason="use PASSWORD=hunter2-hunter2 instead"))
    assert b"hunter2" not in event.body
    assert event.payload == decode(as_stored(event))


def test_body_with_a_number_that_json_does_not_have_is_corrupted() -> None:
    with pytest.raises(LogCorrupted, match="is not JSON"):
        decode(stored("StoryCancelled", b'{"reason":NaN,"meta":{"origin":"planning","trace_id":""}}'))
