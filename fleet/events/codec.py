"""Payloads to stored bodies and back, and the form in which events are published (EV-11..EV-13)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from fleet.events.envelope import NewEvent, StoredEvent
from fleet.events.payload import Payload, Value
from fleet.events.registry import EVENT_TYPES
from fleet.events.upcasters import UPCASTERS, Upcaster, upcast
from fleet.events.values import Origin
from fleet.kernel.digest import canonical_json, encode_plain
from fleet.kernel.errors import LogCorrupted, PayloadTooLarge, UnsupportedSchema
from fleet.redaction.redact_model import redact_model

MAX_BODY_BYTES = 64 * 1024
"""Largest body of one event, in bytes (EV-13)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(payload: Payload, *, trace_id: str = "", causation: str = "", origin: Origin | None = None) -> NewEvent:
    """The payload, without secrets, as an event to append; the same payload gives the same bytes (CX-60).

    This is the one place where what is recorded is looked at: nobody redacts a payload before it.

    Args:
        causation: event id or command id that led to it.
        origin: one of the type's `other_origins`, where it is not its usual origin that records it.

    Raises:
        PayloadTooLarge: the body is over 64 KiB; put large text into blobs and name digests.
    """
    meta = {"origin": origin or payload.origin, "trace_id": trace_id}
    assert meta["origin"] in (payload.origin, *payload.other_origins), f"{payload.type} never comes from {origin}"
    clean, data = redact_model(payload)
    has_one_form = _has_one_form(type(clean))
    body = (encode_plain if has_one_form else canonical_json)({**data, "meta": meta})
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge(
            f"a {payload.type} event takes {len(body)} bytes, {MAX_BODY_BYTES} are allowed: store the text as a blob",
            type=payload.type,
            size_bytes=len(body),
            limit_bytes=MAX_BODY_BYTES,
        )
    event = NewEvent(type=payload.type, schema=payload.schema_version, body=body, causation=causation)
    if has_one_form and EVENT_TYPES.get(payload.type) is type(clean):
        event.remember(clean)
    return event


@cache
def _has_one_form(kind: type[Value]) -> bool:
    """Whether values of this type are read back as they were written: text, numbers and fields of fixed names.

    A map comes back in another order, and free JSON as other types: what is folded from them must be what the log
    gives to the next owner.
    """
    return all(_is_of_one_form(field.annotation) for field in kind.model_fields.values())


def _is_of_one_form(annotation: Any) -> bool:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal or annotation in (int, bool, NoneType):
        return True
    if origin is Annotated:
        return _is_of_one_form(arguments[0])
    if origin in (Union, UnionType):
        return all(map(_is_of_one_form, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return _is_of_one_form(arguments[0])
    if not isinstance(annotation, type):
        return False
    return _has_one_form(annotation) if issubclass(annotation, Value) else issubclass(annotation, str)


def decode(
    event: StoredEvent,
    *,
    types: Mapping[str, type[Payload]] = EVENT_TYPES,
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> Payload:
    """The payload of a stored event, as the present model of its type; read once, and remembered by the event.

    Raises:
        UnsupportedSchema: the type is unknown or the schema newer; the caller stops the stream and skips nothing.
        LogCorrupted: the body is not a valid body of its type and schema.
    """
    is_usual = types is EVENT_TYPES and upcasters is UPCASTERS
    if is_usual and event.payload is not None:
        return event.payload
    cls = types.get(event.type)
    if cls is None:
        raise UnsupportedSchema(f"{_at(event)} is of an unknown type: upgrade fleet", **_facts(event))
    body, _ = _split(event)
    try:
        current = upcast(body, type=event.type, schema=event.schema, to=cls.schema_version, table=upcasters)
    except UnsupportedSchema as error:
        raise UnsupportedSchema(f"{_at(event)}: {error.message}", **_facts(event)) from error
    try:
        # By way of JSON: strict validation of Python values would refuse lists where the model has tuples.
        payload = cls.model_validate_json(to_json(current), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [f"{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise LogCorrupted(
            f"{_at(event)} does not match its model ({'; '.join(problems[:5])}): run `fleet audit verify`",
            problems=problems,
            **_facts(event),
        ) from error
    if is_usual:
        event.remember(payload)
    return payload


def published(event: StoredEvent) -> dict[str, Any]:
    """The envelope of EV-12 as JSON values: the body as stored, without `meta`; `ts` as RFC 3339 text.

    Raises:
        LogCorrupted: the body is not JSON with `meta`.
    """
    body, meta = _split(event)
    return {
        "event_id": event.event_id,
        "stream": str(event.stream),
        "version": event.version,
        "type": event.type,
        "schema": event.schema,
        "ts": rfc3339(event.ts_ms),
        "actor": str(event.actor),
        "origin": meta["origin"],
        "command_id": str(event.command_id),
        "causation_id": event.causation,
        "trace_id": meta["trace_id"],
        "epoch": event.epoch,
        "body": body,
        "hash": event.hash,
    }


def rfc3339(ts_ms: int) -> str:
    """UTC milliseconds since the Unix epoch as text, e.g. `2026-01-02T03:04:05.006Z` (GL-11)."""
    return (_EPOCH + timedelta(milliseconds=ts_ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ts_ms % 1000:03d}Z"


def _split(event: StoredEvent) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        body = from_json(event.body, allow_inf_nan=False)
    except ValueError as error:
        raise LogCorrupted(f"the body of {_at(event)} is not JSON", **_facts(event)) from error
    match body:
        case {"meta": {"origin": str(origin), "trace_id": str(trace_id)}, **rest}:
            return rest, {"origin": origin, "trace_id": trace_id}
        case _:
            raise LogCorrupted(
                f"the body of {_at(event)} is not an object with meta {{origin, trace_id}}", **_facts(event)
            )


def _at(event: StoredEvent) -> str:
    return f"event {event.event_id} ({event.type}, schema {event.schema})"


def _facts(event: StoredEvent) -> dict[str, Any]:
    return {"stream": str(event.stream), "version": event.version, "type": event.type, "schema": event.schema}
