"""Server-sent events as text (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEARTBEAT = ": still here\n\n"
"""A comment: the line lives, and nothing happened."""
RETRY = "retry: 3000\n\n"
"""A client that lost its line comes again after three seconds."""


LAST_WORD_S = 5.0
"""How long a client that is let go has to take the frame that tells it so."""


def event_stream(frames: AsyncIterator[str], *, let_go: asyncio.Event | None = None) -> StreamingResponse:
    """The answer that sends these frames; proxies are asked to pass each one on at once.

    Args:
        let_go: set when the client is too slow. If it does not even take what tells it so, the line is cut.
    """
    return _EventStream(frames, let_go)


class _EventStream(StreamingResponse):
    def __init__(self, frames: AsyncIterator[str], let_go: asyncio.Event | None) -> None:
        super().__init__(frames, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._let_go = let_go

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._let_go is None:
            await super().__call__(scope, receive, send)
            return
        sending = asyncio.create_task(super().__call__(scope, receive, send))
        cutting = asyncio.create_task(_cut(sending, self._let_go))
        try:
            await asyncio.wait({sending})
        finally:
            cutting.cancel()
            sending.cancel()
            await asyncio.gather(cutting, sending, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _cut(sending: asyncio.Task[None], let_go: asyncio.Event) -> None:
    await let_go.wait()
    await asyncio.wait({sending}, timeout=LAST_WORD_S)
    sending.cancel()


def sse_frame(data: Any, *, event: str | None = None, event_id: str | int | None = None) -> str:
    """One frame with `data` as JSON on one line."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    head += f"event: {event}\n" if event is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
