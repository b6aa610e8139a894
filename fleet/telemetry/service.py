"""Traces of the work in hand and the causes that it carries."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.telemetry.log_line import Cause
from fleet.telemetry.otlp import Attribute, FinishedSpan, SpanKind, TraceContext, is_sampled, parse_traceparent
from fleet.telemetry.port import SpanSink

_CAUSE: ContextVar[Cause] = ContextVar("fleet_cause", default=Cause())  # noqa: B039 - frozen


def current_cause() -> Cause:
    """Story, step and span that the work of this task belongs to; empty ones where nothing is known."""
    return _CAUSE.get()


@contextmanager
def on_behalf_of(cause: Cause) -> Generator[None]:
    """What happens inside, and the tasks that are started there, belongs to this."""
    token = _CAUSE.set(cause)
    try:
        yield
    finally:
        _CAUSE.reset(token)


def carried() -> dict[str, str] | None:
    """The present cause as plain values for another process; None when there is nothing to tell."""
    cause = _CAUSE.get()
    if cause == Cause():
        return None
    return {"story": cause.story, "step": cause.step, "traceparent": cause.traceparent}


def received(values: Mapping[str, str] | None) -> Cause:
    """What another process carried here."""
    carried = values or {}
    return Cause(
        story=carried.get("story", ""), step=carried.get("step", ""), traceparent=carried.get("traceparent", "")
    )


_NS = 1_000_000


@dataclass(slots=True)
class _Call:
    """The spans of one call that ended."""

    done: list[FinishedSpan] = field(default_factory=list[FinishedSpan])
    is_over: bool = False


@dataclass(slots=True)
class OpenSpan:
    """A span that has not ended; attributes may be added until then."""

    context: TraceContext
    attributes: dict[str, Attribute]
    call: _Call
    error: str = ""


_OPEN: ContextVar[OpenSpan | None] = ContextVar("fleet_span", default=None)


def outgoing_traceparent() -> str:
    """The header for a request that leaves the fleet now. Empty where no span is open, so that none will be known."""
    span = _OPEN.get()
    return span.context.traceparent if span is not None else ""


class Tracer:
    """Makes spans of what happens here.

    Args:
        sink: where they go.
        ratio: share of the traces that is kept.
    """

    def __init__(self, sink: SpanSink, clock: Clock, *, ratio: float = 1.0) -> None:
        self._sink, self._clock, self._ratio = sink, clock, ratio

    def emit(self, *spans: FinishedSpan) -> None:
        """Spans whose ids and times follow from what is on record."""
        kept = [span for span in spans if is_sampled(span.context.trace_id, self._ratio)]
        if kept:
            self._sink.emit(kept)

    @contextmanager
    def span(
        self, name: str, *, kind: SpanKind = "internal", attributes: Mapping[str, Attribute] | None = None
    ) -> Generator[OpenSpan | None]:
        """One span around what happens inside; None, and no span, where the work belongs to no trace that is kept.

        An error of ours that comes out of it is its error, by code alone.
        """
        outer = _OPEN.get()
        parent = outer.context if outer is not None else parse_traceparent(current_cause().traceparent)
        if parent is None or not is_sampled(parent.trace_id, self._ratio):
            yield None
            return
        call = _Call() if outer is None else outer.call
        span = OpenSpan(TraceContext(parent.trace_id, secrets.token_hex(8)), dict(attributes or {}), call)
        start_ms, since_ms = self._clock.now_ms(), self._clock.monotonic_ms()
        token = _OPEN.set(span)
        try:
            yield span
        except BaseException as error:
            span.error = error.code if isinstance(error, FleetError) else type(error).__name__
            raise
        finally:
            _OPEN.reset(token)
            end_ms = start_ms + self._clock.monotonic_ms() - since_ms
            call.done.append(_finished(name, span, parent, (start_ms, end_ms), kind))
            if outer is None or call.is_over:
                # Inner spans end first; whoever hears of a span has heard of the one that it hangs on. What a task
                # does that outlives the call comes later, by itself.
                call.is_over = True
                self._sink.emit(call.done[::-1])
                call.done = []

    def close(self) -> None:
        """What was made so far is exported."""
        self._sink.close()


def _finished(
    name: str, span: OpenSpan, parent: TraceContext, times_ms: tuple[int, int], kind: SpanKind
) -> FinishedSpan:
    return FinishedSpan(
        name=name,
        context=span.context,
        parent=parent.span_id,
        start_ns=times_ms[0] * _NS,
        end_ns=times_ms[1] * _NS,
        kind=kind,
        attributes=span.attributes,
        error=span.error,
    )
