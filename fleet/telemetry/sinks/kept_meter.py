"""Figures that a process keeps for whoever asks it, and hands on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from threading import Lock

from fleet.telemetry.catalogue import CATALOGUE
from fleet.telemetry.exposition import Counted, Series, exposed
from fleet.telemetry.port import Meter

_SERIES = 5_000
"""Labels have few values; what goes beyond that is handed on and not kept."""


class KeptMeter:
    """Port Meter over another one, which is told everything and keeps to the catalogue.

    Args:
        labels: of this process, on each of its series.
    """

    def __init__(self, inner: Meter, *, labels: Mapping[str, str]) -> None:
        self._inner, self._labels = inner, labels
        self._values: dict[Series, float] = {}
        self._counts: dict[Series, list[int]] = {}
        self._totals: dict[Series, float] = {}
        # Figures come from threads too; a sum that is read and written must not lose what came in between.
        self._lock = Lock()

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.add`."""
        self._inner.add(name, value, labels)
        with self._lock:
            if (series := self._kept(name, labels)) is not None:
                self._values[series] = self._values.get(series, 0.0) + value

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.observe`."""
        self._inner.observe(name, value, labels)
        bounds = CATALOGUE[name].buckets
        with self._lock:
            if (series := self._kept(name, labels)) is not None:
                counts = self._counts.setdefault(series, [0] * (len(bounds) + 1))
                counts[bisect_left(bounds, value)] += 1
                self._totals[series] = self._totals.get(series, 0.0) + value

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.set`."""
        self._inner.set(name, value, labels)
        with self._lock:
            if (series := self._kept(name, labels)) is not None:
                self._values[series] = value

    def text(self) -> str:
        """Everything that is kept, as Prometheus reads it."""
        with self._lock:
            values = dict(self._values)
            counted = {
                series: Counted(tuple(bucket_counts), self._totals[series])
                for series, bucket_counts in self._counts.items()
            }
        return exposed(values, counted, labels=self._labels)

    def _kept(self, name: str, labels: Mapping[str, str] | None) -> Series | None:
        series = (name, tuple(sorted((labels or {}).items())))
        is_known = series in self._values or series in self._counts
        return series if is_known or len(self._values) + len(self._counts) < _SERIES else None
