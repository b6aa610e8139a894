"""One suite for every Meter, and one for every SpanSink."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import FinishedSpan, TraceContext
from fleet.telemetry.port import Meter
from fleet.telemetry.sinks.otel_spans import CollectorPlace, OtelSpans
from fleet.telemetry.sinks.places import FilePlace, SpanBatch, SpansRefused
from tests.support.otlp_collector import collector, spans_of
from tests.support.sandbox import eventually

ROOT = Path(__file__).resolve().parents[2]
TRACE, FIRST, SECOND = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "00f067aa0ba902b8"


def ray_meter() -> Meter:
    from fleet.remote.meter import RayMeter

    return RayMeter()


@pytest.fixture(params=[MemoryMeter, ray_meter], ids=["memory", "ray"])
def meter(request: pytest.FixtureRequest) -> Meter:
    make: Callable[[], Meter] = request.param
    return make()


def test_figures_of_the_catalogue_are_taken(meter: Meter) -> None:
    meter.add("fleet_outcomes_unknown_total")
    meter.add("fleet_events_total", 0, {"type": "StoryCreated"})
    meter.observe("fleet_step_seconds", 0.5, {"kind": "model"})
    meter.set("fleet_dead_letters", 3)


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        ("add", "fleet_dead_letters", {}),
        ("set", "fleet_events_total", {"type": "x"}),
        ("observe", "fleet_events_total", {"type": "x"}),
        ("add", "fleet_events_total", {}),
        ("add", "fleet_events_total", {"type": "x", "story": "st-a-1"}),
    ],
)
def test_other_kinds_and_labels_are_defects(meter: Meter, kind: str, name: str, labels: dict[str, str]) -> None:
    tell = {"add": meter.add, "set": meter.set, "observe": meter.observe}[kind]
    with pytest.raises(AssertionError):
        tell(name, 1, labels)


def test_name_outside_of_the_catalogue_is_a_defect(meter: Meter) -> None:
    with pytest.raises(KeyError):
        meter.add("fleet_unheard_of_total")


def span(span_id: str, parent: str | None = None, **more: object) -> FinishedSpan:
    known = {"name": "chat", "context": TraceContext(TRACE, span_id), "start_ns": 5_000_000, "end_ns": 9_000_000}
    return FinishedSpan(**{**known, "parent": parent, **more})  # pyright: ignore[reportArgumentType]


SPANS = [
    span(FIRST, kind="server", attributes={"fleet.story": "st-a-1"}, error="model_timeout"),
    span(SECOND, FIRST, kind="client", links=(TraceContext("1" * 32, "2" * 16),)),
]


def test_memory_keeps_spans_in_order() -> None:
    sink = MemorySpans()
    sink.emit(SPANS)
    sink.close()
    assert (sink.spans, sink.is_closed) == (SPANS, True)


def test_collector_gets_spans_with_headers_in_order(tmp_path: Path) -> None:
    lost: list[tuple[str, int]] = []
    with collector() as found:
        place = CollectorPlace(found.endpoint + "/", headers={"x-key": "k1"})
        file = FilePlace(tmp_path / "sub" / "traces.jsonl")
        sink = OtelSpans([place, file], process="council:0", lost=lambda why, number: lost.append((why, number)))
        sink.emit(SPANS)
        sink.close()
        told = found.spans()
    assert [(s.span_id, s.parent, s.error, s.process) for s in told] == [
        (FIRST, None, "model_timeout", "council:0"),
        (SECOND, FIRST, "", "council:0"),
    ]
    assert told[1].links == ("1" * 32,)
    assert {header["x-key"] for header in found.headers} == {"k1"}
    lines = (tmp_path / "sub" / "traces.jsonl").read_text().splitlines()
    assert [s.span_id for line in lines for s in spans_of(json.loads(line))] == [FIRST, SECOND]
    assert (tmp_path / "sub" / "traces.jsonl").stat().st_mode & 0o077 == 0
    assert lost == []


async def test_collector_that_is_busy_is_asked_again() -> None:
    lost: list[tuple[str, int]] = []
    with collector() as found:
        found.busy = 1
        sink = OtelSpans(
            [CollectorPlace(found.endpoint, headers={}, timeout_s=20)],
            process="p",
            lost=lambda why, number: lost.append((why, number)),
        )
        sink.emit(SPANS)
        await eventually(lambda: len(found.spans()) == 2, within_s=20)
        sink.close()
    assert (found.busy, lost) == (0, [])


def test_spans_that_nobody_takes_are_counted_and_do_not_hold_up_anybody(tmp_path: Path) -> None:
    lost: list[tuple[str, int]] = []
    (tmp_path / "taken").write_text("")
    with collector() as found:
        found.refusing = True
        gone = CollectorPlace("http://127.0.0.1:9", headers={}, timeout_s=0.5)
        places = [
            CollectorPlace(found.endpoint, headers={}, timeout_s=0.5),
            gone,
            FilePlace(tmp_path / "taken" / "file"),
        ]
        sink = OtelSpans(places, process="p", lost=lambda why, number: lost.append((why, number)))
        sink.emit(SPANS)
        sink.close()
    assert sorted(lost) == [("not_taken", 2), ("not_taken", 2), ("unwritable", 2)]


def test_place_of_another_path_is_refused() -> None:
    with collector() as found, pytest.raises(SpansRefused, match="not_taken"):
        CollectorPlace(found.endpoint + "/elsewhere", headers={}).put(SpanBatch((), {}))


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"

    def write(word: str) -> None:
        for _ in range(50):
            FilePlace(path).put(SpanBatch((), {"word": word * 2000}))

    threads = [threading.Thread(target=write, args=(word,)) for word in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line)["word"] for line in path.read_text().splitlines()]
    assert len(lines) == 150
    assert {len(set(line)) for line in lines} == {1}


def test_exporter_of_ray_calls_every_metric_as_the_catalogue_says() -> None:
    # In a process of its own: what is exported belongs to the process as a whole.
    program = """
import sys
from prometheus_client import REGISTRY, generate_latest
from ray._private.telemetry.open_telemetry_metric_recorder import OpenTelemetryMetricRecorder
from fleet.telemetry.catalogue import CATALOGUE, exported_names

recorder = OpenTelemetryMetricRecorder()
for metric in CATALOGUE.values():
    if metric.kind == "counter":
        recorder.register_counter_metric(metric.name, metric.help)
    elif metric.kind == "gauge":
        recorder.register_gauge_metric(metric.name, metric.help)
    else:
        recorder.register_histogram_metric(metric.name, metric.help, list(metric.buckets))
    recorder.set_metric_value(metric.name, dict.fromkeys(metric.labels, "x"), 1)
found = {line.split("{")[0] for line in generate_latest(REGISTRY).decode().splitlines() if line.startswith("ray_")}
wanted = {name for metric in CATALOGUE.values() for name in exported_names(metric)}
sys.exit("\\n".join(sorted(found ^ wanted)) or 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
