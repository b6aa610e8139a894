"""A collector of traces on a free loopback port, in a thread: takes OTLP over HTTP, and keeps every span."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_INTERNAL, _CLIENT = 1, 5
"""Span kinds of OTLP; 0 is `unspecified`, which nobody should send."""


@dataclass(frozen=True)
class Span:
    """One span as it was sent."""

    trace_id: str
    span_id: str
    parent: str | None
    name: str
    process: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    error: str
    links: tuple[str, ...]

    @property
    def place(self) -> tuple[str, str]:
        """Trace and span."""
        return self.trace_id, self.span_id


@dataclass
class Collector:
    """What was sent; `refusing` answers everything with 503 from here on."""

    endpoint: str
    headers: list[Mapping[str, str]] = field(default_factory=list)
    documents: list[dict[str, Any]] = field(default_factory=list)
    refusing: bool = False
    busy: int = 0
    """So many times it answers 503 with a time to come again, and takes what comes then."""
    _lock: Lock = field(default_factory=Lock)

    def take(self, headers: Mapping[str, str], document: dict[str, Any]) -> int:
        with self._lock:
            if self.refusing or self.busy > 0:
                self.busy -= not self.refusing
                return 503
            self.headers.append(headers)
            self.documents.append(document)
        return 200

    def spans(self) -> list[Span]:
        """Every span so far; one that was sent twice stands here twice."""
        with self._lock:
            return [span for document in self.documents for span in spans_of(document)]


def _document(raw: bytes) -> dict[str, Any]:
    """The request in the JSON encoding of OTLP, whose ids are hex where that of protobuf has base64."""
    request = ExportTraceServiceRequest.FromString(raw)
    document = MessageToDict(request, use_integers_for_enums=True)
    for resource, found in zip(request.resource_spans, document.get("resourceSpans", ()), strict=True):
        for scope, told in zip(resource.scope_spans, found["scopeSpans"], strict=True):
            for span, raw_span in zip(scope.spans, told["spans"], strict=True):
                raw_span |= {"traceId": span.trace_id.hex(), "spanId": span.span_id.hex()}
                raw_span |= {"parentSpanId": span.parent_span_id.hex()} if span.parent_span_id else {}
                raw_span |= {"links": [{"traceId": link.trace_id.hex()} for link in span.links]}
    return document


def spans_of(document: Mapping[str, Any]) -> Iterator[Span]:
    """The spans of one ExportTraceServiceRequest; an AssertionError for what no collector would take."""
    for resource in document["resourceSpans"]:
        facts = _plain(resource["resource"]["attributes"])
        assert facts["service.name"] == "swe-fleet"
        for scope in resource["scopeSpans"]:
            for raw in scope["spans"]:
                yield _span(raw, process=facts["service.instance.id"])


def _span(raw: Mapping[str, Any], *, process: str) -> Span:
    assert len(bytes.fromhex(raw["traceId"])) == 16
    assert len(bytes.fromhex(raw["spanId"])) == 8
    assert _INTERNAL <= raw["kind"] <= _CLIENT
    assert raw["name"]
    start_ns, end_ns = int(raw["startTimeUnixNano"]), int(raw["endTimeUnixNano"])
    assert 0 < start_ns <= end_ns
    return Span(
        trace_id=raw["traceId"],
        span_id=raw["spanId"],
        parent=raw.get("parentSpanId"),
        name=raw["name"],
        process=process,
        start_ns=start_ns,
        end_ns=end_ns,
        attributes=_plain(raw.get("attributes", ())),
        error=raw["status"].get("message", ""),
        links=tuple(link["traceId"] for link in raw.get("links", ())),
    )


def _plain(attributes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {each["key"]: next(iter(each["value"].values())) for each in attributes}


def connected(spans: Iterable[Span]) -> set[str]:
    """The names of spans that hang on nothing: in one connected tree, that of its root alone."""
    found = list(spans)
    known = {span.place for span in found}
    return {span.name for span in found if (span.trace_id, span.parent) not in known}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that answers until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            taken = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            status = found.take(dict(self.headers), _document(gzip.decompress(raw))) if taken else 404
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
