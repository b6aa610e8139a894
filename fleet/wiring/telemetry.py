"""Where a process tells what it does: log lines, figures, spans (docs/observability.md)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from pydantic import ValidationError

from fleet.config.settings import ObservabilitySettings
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import StoryId
from fleet.telemetry.memory import NoMeter
from fleet.telemetry.otlp import Attribute, TraceContext
from fleet.telemetry.port import Meter
from fleet.telemetry.service import OpenSpan, Tracer

if TYPE_CHECKING:
    from fleet.wiring.endpoints import Endpoints


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a process tells; without a tracer no span is made, and nobody waits for one."""

    meter: Meter
    tracer: Tracer | None = None

    def served(self, name: str, **attributes: Attribute) -> AbstractContextManager[OpenSpan | None]:
        """A span around a call that this process serves."""
        if self.tracer is None:
            return nullcontext()
        return self.tracer.span(name, kind="server", attributes=attributes)

    def close(self) -> None:
        """What was told is exported."""
        if self.tracer is not None:
            self.tracer.close()


_VARIABLES = {"otlp_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_headers": "OTEL_EXPORTER_OTLP_HEADERS"}
NO_TELEMETRY = Telemetry(NoMeter())
"""Of processes that tell nothing."""


def observability_at(settings: ObservabilitySettings, environ: Mapping[str, str]) -> ObservabilitySettings:
    """The settings, with the variables of OpenTelemetry where they say nothing themselves. ConfigError."""
    given = {field: environ[name] for field, name in _VARIABLES.items() if environ.get(name)}
    variables = {field: value for field, value in given.items() if getattr(settings, field) is None}
    if not variables:
        return settings
    try:
        return ObservabilitySettings.model_validate({**dict(settings), **variables})
    except ValidationError as error:
        names = ", ".join(_VARIABLES[str(problem["loc"][0])] for problem in error.errors())
        raise ConfigError(f"environment: {names} is no address of a collector such as http://host:4318") from None


def set_up_logs(settings: ObservabilitySettings, process: str, *, meter: Meter) -> None:
    """Log records of this process become lines on standard error, in the form of the settings."""
    from fleet.telemetry.sinks.log_handler import FleetLogHandler, log_to

    def counted(level: str) -> None:
        meter.add("fleet_log_records_total", labels={"level": level})

    log_to(FleetLogHandler(form=settings.log_form, process=process, counted=counted), level=settings.log_level)


def make_telemetry(settings: ObservabilitySettings, process: str, *, meter: Meter) -> Telemetry:
    """What this process tells with; its log is set up. `process` is the name of the actor, deployment or command."""
    set_up_logs(settings, process, meter=meter)
    if not settings.has_traces:
        return Telemetry(meter)
    from fleet.telemetry.sinks.otel_spans import CollectorPlace, OtelSpans
    from fleet.telemetry.sinks.places import BatchSink, FilePlace

    def lost(reason: str, number: int) -> None:
        meter.add("fleet_spans_lost_total", number, {"reason": reason})

    places: list[BatchSink] = []
    if settings.otlp_endpoint is not None:
        places.append(CollectorPlace(settings.otlp_endpoint, headers=_headers(settings)))
    if settings.trace_file is not None:
        places.append(FilePlace(settings.trace_file))
    sink = OtelSpans(places, process=process, lost=lost)
    return Telemetry(meter, Tracer(sink, SystemClock(), ratio=settings.sample_percent / 100))


def story_root(endpoints: Endpoints) -> Callable[[StoryId], Awaitable[TraceContext | None]]:
    """What says which span a story is, for processes that do not own it; nothing is connected yet."""
    from fleet.log.redis.connection import connect_redis
    from fleet.log.redis.log import RedisEventLog
    from fleet.remote.observed_log import root_of

    log = RedisEventLog(connect_redis(endpoints.redis_url))
    return partial(root_of, log)


def _headers(settings: ObservabilitySettings) -> dict[str, str]:
    text = settings.otlp_headers.get_secret_value() if settings.otlp_headers else ""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {name.strip(): value.strip() for name, _, value in pairs}
