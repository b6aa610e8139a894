"""Requests to servers of models carry the trace of the call that makes them, and none where nothing is traced."""

from __future__ import annotations

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.openai import OpenAIChatModel
from fleet.remote.timed_ports import TimedModel
from fleet.telemetry.log_line import Cause
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import TraceContext, parse_traceparent
from fleet.telemetry.service import Tracer, on_behalf_of
from tests.support.openai_server import serving

ROOT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
ENGINE = HttpEngine(
    engine_id="tiny", kind="openai", model="m", base_url="http://unused/v1", max_output=512, unpriced=True
)
REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="hello"),))


@pytest.mark.parametrize("is_traced", [True, False])
async def test_request_to_a_model_carries_the_span_of_its_call(is_traced: bool) -> None:
    spans, clock = MemorySpans(), MemoryClock()
    async with serving() as server:
        bare = OpenAIChatModel(ENGINE, base_url=server.base_url, model="m", api_key="k")
        model = TimedModel(bare, "e", meter=MemoryMeter(), clock=clock, tracer=Tracer(spans, clock))
        with on_behalf_of(Cause(traceparent=ROOT.traceparent) if is_traced else Cause()):
            await model.complete(REQUEST, request_id="r", timeout_s=30)
        await bare.close()
    sent = [parse_traceparent(headers.get("traceparent")) for headers in server.headers]
    assert sent == [span.context for span in spans.spans] if is_traced else sent == [None]
