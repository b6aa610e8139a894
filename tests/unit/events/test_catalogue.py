"""Every event type of the catalogue has a model and a golden body that loads forever (EV-30, EV-31)."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from fleet.events.codec import decode, encode
from fleet.events.envelope import NewEvent, StoredEvent
from fleet.events.payload import Payload
from fleet.events.registry import EVENT_TYPES
from fleet.events.values import EventGroup, Origin
from fleet.kernel.digest import canonical_json
from fleet.kernel.ids import CommandId, Principal, StreamId
from tests.support.event_samples import GOLDEN, TRACE_ID, fields_of, golden_path, samples

SAMPLES = samples()
TYPES = sorted(EVENT_TYPES)
PINNED: dict[str, dict[str, bool]] = json.loads((GOLDEN / "fields.json").read_text())


def stored(event: NewEvent, *, schema: int | None = None) -> StoredEvent:
    return StoredEvent(
        stream=StreamId("story:st-cart7"),
        version=3,
        type=event.type,
        schema=event.schema if schema is None else schema,
        body=event.body,
        ts_ms=1_767_323_045_006,
        epoch=1,
        command_id=CommandId("st-cart7/step/finish"),
        actor=Principal("system:council"),
        causation="",
        prev_hash="0" * 64,
        hash="f" * 64,
    )


@pytest.mark.rule("EV-31")
def test_catalogue_and_golden_folders_name_the_same_types():
    assert sorted(p.name for p in GOLDEN.iterdir() if p.is_dir()) == TYPES


@pytest.mark.rule("EV-31")
def test_catalogue_and_samples_name_the_same_types():
    assert sorted(SAMPLES) == TYPES


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/v*.json")), ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_golden_body_of_any_schema_loads_as_the_present_model(path: Any):
    body = json.loads(path.read_text())
    event = NewEvent(type=path.parent.name, schema=int(path.stem[1:]), body=canonical_json(body))
    assert decode(stored(event)).type == event.type


@pytest.mark.rule("EV-30", "EV-31")
@pytest.mark.parametrize("name", TYPES)
def test_golden_body_reencodes_to_the_same_bytes(name: str):
    cls = EVENT_TYPES[name]
    body = json.loads(golden_path(cls).read_text())
    raw = canonical_json(body)
    payload = decode(stored(NewEvent(type=name, schema=cls.schema_version, body=raw)))
    assert encode(payload, trace_id=TRACE_ID, origin=body["meta"]["origin"]).body == raw


@pytest.mark.parametrize("name", TYPES)
def test_sample_survives_encode_and_decode(name: str):
    payload = SAMPLES[name]
    assert decode(stored(encode(payload, trace_id=TRACE_ID))) == payload


@pytest.mark.rule("EV-30")
@pytest.mark.parametrize("name", TYPES)
def test_fields_of_a_schema_change_only_by_new_optional_ones(name: str):
    now, then = fields_of(EVENT_TYPES[name]), PINNED[name]
    assert then.keys() <= now.keys(), "a field was renamed or removed: raise schema_version and add an upcaster"
    newly_required = sorted(field for field, required in now.items() if required and not then.get(field, False))
    assert not newly_required, "stored bodies lack these fields: give them a default or raise schema_version"


@pytest.mark.rule("AP-101", "EV-17")
@pytest.mark.parametrize("name", TYPES)
def test_type_declares_schema_origin_and_group(name: str):
    cls = EVENT_TYPES[name]
    assert cls.type == cls.__name__ == name
    assert cls.schema_version >= 1
    assert {cls.origin, *cls.other_origins} <= set(get_args(Origin))
    assert cls.group in get_args(EventGroup)


def test_every_group_has_a_type():
    assert {cls.group for cls in EVENT_TYPES.values()} == set(get_args(EventGroup))


def subclasses(cls: type[Payload]) -> set[type[Payload]]:
    return set(cls.__subclasses__()).union(*(subclasses(c) for c in cls.__subclasses__()))


def test_every_event_writes_its_type_out_and_is_registered():
    leaves = {c for c in subclasses(Payload) if not c.__subclasses__() and c.__module__.startswith("fleet.events.")}
    assert [c.__name__ for c in leaves if "type" not in vars(c)] == []
    assert leaves == set(EVENT_TYPES.values())


@pytest.mark.rule("GL-12")
@pytest.mark.parametrize("name", TYPES)
def test_golden_body_holds_no_float(name: str):
    def refuse(text: str) -> None:
        raise AssertionError(f"{name} holds the float {text}")

    json.loads(golden_path(EVENT_TYPES[name]).read_text(), parse_float=refuse)
