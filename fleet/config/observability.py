"""Settings of what a fleet tells of itself: log lines, traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from fleet.config.values import AbsolutePath, Settings

__all__ = ["ObservabilitySettings"]


class ObservabilitySettings(Settings):
    """Log lines and traces of every process; metrics are always there (docs/observability.md)."""

    log_form: Literal["auto", "json", "text"] = "auto"
    """Form of log lines: JSON, readable text, or `auto`: text on a terminal and JSON elsewhere."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Records below this level are left out."""
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$", max_length=500)] | None = None
    """Collector that takes traces over OTLP/HTTP, `http://host:4318`; unset is OTEL_EXPORTER_OTLP_ENDPOINT, or none."""
    otlp_headers: SecretStr | None = None
    """Headers for the collector as `name=value,name=value`; unset is OTEL_EXPORTER_OTLP_HEADERS."""
    trace_file: AbsolutePath | None = None
    """File that traces are appended to, one document of OTLP in JSON a line."""
    sample_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """Share of the stories whose trace is kept; all processes keep the same ones."""

    @property
    def has_traces(self) -> bool:
        """Whether spans go anywhere."""
        return self.otlp_endpoint is not None or self.trace_file is not None
