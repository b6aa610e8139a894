"""Figures as Ray exports them to Prometheus: every node serves those of its processes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, cast

from ray.util import metrics as ray_metrics

from fleet.telemetry.catalogue import CATALOGUE, Metric, MetricKind

_NONE: Mapping[str, str] = MappingProxyType({})


class RayMeter:
    """Port Meter over `ray.util.metrics`. A metric exists in a process from its first figure on."""

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.add`."""
        metric = _metric(name, "counter")
        if value > 0:
            metric.inc(value, _checked(name, labels))

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.observe`."""
        _metric(name, "histogram").observe(value, _checked(name, labels))

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """See `Meter.set`."""
        _metric(name, "gauge").set(value, _checked(name, labels))


def gauge(name: str) -> ray_metrics.Gauge:
    """The gauge of the catalogue, as Ray has it in this process."""
    return cast(ray_metrics.Gauge, _metric(name, "gauge"))


def _checked(name: str, labels: Mapping[str, str] | None) -> dict[str, str]:
    given = dict(labels or _NONE)
    assert set(given) == set(CATALOGUE[name].labels), f"{name} has labels {CATALOGUE[name].labels}, not {sorted(given)}"
    return given


@cache
def _metric(name: str, kind: MetricKind) -> Any:
    # Once in a process: Ray warns of a second one of the same name, and loses what the first one counted.
    metric = CATALOGUE[name]
    assert metric.kind == kind, f"{name} is a {metric.kind}, not a {kind}"
    return _made(metric)


def _made(metric: Metric) -> Any:
    match metric.kind:
        case "counter":
            return ray_metrics.Counter(metric.name, description=metric.help, tag_keys=metric.labels)
        case "gauge":
            return ray_metrics.Gauge(metric.name, description=metric.help, tag_keys=metric.labels)
        case "histogram":
            return ray_metrics.Histogram(
                metric.name, description=metric.help, boundaries=list(metric.buckets), tag_keys=metric.labels
            )
