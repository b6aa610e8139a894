"""The figures of models as Ray exports them (Prometheus), by engine, replica and the actor that tells them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fleet.models.figures import ModelFigures
from fleet.remote.meter import gauge

_FIGURES: Mapping[str, Callable[[ModelFigures], float]] = {
    "fleet_model_calls_running": lambda row: row.running,
    "fleet_model_queue_waiting": lambda row: row.waiting,
    "fleet_model_queue_served": lambda row: row.served,
    "fleet_model_queue_wait_seconds": lambda row: row.wait_ms / 1000,
    "fleet_model_calls_rejected": lambda row: row.rejected,
    "fleet_model_calls": lambda row: row.calls,
    "fleet_model_calls_failed": lambda row: row.failures,
    "fleet_model_circuit_open": lambda row: float(row.circuit != "closed"),
    "fleet_model_tokens_in": lambda row: row.tokens_in,
    "fleet_model_tokens_out": lambda row: row.tokens_out,
    "fleet_model_tokens_cached": lambda row: row.tokens_cached,
    "fleet_model_cache_hit_ratio": lambda row: row.hit_rate,
}


class Shown(Protocol):
    """A figure that somebody exports."""

    def set(self, value: float, tags: dict[str, str]) -> None:
        """The figure has this value now."""
        ...


def model_gauges() -> dict[str, Shown]:
    """The figures by name; all of them count since their process began."""
    return {name: gauge(name) for name in _FIGURES}


def shown_as(gauges: Mapping[str, Shown]) -> Callable[[str, Sequence[ModelFigures]], None]:
    """What lets the gauges say what an actor says."""

    def show(actor: str, figures: Sequence[ModelFigures]) -> None:
        for row in figures:
            tags = {"engine": row.engine, "replica": row.replica, "actor": actor}
            for name, value in _FIGURES.items():
                gauges[name].set(value(row), tags)

    return show
