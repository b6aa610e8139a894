"""Spans in the JSON encoding of OTLP 1.x: one document for a collector, or one line of a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-[!-~]{0,64})?")
_TRACE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span that others may hang on: 32 and 16 lower-case hex digits, neither of them all zero."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The header that carries it, with the flag that it is recorded."""
        return f"00-{self.trace_id}-{self.span_id}-01"


def parse_traceparent(header: str | None) -> TraceContext | None:
    """What a `traceparent` header names; None for any other text."""
    match = _FORM.fullmatch(header or "")
    if match is None or not int(match[1], 16) or not int(match[2], 16):
        return None
    return TraceContext(match[1], match[2])


def story_trace_id(story_id: str, recorded: str = "") -> str:
    """The trace of a story: the one that its first event carries (AP-8), otherwise one that follows from its id."""
    if _TRACE.fullmatch(recorded) and int(recorded, 16):
        return recorded
    return _digits("trace", story_id)[:32]


def span_id_of(*names: str) -> str:
    """The 16 digits of the span that these names mean; the same ones everywhere and always."""
    return _digits("span", *names)[:16]


def is_sampled(trace_id: str, ratio: float) -> bool:
    """Whether this trace is among the share `ratio` that is kept; every process says the same of one trace."""
    return int(trace_id[-16:], 16) < ratio * 2**64


def _digits(*names: str) -> str:
    digest = hashlib.sha256(b"swe-fleet/trace/1")
    for name in names:
        raw = name.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()


Attribute = str | int | float | bool
SpanKind = Literal["internal", "server", "client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSpan:
    """What happened from `start_ns` to `end_ns` (Unix time); `parent` is a span of the same trace, or of a caller."""

    name: str
    context: TraceContext
    start_ns: int
    end_ns: int
    parent: str | None = None
    """Span id; None for the first span of a trace."""
    kind: SpanKind = "internal"
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    """Ids, names of closed lists and numbers. Never text that a person or a model wrote."""
    error: str = ""
    """Code of what went wrong; empty when nothing did."""
    links: tuple[TraceContext, ...] = ()
    """Spans of other traces that led to it."""


_KINDS: Mapping[SpanKind, int] = {"internal": 1, "server": 2, "client": 3}
_ERROR = 2
LONGEST = 256
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
    document: dict[str, Any] = {
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
        document["parentSpanId"] = span.parent
    if span.links:
        document["links"] = [{"traceId": link.trace_id, "spanId": link.span_id} for link in span.links]
    return document


def _attributes(attributes: Mapping[str, Attribute]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Attribute) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value[:LONGEST]}
