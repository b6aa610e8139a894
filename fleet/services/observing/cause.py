"""On whose behalf the present task works: travels with tasks, with calls of actors, and into every log line."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from fleet.observability import Cause

__all__ = ["carried", "current_cause", "on_behalf_of", "received"]

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
    found = values or {}
    return Cause(story=found.get("story", ""), step=found.get("step", ""), traceparent=found.get("traceparent", ""))
