"""The AsyncAPI document: every event with its schema, and every message of the WebSocket (AP-100..AP-112)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from fleet.events.payload import Payload
from fleet.events.registry import EVENT_TYPES
from serve_apps.stream.socket import Auth, Ping, Subscribe, Unsubscribe
from serve_apps.wire.tool import LogLineView

_SCHEMAS = "#/components/schemas/"
_MESSAGES = "#/components/messages/"
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}


def asyncapi_document() -> dict[str, Any]:
    """AsyncAPI 3.0: the two streams, what each carries, and the schema of every event type."""
    schemas: dict[str, Any] = {}
    events = {name: _event_message(cls, schemas) for name, cls in EVENT_TYPES.items()}
    asked = {cls.__name__: _message(cls, schemas) for cls in (Auth, Subscribe, Unsubscribe, Ping)}
    told = _told(schemas)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SWE Fleet",
            "version": "1",
            "description": "Events of stories as they are recorded. The log counts; all other messages are hints.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": "/api/events/stream",
                "description": "Server-sent events; `event:` is the group of the type, `data:` the envelope. "
                "`Last-Event-ID` resumes without gap or repeat.",
                "messages": _references(events),
            },
            "socket": {
                "address": "/api/ws",
                "description": "One WebSocket: the first message is `auth`; it carries no commands.",
                "messages": _references([*asked, *told]),
                "bindings": {"ws": {"method": "GET"}},
            },
        },
        "operations": {
            "sendEvents": _operation("send", "events", events),
            "receiveAsks": _operation("receive", "socket", asked),
            "sendMessages": _operation("send", "socket", told),
        },
        "components": {"messages": {**events, **asked, **told}, "schemas": dict(sorted(schemas.items()))},
    }


def _references(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": _MESSAGES + name} for name in sorted(names)}


def _operation(action: str, channel: str, names: Iterable[str]) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in sorted(names)]
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "messages": messages}


def _event_message(cls: type[Payload], schemas: dict[str, Any]) -> dict[str, Any]:
    text = (cls.__doc__ or "").strip().splitlines()
    return {
        "name": cls.type,
        "title": cls.type,
        "summary": text[0] if text else cls.type,
        "tags": [{"name": cls.group}],
        "payload": envelope_schema(cls, schemas),
    }


def envelope_schema(cls: type[Payload], schemas: dict[str, Any]) -> dict[str, Any]:
    """The envelope of one event type (EV-12); the schema of its body is added to `schemas`."""
    fields: dict[str, Any] = {
        "event_id": {**_TEXT, "description": "`STREAM/VERSION`"},
        "stream": _TEXT,
        "version": {**_NUMBER, "minimum": 1},
        "type": {"const": cls.type},
        "schema": {**_NUMBER, "minimum": 1},
        "ts": {**_TEXT, "format": "date-time"},
        "actor": _TEXT,
        "origin": _TEXT,
        "command_id": _TEXT,
        "causation_id": _TEXT,
        "trace_id": _TEXT,
        "epoch": {**_NUMBER, "minimum": 0},
        "body": {"$ref": _add(cls, schemas)},
        "hash": {**_TEXT, "pattern": "^[0-9a-f]{64}$"},
    }
    return {"type": "object", "properties": fields, "required": sorted(fields), "additionalProperties": False}


def _add(cls: type[BaseModel], schemas: dict[str, Any]) -> str:
    """The reference to the model's schema, which is among `schemas` with all that it refers to."""
    name = getattr(cls, "type", cls.__name__)
    # Events are stored without fields that have no value, so nothing but what has no default is required.
    document = cls.model_json_schema(by_alias=True, ref_template=_SCHEMAS + "{model}", mode="validation")
    for part, schema in document.pop("$defs", {}).items():
        schemas[part] = schema
    schemas[str(name)] = document
    return _SCHEMAS + str(name)


def _message(cls: type[BaseModel], schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": cls.__name__,
        "summary": (cls.__doc__ or "").strip().splitlines()[0],
        "payload": {"$ref": _add(cls, schemas)},
    }


def _told(schemas: dict[str, Any]) -> dict[str, Any]:
    _add(LogLineView, schemas)
    line = {name: {} for name in LogLineView.model_fields}
    any_event = {"type": "object", "description": "The envelope of an event, as on channel `events`."}
    sub = {**_TEXT, "description": "The subscription that it is for."}
    return {
        "event": _frame("One event.", "event", sub=sub, envelope=any_event),
        "log": _frame("One line of a run.", "log", sub=sub, run_id=_TEXT, **line),
        "log_end": _frame("The run is over.", "log_end", sub=sub, run_id=_TEXT),
        "diff": _frame("The story has another tree.", "diff", sub=sub, task_id={}, tree=_TEXT, patch_ref=_TEXT),
        "progress": _frame(
            "How far a council is.", "progress", sub=sub, council_id=_TEXT, phase=_TEXT, percent=_NUMBER
        ),
        "subscribed": _frame("The subscription holds.", "subscribed", id=_TEXT),
        "error": _frame("A message was refused.", "error", sub={"type": ["string", "null"]}, code=_TEXT, detail=_TEXT),
        "pong": _frame("The line lives.", "pong"),
    }


def _frame(summary: str, op: str, **fields: Any) -> dict[str, Any]:
    properties = {"op": {"const": op}, **fields}
    return {
        "name": op,
        "summary": summary,
        "payload": {"type": "object", "properties": properties, "required": sorted(properties)},
    }
