"""Traces of callers: a request's `traceparent` is given back, and becomes the trace of what it causes (AP-8)."""

from __future__ import annotations

import re

TRACE_HEADER = "traceparent"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-[!-~]{0,64})?")


def known_trace(header: str | None) -> str | None:
    """The header as it came, when it names a trace (W3C Trace Context, version 00); None for any other text."""
    match = _FORM.fullmatch(header or "")
    return header if match and int(match[1], 16) and int(match[2], 16) else None


def trace_id_of(header: str | None) -> str:
    """The 32 hex digits of the trace; empty when the header names none."""
    known = known_trace(header)
    return known.split("-")[1] if known else ""
