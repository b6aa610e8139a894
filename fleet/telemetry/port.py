"""Ports: where figures and spans go. Nothing that happens here is ever worth an error: both lose rather than fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from fleet.telemetry.otlp import FinishedSpan


class Meter(Protocol):
    """Takes figures of the catalogue (`fleet.telemetry.catalogue.CATALOGUE`), each with exactly its labels there.

    Returns at once; raises AssertionError for a name, a kind or labels that the catalogue does not have, else nothing.
    """

    def add(self, name: str, value: float = 1.0, labels: Mapping[str, str] | None = None) -> None:
        """A counter has grown by `value` >= 0."""
        ...

    def observe(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """A histogram has one more observation."""
        ...

    def set(self, name: str, value: float, labels: Mapping[str, str] | None = None) -> None:
        """A gauge has this value now."""
        ...


class SpanSink(Protocol):
    """Takes spans that have ended, parents before their children where both come from one process."""

    def emit(self, spans: Sequence[FinishedSpan]) -> None:
        """The spans are queued for export; what finds no room is lost and counted. Returns at once, never raises."""
        ...

    def close(self) -> None:
        """What was queued is exported, or given up after some seconds."""
        ...
