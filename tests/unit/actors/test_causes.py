"""Calls of actors carry on whose behalf they are made, by signatures that Ray accepts, and answer as before."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from actors.causes import carrying_causes
from actors.council import CouncilShell
from actors.role import RoleShell
from actors.sandbox import SandboxShell
from fleet.config.settings import ObservabilitySettings
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ConfigError, ModelTimeout
from fleet.telemetry.log_line import Cause
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import TraceContext
from fleet.telemetry.service import Tracer, current_cause
from fleet.wiring.telemetry import NO_TELEMETRY, Telemetry, make_telemetry, observability_at

ROOT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
TOLD = {"story": "st-a-1", "step": "t/1", "traceparent": ROOT.traceparent}


class Shell:
    """What a shell is to the wrapper."""

    def __init__(self, telemetry: Telemetry = NO_TELEMETRY) -> None:
        self.name, self.telemetry = "role:qa:0", telemetry

    async def ask(self, text: str, *, fails: bool = False) -> tuple[str, Cause]:
        """The text, and on whose behalf."""
        if fails:
            raise ModelTimeout("slow")
        return text, current_cause()

    async def _inner(self) -> None: ...

    def plain(self) -> int:
        return 1


carrying_causes(Shell)


async def test_call_with_a_cause_works_on_its_behalf_and_is_a_span() -> None:
    spans = MemorySpans()
    shell: Any = Shell(Telemetry(MemoryMeter(), Tracer(spans, MemoryClock())))
    assert await shell.ask("hello", caused_by=TOLD) == ("hello", Cause(**TOLD))
    with pytest.raises(ModelTimeout):
        await shell.ask("hello", fails=True, caused_by=TOLD)
    assert [(span.name, span.parent, span.kind, span.error) for span in spans.spans] == [
        ("role ask", ROOT.span_id, "server", ""),
        ("role ask", ROOT.span_id, "server", "model_timeout"),
    ]
    assert spans.spans[0].attributes == {"fleet.actor": "role:qa:0"}


async def test_call_without_a_cause_is_as_before() -> None:
    assert await Shell().ask("hello") == ("hello", Cause())
    shell: Any = Shell()
    assert await shell.ask("hello", caused_by=TOLD) == ("hello", Cause(**TOLD))


@pytest.mark.parametrize(("shell", "name"), [(RoleShell, "ask"), (SandboxShell, "run"), (CouncilShell, "drain")])
def test_signature_that_ray_checks_has_the_cause_besides(shell: type[Any], name: str) -> None:
    method = getattr(shell, name)
    before = method.__carries_causes_of__
    assert inspect.unwrap(method) is method, "Ray would look at the method as it was"
    parameters = inspect.signature(method).parameters
    assert inspect.iscoroutinefunction(method)
    assert parameters["caused_by"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [p for p in parameters if p != "caused_by"] == list(inspect.signature(before).parameters)
    assert method.__doc__ == before.__doc__


def test_methods_of_a_mixin_carry_causes_too_and_others_stay_as_they_are() -> None:
    names = {name for name, _ in inspect.getmembers(SandboxShell, inspect.iscoroutinefunction) if name[0] != "_"}
    assert all("caused_by" in inspect.signature(getattr(SandboxShell, name)).parameters for name in names)
    assert "caused_by" not in inspect.signature(Shell.plain).parameters
    assert "caused_by" not in inspect.signature(Shell._inner).parameters


def test_variables_of_opentelemetry_stand_in_for_settings_that_say_nothing() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_EXPORTER_OTLP_HEADERS": "key=k1, a=b"}
    found = observability_at(ObservabilitySettings(), environ)
    assert found.otlp_endpoint == "http://collector:4318"
    assert found.has_traces
    assert found.otlp_headers is not None
    assert found.otlp_headers.get_secret_value() == "key=k1, a=b"
    own = ObservabilitySettings(otlp_endpoint="http://own:4318")
    assert observability_at(own, environ).otlp_endpoint == "http://own:4318"
    assert observability_at(own, {}) is own
    assert not ObservabilitySettings().has_traces


def test_variable_of_opentelemetry_that_is_no_address_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        observability_at(ObservabilitySettings(), {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://elsewhere"})


def test_process_without_a_place_for_spans_makes_none(tmp_path: Path) -> None:
    meter = MemoryMeter()
    plain = make_telemetry(ObservabilitySettings(), "p", meter=meter)
    assert plain.tracer is None
    with plain.served("role ask") as span:
        assert span is None
    plain.close()
    path = tmp_path / "traces.jsonl"
    kept = make_telemetry(ObservabilitySettings(trace_file=path, otlp_endpoint="http://127.0.0.1:9"), "p", meter=meter)
    assert kept.tracer is not None
    kept.close()
