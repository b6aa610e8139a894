"""Spans of one process: what belongs together leaves together, the outermost first; nothing without a trace."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ModelTimeout
from fleet.telemetry.log_line import Cause
from fleet.telemetry.memory import MemorySpans
from fleet.telemetry.otlp import FinishedSpan, TraceContext
from fleet.telemetry.service import Tracer, carried, current_cause, on_behalf_of, outgoing_traceparent, received

ROOT = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
CAUSE = Cause(story="st-a-1", step="t/1", traceparent=ROOT.traceparent)


@pytest.fixture
def sink() -> MemorySpans:
    return MemorySpans()


@pytest.fixture
def tracer(sink: MemorySpans) -> Tracer:
    return Tracer(sink, MemoryClock())


def test_cause_travels_as_plain_values_and_ends_with_its_block() -> None:
    assert carried() is None
    with on_behalf_of(CAUSE):
        assert received(carried()) == current_cause() == CAUSE
        assert (CAUSE.trace_id, CAUSE.span_id) == (ROOT.trace_id, ROOT.span_id)
    assert current_cause() == Cause() == received(None)


async def test_cause_goes_with_tasks_that_are_started_within_it() -> None:
    async def look() -> Cause:
        await asyncio.sleep(0)
        return current_cause()

    with on_behalf_of(CAUSE):
        task = asyncio.create_task(look())
    assert await task == CAUSE


def test_work_without_a_trace_makes_no_span(tracer: Tracer, sink: MemorySpans) -> None:
    with tracer.span("chat") as span:
        assert span is None
        assert outgoing_traceparent() == ""
    assert sink.spans == []


def test_nested_spans_leave_together_with_the_outermost_first(tracer: Tracer, sink: MemorySpans) -> None:
    with on_behalf_of(CAUSE), tracer.span("role ask", kind="server", attributes={"a": 1}) as outer:
        assert outer is not None
        with tracer.span("chat") as inner:
            assert inner is not None
            inner.attributes["tokens"] = 5
            assert outgoing_traceparent() == inner.context.traceparent
        assert sink.spans == []
    first, second = sink.spans
    assert (first.name, first.parent, first.kind, first.attributes) == ("role ask", ROOT.span_id, "server", {"a": 1})
    assert (second.name, second.parent) == ("chat", first.context.span_id)
    assert second.attributes == {"tokens": 5}
    assert {first.context.trace_id, second.context.trace_id} == {ROOT.trace_id}


def test_error_is_told_by_its_code_alone(tracer: Tracer, sink: MemorySpans) -> None:
    secret = "the words of somebody"
    with pytest.raises(ModelTimeout), on_behalf_of(CAUSE), tracer.span("chat"):
        raise ModelTimeout(secret)
    with pytest.raises(ValueError, match=secret), on_behalf_of(CAUSE), tracer.span("chat"):
        raise ValueError(secret)
    assert [span.error for span in sink.spans] == ["model_timeout", "ValueError"]
    assert secret not in repr(sink.spans)


async def test_span_of_a_task_that_outlives_its_call_comes_by_itself(tracer: Tracer, sink: MemorySpans) -> None:
    go_on = asyncio.Event()

    async def late() -> None:
        with tracer.span("late"):
            await go_on.wait()

    with on_behalf_of(CAUSE), tracer.span("call"):
        task = asyncio.create_task(late())
        await asyncio.sleep(0)
    assert [span.name for span in sink.spans] == ["call"]
    go_on.set()
    await task
    assert [span.name for span in sink.spans] == ["call", "late"]
    assert sink.spans[1].parent == sink.spans[0].context.span_id


def test_traces_that_are_not_kept_cost_nothing_and_are_not_sent_on(sink: MemorySpans) -> None:
    tracer = Tracer(sink, MemoryClock(), ratio=0.0)
    with on_behalf_of(CAUSE), tracer.span("chat") as span:
        assert span is None
    tracer.emit(FinishedSpan(name="story", context=ROOT, start_ns=0, end_ns=1))
    assert sink.spans == []
    tracer.close()
    assert sink.is_closed
