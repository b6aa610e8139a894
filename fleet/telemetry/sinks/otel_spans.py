"""Spans through the SDK of OpenTelemetry: queued, sent in batches by a thread, given up when nobody takes them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from fleet.telemetry.otlp import LONGEST, Attribute, FinishedSpan, TraceContext, otlp_document
from fleet.telemetry.sinks.places import BatchSink, SpanBatch, SpansRefused

_LOG = logging.getLogger("fleet.telemetry")
_QUEUE = 8192
_BATCH = 512
_EVERY_MS = 1000
_LAST_MS = 2000
_TIMEOUT_S = 3.0
_COMPRESSION = ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")
_KINDS: Mapping[str, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "client": SpanKind.CLIENT,
}


class CollectorPlace:
    """A collector at `<endpoint>/v1/traces` (OTLP over HTTP, `http/protobuf`), asked again while it is busy.

    Certificates and compression are those of the variables `OTEL_EXPORTER_OTLP_*`; gzip unless they say otherwise.

    Args:
        endpoint: as OTEL_EXPORTER_OTLP_ENDPOINT has it, `http://host:4318`.
        headers: sent along, such as a key of the collector.
        timeout_s: for one batch with all its tries.
    """

    def __init__(self, endpoint: str, *, headers: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> None:
        # It would write a line for each batch that is lost; how many are is a figure, and one line says why.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        chosen = None if any(name in os.environ for name in _COMPRESSION) else Compression.Gzip
        self._exporter = OTLPSpanExporter(
            endpoint.rstrip("/") + "/v1/traces", headers=dict(headers), timeout=timeout_s, compression=chosen
        )

    def put(self, batch: SpanBatch) -> None:
        """See `BatchSink.put`."""
        if self._exporter.export(batch.spans) is not SpanExportResult.SUCCESS:
            raise SpansRefused("not_taken")

    def close(self) -> None:
        """See `BatchSink.close`."""
        self._exporter.shutdown()


class _Span(ReadableSpan):
    """A span of ours as any exporter of the SDK reads it."""

    def __init__(self, finished: FinishedSpan, resource: Resource) -> None:
        parent = None if finished.parent is None else TraceContext(finished.context.trace_id, finished.parent)
        super().__init__(
            finished.name,
            context=_context(finished.context),
            parent=None if parent is None else _context(parent),
            resource=resource,
            attributes={k: v[:LONGEST] if isinstance(v, str) else v for k, v in finished.attributes.items()},
            links=[Link(_context(link)) for link in finished.links],
            kind=_KINDS[finished.kind],
            status=Status(StatusCode.ERROR, finished.error) if finished.error else Status(),
            start_time=finished.start_ns,
            end_time=finished.end_ns,
        )
        self.finished = finished


def _context(context: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), is_remote=False, trace_flags=flags)


class _Exporter(SpanExporter):
    def __init__(
        self, places: Sequence[BatchSink], resource: Mapping[str, Attribute], lost: Callable[[str, int], None]
    ) -> None:
        self._places, self._resource, self._lost = places, resource, lost
        self._failing: set[str] = set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        finished = [span.finished for span in spans if isinstance(span, _Span)]
        batch, result = SpanBatch(spans, otlp_document(finished, resource=self._resource)), SpanExportResult.SUCCESS
        for place in self._places:
            try:
                place.put(batch)
                self._failing.clear()
            except SpansRefused as error:
                self._lost(error.reason, len(finished))
                if error.reason not in self._failing:
                    _LOG.warning("spans are lost: the place that takes them is %s", error.reason)
                self._failing.add(error.reason)
                result = SpanExportResult.FAILURE
        return result

    def shutdown(self) -> None:
        for place in self._places:
            place.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class OtelSpans:
    """Port SpanSink over a batch processor.

    Args:
        places: where the spans go; each of them gets all.
        process: name of the actor, deployment or command.
        lost: is told why and how many spans were lost.
    """

    def __init__(self, places: Sequence[BatchSink], *, process: str, lost: Callable[[str, int], None]) -> None:
        facts: dict[str, Attribute] = {"service.name": "swe-fleet", "service.instance.id": process}
        self._resource = Resource(facts)
        self._processor = BatchSpanProcessor(
            _Exporter(places, facts, lost),
            max_queue_size=_QUEUE,
            max_export_batch_size=_BATCH,
            schedule_delay_millis=_EVERY_MS,
        )

    def emit(self, spans: Sequence[FinishedSpan]) -> None:
        """See `SpanSink.emit`."""
        for span in spans:
            self._processor.on_end(_Span(span, self._resource))

    def close(self) -> None:
        """See `SpanSink.close`."""
        self._processor.force_flush(_LAST_MS)
        self._processor.shutdown()
