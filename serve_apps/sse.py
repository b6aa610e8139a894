"""Server-sent events as text (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

__all__ = ["HEARTBEAT", "RETRY", "event_stream", "sse_frame"]

HEARTBEAT = ": still here\n\n"
"""A comment: the line lives, and nothing happened."""
RETRY = "retry: 3000\n\n"
"""A client that lost its line comes again after three seconds."""


def event_stream(frames: AsyncIterator[str]) -> StreamingResponse:
    """The answer that sends these frames; proxies are asked to pass each one on at once."""
    return StreamingResponse(frames, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def sse_frame(data: Any, *, event: str | None = None, event_id: str | int | None = None) -> str:
    """One frame with `data` as JSON on one line."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    head += f"event: {event}\n" if event is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
