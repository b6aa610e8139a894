"""The AsyncAPI document names every event and every message, and what it refers to is there (AP-100, AP-110)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from fleet.events.codec import published
from fleet.events.registry import EVENT_TYPES
from serve_apps.stream.asyncapi import asyncapi_document
from serve_apps.stream.routes import group_of
from tests.support.story_events import story
from tests.support.streamed_events import problems_of

DOCUMENT = asyncapi_document()


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, part in value.items():
            if name == "$ref" and isinstance(part, str):
                yield part
            else:
                yield from _references(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _references(part)


@pytest.mark.rule("AP-100", "AP-101")
def test_every_event_type_is_a_message_with_its_group_and_schema():
    messages = DOCUMENT["components"]["messages"]
    assert set(EVENT_TYPES) <= set(messages)
    assert set(DOCUMENT["channels"]["events"]["messages"]) == set(EVENT_TYPES)
    for name, cls in EVENT_TYPES.items():
        assert messages[name]["tags"] == [{"name": cls.group}]
        assert messages[name]["payload"]["properties"]["type"] == {"const": name}
        assert name in DOCUMENT["components"]["schemas"]


def test_everything_that_is_referred_to_exists():
    found = set(_references(DOCUMENT))
    assert found
    for reference in found:
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place is not None


@pytest.mark.rule("AP-110", "AP-112")
def test_socket_takes_four_messages_and_no_command():
    asked = DOCUMENT["operations"]["receiveAsks"]["messages"]
    names = {message["$ref"].rsplit("/", 1)[1] for message in asked}
    assert names == {"Auth", "Ping", "Subscribe", "Unsubscribe"}


def test_recorded_events_have_exactly_the_fields_of_the_document():
    messages, schemas = DOCUMENT["components"]["messages"], DOCUMENT["components"]["schemas"]
    for event in story().events:
        envelope = published(event)
        described = messages[event.type]["payload"]
        assert set(envelope) == set(described["properties"])
        body = schemas[event.type]
        assert set(envelope["body"]) <= set(body.get("properties", {})), event.type
        assert set(body.get("required", [])) <= set(envelope["body"]), event.type


def test_every_recorded_event_validates_and_a_wrong_one_does_not():
    for event in story().events:
        frame = {"id": event.event_id, "event": group_of(event), "data": json.dumps(published(event))}
        assert problems_of(frame, DOCUMENT) == []
    event = story().events[0]
    envelope = published(event)
    for change in ({"version": 0}, {"actor": 7}, {"more": 1}, {"body": {}}, {"hash": "x"}):
        wrong = {"id": event.event_id, "event": group_of(event), "data": json.dumps(envelope | change)}
        assert problems_of(wrong, DOCUMENT), change
    assert problems_of({"id": "x", "event": "task", "data": json.dumps(envelope)}, DOCUMENT)
    assert problems_of({"data": json.dumps(envelope | {"type": "Nothing"})}, DOCUMENT)
