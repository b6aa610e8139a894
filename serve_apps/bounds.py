"""What every request meets first: a bound on its body, and an answer in our form whatever happens (AP-7, AP-9)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.kernel.errors import FleetError, MalformedRequest, PayloadTooLarge, UnsupportedMediaType
from serve_apps.problems import internal_error, problem_response
from serve_apps.tracing import TRACE_HEADER, known_trace

_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
MAX_DEPTH = 64
"""Of nested values in a body: no schema needs as many, and what looks at values calls itself for each level."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[][{}]")
_LOG = logging.getLogger(__name__)


def _problem(error: FleetError, path: str) -> Response:
    return problem_response(error, instance=path)


class RequestBounds:
    """ASGI middleware: bodies are small JSON, answers are neither cached nor sniffed, faults are problem documents.

    Args:
        app: the application behind it.
        max_body_bytes: longest body; of a longer one at most one chunk beyond the bound is taken in.
        refuse: the answer for an error and the path of the request; a problem document unless given.
        is_private: bodies and answers are nobody's business, so that of a fault only its class is logged.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        refuse: Callable[[FleetError, str], Response] = _problem,
        is_private: bool = False,
    ) -> None:
        self._app, self._max_body_bytes = app, max_body_bytes
        self._refuse, self._is_private = refuse, is_private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request is answered; a fault after the first byte of an answer is raised."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, known_trace(Headers(scope=scope).get(TRACE_HEADER)))
        try:
            if scope["method"] in _WITH_BODY:
                receive = await self._bounded(Headers(scope=scope), receive)
            await self._app(scope, receive, answer.send)
        except FleetError as error:
            await self._refuse(error, scope["path"])(scope, receive, answer.send)
        except Exception as error:
            if answer.started:
                raise
            self._log(scope, error)
            await self._refuse(internal_error(), scope["path"])(scope, receive, answer.send)

    def _log(self, scope: Scope, error: Exception) -> None:
        if self._is_private:
            # A traceback shows the message of the error, which may quote the body.
            _LOG.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
        else:
            _LOG.exception("%s %s failed", scope["method"], scope["path"])

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
        if is_deep(message.get("body", b"")):
            raise MalformedRequest(f"the body is nested more than {MAX_DEPTH} levels deep", limit=MAX_DEPTH)
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


def is_deep(body: bytes) -> bool:
    """Whether a value of this JSON stands in more than `MAX_DEPTH` others. Of what is no JSON it may say either."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_TEXT.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


class _Answer:
    """The way out: adds the headers that every answer has, and knows whether one has begun."""

    def __init__(self, send: Send, trace: str | None) -> None:
        self._send, self._trace, self.started = send, trace, False

    async def send(self, message: Message | dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.setdefault("Cache-Control", "no-store")
            if self._trace is not None:
                headers[TRACE_HEADER] = self._trace
        await self._send(message)
