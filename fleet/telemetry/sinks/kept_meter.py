"""Figures that a process keeps for whoever asks it, and hands on."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from fleet.telemetry.catalogue import CATALOGUE
from fleet.telemetry.port import Meter

_SERIES = 5_000
"""Labels have few values; what goes beyond that is handed on and not kept."""


class KeptMeter:
    """Port Meter over another one, which is told everything and keeps to the catalogue.

    Args:
        labels: of this process, at least one, on each of its series.
    """

    def __init__(self, inner: Meter, *, labels: Mapping[str, str]) -> None:
        self._inner, self._labels = inner, dict(labels)
        self._registry = CollectorRegistry()
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._series: set[tuple[str, frozenset[tuple[str, str]]]] = set()
        # Figures come from threads too: one metric of a name, and no series beyond the limit.
        self._lock = Lock()
        # A time of creation beside each series would make two series of each, and no board shows it.
        disable_created_metrics()

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.add`."""
        self._inner.add(name, value, labels)
        if isinstance(series := self._kept(name, labels), Counter):
            series.inc(value)

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.observe`."""
        self._inner.observe(name, value, labels)
        if isinstance(series := self._kept(name, labels), Histogram):
            series.observe(value)

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.set`."""
        self._inner.set(name, value, labels)
        if isinstance(series := self._kept(name, labels), Gauge):
            series.set(value)

    def text(self) -> str:
        """Everything that is kept, as Prometheus reads it (text format 0.0.4)."""
        return generate_latest(self._registry).decode()

    def _kept(self, name: str, labels: Mapping[str, str] | None) -> Counter | Gauge | Histogram | None:
        """The series to tell; None beyond the limit."""
        values = {**(labels or {}), **self._labels}
        key = (name, frozenset(values.items()))
        with self._lock:
            if key not in self._series and len(self._series) >= _SERIES:
                return None
            self._series.add(key)
            if name not in self._metrics:
                self._metrics[name] = self._registered(name)
        return self._metrics[name].labels(**values)

    def _registered(self, name: str) -> Counter | Gauge | Histogram:
        metric = CATALOGUE[name]
        names = (*metric.labels, *self._labels)
        match metric.kind:
            case "counter":
                return Counter(name, metric.help, names, registry=self._registry)
            case "gauge":
                return Gauge(name, metric.help, names, registry=self._registry)
            case "histogram":
                return Histogram(name, metric.help, names, registry=self._registry, buckets=metric.buckets)
