"""The HTTP client of model servers: no redirects, no endless answers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from functools import cache

import httpx2

from fleet.models import HttpEngine
from fleet.services.observing import outgoing_traceparent

__all__ = ["AnswerTooLong", "bounded_client"]

_BASE_BYTES = 1_048_576
_IDLE_S = 2.0
"""How long a connection is kept for the next call. The servers of llama.cpp, vLLM and Ray Serve close an idle one after
5 s, and a call sent in that very moment would be lost."""
_BYTES_PER_TOKEN = 1024
"""One token comes in one event of the stream, wrapped in some hundred bytes of JSON."""


class AnswerTooLong(Exception):
    """The server sends more than any reply needs; never leaves this package."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for part in self._inner:
            seen += len(part)
            if seen > self._limit:
                raise AnswerTooLong(f"the server sent more than {self._limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _tls() -> ssl.SSLContext:
    # Loading the certificates takes a tenth of a second, and every engine wants the same ones.
    return httpx2.create_ssl_context()


def bounded_client(engine: HttpEngine) -> httpx2.AsyncClient:
    """A client for one engine. Time is bounded by who calls, so the client itself has no timeout.

    A redirect is not followed: it would carry prompt and key to a place that nobody configured.
    """
    limit = _BASE_BYTES + _BYTES_PER_TOKEN * engine.max_output

    async def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, limit)

    async def trace(request: httpx2.Request) -> None:
        if traceparent := outgoing_traceparent():
            request.headers["traceparent"] = traceparent

    return httpx2.AsyncClient(
        follow_redirects=False,
        timeout=None,
        verify=_tls(),
        limits=httpx2.Limits(
            max_connections=engine.max_concurrency + 4, max_keepalive_connections=16, keepalive_expiry=_IDLE_S
        ),
        event_hooks={"request": [trace], "response": [bound]},
        # A few bytes can unpack to gigabytes; the bound counts what comes over the wire.
        headers={"Accept-Encoding": "identity"},
    )
