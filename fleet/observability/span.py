"""A finished span, before any technology knows of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.observability.trace_ids import TraceContext

__all__ = ["Attribute", "FinishedSpan", "SpanKind"]

Attribute = str | int | float | bool
SpanKind = Literal["internal", "server", "client"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSpan:
    """What happened from `start_ns` to `end_ns` (Unix time); `parent` is a span of the same trace, or of a caller."""

    name: str
    context: TraceContext
    start_ns: int
    end_ns: int
    parent: str | None = None
    """Span id; None for the first span of a trace."""
    kind: SpanKind = "internal"
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    """Ids, names of closed lists and numbers. Never text that a person or a model wrote."""
    error: str = ""
    """Code of what went wrong; empty when nothing did."""
    links: tuple[TraceContext, ...] = ()
    """Spans of other traces that led to it."""
