"""Figures and spans that are kept in memory, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.telemetry.catalogue import CATALOGUE, MetricKind
from fleet.telemetry.otlp import FinishedSpan

Series = tuple[str, tuple[tuple[str, str], ...]]


class MemoryMeter:
    """Port Meter: `figures` holds sums of counters, last values of gauges, and observations."""

    def __init__(self) -> None:
        self.figures: dict[Series, float] = {}
        self.observed: dict[Series, list[float]] = {}

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.add`."""
        series = _series(name, "counter", labels)
        self.figures[series] = self.figures.get(series, 0.0) + value

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.observe`."""
        self.observed.setdefault(_series(name, "histogram", labels), []).append(value)

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.set`."""
        self.figures[_series(name, "gauge", labels)] = value

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at; 0 when nothing was told."""
        return self.figures.get((name, tuple(sorted(labels.items()))), 0.0)

    def observations(self, name: str, **labels: str) -> list[float]:
        """What a histogram was told."""
        return self.observed.get((name, tuple(sorted(labels.items()))), [])


class NoMeter:
    """Port Meter for processes whose figures nobody collects."""

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.add`."""

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.observe`."""

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.set`."""


class MemorySpans:
    """Port SpanSink: `spans` holds what was emitted, in order."""

    def __init__(self) -> None:
        self.spans: list[FinishedSpan] = []
        self.is_closed = False

    def emit(self, spans: Sequence[FinishedSpan]) -> None:
        """See `SpanSink.emit`."""
        self.spans.extend(spans)

    def close(self) -> None:
        """See `SpanSink.close`."""
        self.is_closed = True


def _series(name: str, kind: MetricKind, labels: Mapping[str, str] | None) -> Series:
    metric, given = CATALOGUE[name], dict(labels or {})
    assert metric.kind == kind, f"{name} is a {metric.kind}, not a {kind}"
    assert set(given) == set(metric.labels), f"{name} has labels {metric.labels}, not {sorted(given)}"
    return name, tuple(sorted(given.items()))
