"""Spans in the JSON encoding of OTLP 1.x: one document for a collector, or one line of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.observability.span import Attribute, FinishedSpan, SpanKind

__all__ = ["otlp_document"]

_KINDS: Mapping[SpanKind, int] = {"internal": 1, "server": 2, "client": 3}
_ERROR = 2
_LONGEST = 256
"""Characters of a value; longer ones are cut."""


def otlp_document(spans: Sequence[FinishedSpan], *, resource: Mapping[str, Attribute]) -> dict[str, Any]:
    """An ExportTraceServiceRequest. Ids are hex, 64-bit numbers are text, as the encoding asks for."""
    scope = {"name": "swe-fleet"}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": [_span(span) for span in spans]}],
            }
        ]
    }


def _span(span: FinishedSpan) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.context.trace_id,
        "spanId": span.context.span_id,
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": _attributes(span.attributes),
        "status": {"code": _ERROR, "message": span.error} if span.error else {},
    }
    if span.parent:
        found["parentSpanId"] = span.parent
    if span.links:
        found["links"] = [{"traceId": link.trace_id, "spanId": link.span_id} for link in span.links]
    return found


def _attributes(found: Mapping[str, Attribute]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in found.items()]


def _value(value: Attribute) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value[:_LONGEST]}
