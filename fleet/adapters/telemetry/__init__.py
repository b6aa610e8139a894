"""Where spans and log lines go: an OTLP collector, a file, a stream."""

from typing import TYPE_CHECKING, Any

from fleet.adapters.telemetry.kept_meter import KeptMeter
from fleet.adapters.telemetry.log_handler import FleetLogHandler, log_to
from fleet.adapters.telemetry.places import FilePlace, HttpPlace, Place, SpansRefused

__all__ = ["FilePlace", "FleetLogHandler", "HttpPlace", "KeptMeter", "OtelSpans", "Place", "SpansRefused", "log_to"]

if TYPE_CHECKING:
    from fleet.adapters.telemetry.otel_spans import OtelSpans


def __getattr__(name: str) -> Any:
    # The SDK costs a tenth of a second and some megabytes in every process; without an exporter nobody needs it.
    if name == "OtelSpans":
        from fleet.adapters.telemetry.otel_spans import OtelSpans

        return OtelSpans
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
