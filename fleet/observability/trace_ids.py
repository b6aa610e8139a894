"""Names of traces and spans (W3C Trace Context): who knows the story and the step knows them too.

Nothing has to be handed on for a span to land in its place, so whoever takes a story over after a crash, on whatever
node, goes on in the same trace and under the same spans.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

__all__ = ["TraceContext", "is_sampled", "parse_traceparent", "span_id_of", "story_trace_id"]

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-[!-~]{0,64})?")
_TRACE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span that others may hang on: 32 and 16 lower-case hex digits, neither of them all zero."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """The header that carries it, with the flag that it is recorded."""
        return f"00-{self.trace_id}-{self.span_id}-01"


def parse_traceparent(header: str | None) -> TraceContext | None:
    """What a `traceparent` header names; None for any other text."""
    found = _FORM.fullmatch(header or "")
    if found is None or not int(found[1], 16) or not int(found[2], 16):
        return None
    return TraceContext(found[1], found[2])


def story_trace_id(story_id: str, recorded: str = "") -> str:
    """The trace of a story: the one that its first event carries (AP-8), otherwise one that follows from its id."""
    if _TRACE.fullmatch(recorded) and int(recorded, 16):
        return recorded
    return _digits("trace", story_id)[:32]


def span_id_of(*names: str) -> str:
    """The 16 digits of the span that these names mean; the same ones everywhere and always."""
    return _digits("span", *names)[:16]


def is_sampled(trace_id: str, ratio: float) -> bool:
    """Whether this trace is among the share `ratio` that is kept; every process says the same of one trace."""
    return int(trace_id[-16:], 16) < ratio * 2**64


def _digits(*names: str) -> str:
    digest = hashlib.sha256(b"swe-fleet/trace/1")
    for name in names:
        raw = name.encode()
        digest.update(len(raw).to_bytes(8, "big"))
        digest.update(raw)
    return digest.hexdigest()
