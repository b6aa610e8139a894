"""Payloads to stored bodies and back, and the form in which events are published (EV-11..EV-13)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from fleet.events.envelope import NewEvent, StoredEvent
from fleet.events.payload import Payload
from fleet.events.registry import EVENT_TYPES
from fleet.events.upcasters import UPCASTERS, Upcaster, upcast
from fleet.events.values import Origin
from fleet.kernel.digest import canonical_json
from fleet.kernel.errors import LogCorrupted, PayloadTooLarge, UnsupportedSchema

MAX_BODY_BYTES = 64 * 1024
"""Largest body of one event, in bytes (EV-13)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode(payload: Payload, *, trace_id: str = "", causation: str = "", origin: Origin | None = None) -> NewEvent:
    """The payload as an event to append; the same payload gives the same bytes.

    Args:
        causation: event id or command id that led to it.
        origin: one of the type's `other_origins`, where it is not its usual origin that records it.

    Raises:
        PayloadTooLarge: the body is over 64 KiB; put large text into blobs and name digests.
    """
    meta = {"origin": origin or payload.origin, "trace_id": trace_id}
    assert meta["origin"] in (payload.origin, *payload.other_origins), f"{payload.type} never comes from {origin}"
    body = canonical_json({**payload.model_dump(mode="json", by_alias=True, exclude_none=True), "meta": meta})
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLarge(
            f"a {payload.type} event takes {len(body)} bytes, {MAX_BODY_BYTES} are allowed: store the text as a blob",
            type=payload.type,
            size_bytes=len(body),
            limit_bytes=MAX_BODY_BYTES,
        )
    return NewEvent(type=payload.type, schema=payload.schema_version, body=body, causation=causation)


def decode(
    event: StoredEvent,
    *,
    types: Mapping[str, type[Payload]] = EVENT_TYPES,
    upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS,
) -> Payload:
    """The payload of a stored event, as the present model of its type.

    Raises:
        UnsupportedSchema: the type is unknown or the schema newer; the caller stops the stream and skips nothing.
        LogCorrupted: the body is not a valid body of its type and schema.
    """
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
        return cls.model_validate_json(json.dumps(current), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [f"{'/'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise LogCorrupted(
            f"{_at(event)} does not match its model ({'; '.join(problems[:5])}): run `fleet audit verify`",
            problems=problems,
            **_facts(event),
        ) from error


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
        body = json.loads(event.body)
    except ValueError as error:
        raise LogCorrupted(f"the body of {_at(event)} is not JSON", **_facts(event)) from error
    match body:
        case {"meta": {"origin": str(origin), "trace_id": str(trace_id)}, **rest}:
            return {str(k): v for k, v in rest.items()}, {"origin": origin, "trace_id": trace_id}
        case _:
            raise LogCorrupted(
                f"the body of {_at(event)} is not an object with meta {{origin, trace_id}}", **_facts(event)
            )


def _at(event: StoredEvent) -> str:
    return f"event {event.event_id} ({event.type}, schema {event.schema})"


def _facts(event: StoredEvent) -> dict[str, Any]:
    return {"stream": str(event.stream), "version": event.version, "type": event.type, "schema": event.schema}
