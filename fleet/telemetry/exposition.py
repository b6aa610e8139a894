"""Figures of one process as Prometheus reads them: its text format, version 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fleet.telemetry.catalogue import CATALOGUE

T = TypeVar("T")
EXPOSITION_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Series = tuple[str, tuple[tuple[str, str], ...]]
"""Name of a metric, and its labels sorted by name."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a histogram was told so far.

    Args:
        within: observations in each bucket of the catalogue, and last those above all of them.
    """

    within: tuple[int, ...]
    total: float


def exposed(values: Mapping[Series, float], counted: Mapping[Series, Counted], *, labels: Mapping[str, str]) -> str:
    """Every metric of which something is known, in the order of the catalogue.

    Args:
        values: sums of counters, and last values of gauges.
        labels: of the process, added to each series.
    """
    lines: list[str] = []
    own = tuple(sorted(labels.items()))
    for name, metric in CATALOGUE.items():
        told: list[str] = []
        for (_, series), value in _of(name, values):
            told.append(f"{name}{_labels((*series, *own))} {_number(value)}")
        for (_, series), histogram in _of(name, counted):
            told += _histogram(name, (*series, *own), metric.buckets, histogram)
        if told:
            lines += [f"# HELP {name} {_escaped(metric.help)}", f"# TYPE {name} {metric.kind}", *told]
    return "".join(f"{line}\n" for line in lines)


def _of(name: str, figures: Mapping[Series, T]) -> Iterable[tuple[Series, T]]:
    return sorted(((series, one) for series, one in figures.items() if series[0] == name), key=lambda row: row[0])


def _histogram(
    name: str, labels: tuple[tuple[str, str], ...], bounds: Sequence[float], histogram: Counted
) -> Iterable[str]:
    below = 0
    for bound, number in zip((*(_number(b) for b in bounds), "+Inf"), histogram.within, strict=True):
        below += number
        yield f"{name}_bucket{_labels((*labels, ('le', bound)))} {below}"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.total)}"
    yield f"{name}_count{_labels(labels)} {below}"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    told = ",".join(f'{name}="{_escaped(value, quoted=True)}"' for name, value in labels)
    return f"{{{told}}}" if told else ""


def _escaped(text: str, *, quoted: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quoted else escaped


def _number(value: float) -> str:
    """A finite number; the figures of a fleet are counts, sums and sizes."""
    value = float(value)
    return str(int(value)) if value.is_integer() else repr(value)
