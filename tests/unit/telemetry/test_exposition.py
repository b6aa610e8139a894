"""Figures of a process as Prometheus reads them (AP-96, AP-120)."""

from __future__ import annotations

import pytest

from fleet.telemetry.catalogue import CATALOGUE
from fleet.telemetry.memory import MemoryMeter
from fleet.telemetry.sinks.kept_meter import KeptMeter

pytestmark = pytest.mark.rule("AP-96", "AP-120")
REQUEST = {"app": "gateway", "method": "GET", "route": "/api/fleet"}


def _meter() -> tuple[KeptMeter, MemoryMeter]:
    inner = MemoryMeter()
    return KeptMeter(inner, labels={"worker": "7"}), inner


def test_counter_and_gauge_are_told_with_their_labels_and_those_of_the_process():
    meter, inner = _meter()
    meter.add("fleet_http_requests_total", labels={**REQUEST, "code": "200"})
    meter.add("fleet_http_requests_total", 2, labels={**REQUEST, "code": "200"})
    meter.set("fleet_http_streams_open", 3, {"app": "gateway", "kind": "sse"})
    meter.set("fleet_http_streams_open", 1.5, {"app": "gateway", "kind": "sse"})
    assert meter.text() == (
        "# HELP fleet_http_requests_total Requests that were answered.\n"
        "# TYPE fleet_http_requests_total counter\n"
        'fleet_http_requests_total{app="gateway",code="200",method="GET",route="/api/fleet",worker="7"} 3.0\n'
        "# HELP fleet_http_streams_open Event streams and WebSockets that are open now.\n"
        "# TYPE fleet_http_streams_open gauge\n"
        'fleet_http_streams_open{app="gateway",kind="sse",worker="7"} 1.5\n'
    )
    # The other meter is told the same.
    assert inner.value("fleet_http_requests_total", **REQUEST, code="200") == 3


def test_histogram_counts_up_to_each_bound_and_above_all_of_them():
    meter, inner = _meter()
    bounds = CATALOGUE["fleet_http_request_seconds"].buckets
    told = (bounds[0], (bounds[0] + bounds[1]) / 2, bounds[-1] + 1)
    for seconds in told:
        meter.observe("fleet_http_request_seconds", seconds, REQUEST)
    lines = meter.text().splitlines()
    counts = [float(line.rsplit(" ", 1)[1]) for line in lines if "_bucket" in line]
    assert counts == [1] + [2] * (len(bounds) - 1) + [3]
    assert 'le="0.005"' in lines[2]
    assert 'le="+Inf",method="GET",route="/api/fleet",worker="7"} 3.0' in lines[2 + len(bounds)]
    assert lines[-2].startswith("fleet_http_request_seconds_count{")
    assert lines[-2].endswith('worker="7"} 3.0')
    assert lines[-1].startswith("fleet_http_request_seconds_sum{")
    assert float(lines[-1].rsplit(" ", 1)[1]) == pytest.approx(sum(told))
    assert inner.observations("fleet_http_request_seconds", **REQUEST) == list(told)


def test_text_in_a_label_cannot_end_it_or_its_line():
    meter, _ = _meter()
    meter.add("fleet_events_total", labels={"type": 'a"} 1\nb\\'})
    assert meter.text().splitlines()[-1] == 'fleet_events_total{type="a\\"} 1\\nb\\\\",worker="7"} 1.0'


def test_nothing_is_told_of_what_nobody_measured():
    assert _meter()[0].text() == ""


def test_series_without_end_are_handed_on_and_not_kept():
    meter, inner = _meter()
    for number in range(5_100):
        meter.add("fleet_events_total", labels={"type": f"T{number}"})
    meter.add("fleet_events_total", labels={"type": "T0"})
    assert len(meter.text().splitlines()) == 5_002
    assert 'type="T0",worker="7"} 2.0' in meter.text()
    assert inner.value("fleet_events_total", type="T5099") == 1


def test_figure_that_the_catalogue_does_not_have_is_a_defect():
    with pytest.raises((AssertionError, KeyError)):
        _meter()[0].add("fleet_lunches_total")
