"""What every request meets first: a bound on its body, and an answer in our form whatever happens (AP-7, AP-9)."""

from __future__ import annotations

import logging
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.errors import FleetError, MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from serve_apps.problems import problem_response

__all__ = ["RequestBounds", "internal_error"]

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_LOG = logging.getLogger(__name__)


def internal_error() -> FleetError:
    """What a caller is told of a fault of ours: that it happened, and nothing of its inside (AP-7)."""
    return FleetError("something went wrong inside the front; its log has the cause")


class RequestBounds:
    """ASGI middleware: bodies are small JSON, answers are neither cached nor sniffed, faults are problem documents.

    Args:
        app: the application behind it.
        max_body_bytes: longest body; of a longer one at most one chunk beyond the bound is taken in.
    """

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request is answered; a fault after the first byte of an answer is raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            if scope["method"] in _WITH_BODY:
                receive = await self._bounded(Headers(scope=scope), receive)
            await self._app(scope, receive, answer.send)
        except FleetError as error:
            await problem_response(error, instance=scope["path"])(scope, receive, answer.send)
        except Exception:
            if answer.started:
                raise
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            await problem_response(internal_error(), instance=scope["path"])(scope, receive, answer.send)

    async def _bounded(self, headers: Headers, receive: Receive) -> Receive:
        """A receive that gives the whole body at once, after its length and type were checked."""
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise MalformedRequest("Content-Length is no number")
        if int(declared) > self._max_body_bytes:
            raise self._too_large()
        message = await self._whole(receive)
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        if message.get("body") and kind != "application/json":
            raise UnsupportedMediaType("send application/json", allowed=["application/json"])
        waiting = [message]

        async def replay() -> Message:
            return waiting.pop() if waiting else await receive()

        return replay

    async def _whole(self, receive: Receive) -> Message:
        """The body as one message; a chunked one names no length, so what arrives is counted."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _too_large(self) -> PayloadTooLarge:
        limit = self._max_body_bytes
        return PayloadTooLarge(f"the body may have {limit} bytes", limit=limit)


class _Answer:
    """The way out: adds the headers that every answer has, and knows whether one has begun."""

    def __init__(self, send: Send) -> None:
        self._send, self.started = send, False

    async def send(self, message: Message | dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)
