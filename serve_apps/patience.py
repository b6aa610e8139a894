"""How long the HTTP doors wait for a request that does not come whole (AP-9)."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 15.0
"""From the first byte of a request, or from the start of its connection, until its headers are there."""
BODY_S = 60.0
"""From the headers of a request until its body is there: the largest one needs 17 kB a second."""


_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1 of uvicorn, which by itself waits without end for the rest of a request.

    A connection whose request is late is answered 408, unless an answer has begun, and closed.
    """

    head_s, body_s = HEAD_S, BODY_S
    _deadline: asyncio.TimerHandle | None = None
    _has_headers = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection on which nothing is ever sent is late, too."""
        super().connection_made(transport)
        self._wait(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Uvicorn stops its own clock of idle connections at each byte, also at those that begin no request."""
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._wait(self.head_s)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request that comes while another is answered is waited for as long as any."""
        super().on_message_begin()
        self._has_headers = False
        if self._deadline is None:
            self._wait(self.head_s)

    def on_headers_complete(self) -> None:
        """Next is the body."""
        self._stop()
        self._wait(self.body_s)
        self._has_headers = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole; its answer may take as long as it does."""
        self._stop()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The connection is a WebSocket's from here on, which has time-outs of its own."""
        self._stop()
        super().handle_websocket_upgrade()

    def _wait(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._end)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        is_idle = self.cycle is None or self.cycle.response_complete
        # Bytes within an answer would be taken for part of it.
        if not self.cycle.response_started if self._has_headers else is_idle:
            self.transport.write(_LATE)
        self.transport.close()


def http_proxy_callback() -> list[Any]:
    """Serve calls it in each proxy before the door opens; it wants middlewares, of which there are none."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{PatientProtocol.__name__}"
    return []
