"""Log lines, OTLP documents and the page of metrics."""

from __future__ import annotations

import json

from fleet.telemetry.catalogue import CATALOGUE, exported_names, metrics_page
from fleet.telemetry.log_line import Cause, LogEntry, json_line, text_line
from fleet.telemetry.otlp import FinishedSpan, TraceContext, otlp_document

PARENT = "00f067aa0ba902b8"
CONTEXT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


def entry(**changes: object) -> LogEntry:
    known = {
        "at_ms": 1_767_323_045_006,
        "level": "WARNING",
        "logger": "fleet.stories",
        "message": "two\nlines",
        "process": "council:0",
        "pid": 7,
        "cause": Cause(story="st-a-1", step="t/1", traceparent=CONTEXT.traceparent),
    }
    return LogEntry(**{**known, **changes})  # pyright: ignore[reportArgumentType]


def test_json_line_is_one_line_with_all_ids() -> None:
    line = json_line(entry(traceback="Traceback\n..."))
    assert "\n" not in line
    assert json.loads(line) == {
        "ts": "2026-01-02T03:04:05.006Z",
        "level": "warning",
        "logger": "fleet.stories",
        "message": "two\nlines",
        "process": "council:0",
        "pid": 7,
        "story": "st-a-1",
        "step": "t/1",
        "trace_id": CONTEXT.trace_id,
        "span_id": CONTEXT.span_id,
        "traceback": "Traceback\n...",
    }


def test_json_line_leaves_out_what_is_not_known() -> None:
    assert (
        not {"story", "step", "trace_id", "span_id", "traceback"} & json.loads(json_line(entry(cause=Cause()))).keys()
    )


def test_text_line_is_readable_and_names_the_story() -> None:
    assert text_line(entry(message="parked")) == "03:04:05.006 WARNING council:0: parked story=st-a-1 step=t/1"
    assert text_line(entry(message="x", cause=Cause(), traceback="T")).endswith("council:0: x\nT")


def span(**changes: object) -> FinishedSpan:
    known = {"name": "chat", "context": CONTEXT, "start_ns": 5, "end_ns": 9}
    return FinishedSpan(**{**known, **changes})  # pyright: ignore[reportArgumentType]


def test_document_has_the_json_form_of_otlp() -> None:
    attributes = {"t": "x" * 300, "i": 3, "f": 0.5, "b": True}
    document = otlp_document(
        [span(parent=PARENT, kind="client", attributes=attributes, error="model_timeout", links=(CONTEXT,))],
        resource={"service.name": "swe-fleet"},
    )
    (scope,) = document["resourceSpans"][0]["scopeSpans"]
    (found,) = scope["spans"]
    assert found["traceId"] == CONTEXT.trace_id
    assert found["spanId"] == CONTEXT.span_id
    assert found["parentSpanId"] == PARENT
    assert (found["kind"], found["startTimeUnixNano"], found["endTimeUnixNano"]) == (3, "5", "9")
    assert found["status"] == {"code": 2, "message": "model_timeout"}
    assert found["links"] == [{"traceId": CONTEXT.trace_id, "spanId": CONTEXT.span_id}]
    values = {each["key"]: each["value"] for each in found["attributes"]}
    assert values == {
        "t": {"stringValue": "x" * 256},
        "i": {"intValue": "3"},
        "f": {"doubleValue": 0.5},
        "b": {"boolValue": True},
    }


def test_first_span_of_a_trace_has_no_parent_and_no_error() -> None:
    found = otlp_document([span()], resource={})["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert "parentSpanId" not in found
    assert "links" not in found
    assert found["status"] == {}


def test_catalogue_follows_the_conventions_of_prometheus() -> None:
    for metric in CATALOGUE.values():
        assert metric.name.startswith("fleet_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.help.endswith(".")
        assert not {"story", "run", "principal", "user"} & set(metric.labels)
        assert f"| `ray_{metric.name}` |" in metrics_page()


def test_histogram_is_exported_as_three_series() -> None:
    assert exported_names(CATALOGUE["fleet_step_seconds"]) == (
        "ray_fleet_step_seconds_bucket",
        "ray_fleet_step_seconds_count",
        "ray_fleet_step_seconds_sum",
    )
    assert exported_names(CATALOGUE["fleet_dead_letters"]) == ("ray_fleet_dead_letters",)
