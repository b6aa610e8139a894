"""What every request tells: its time and answer, and a span where it belongs to a trace (AP-8, AP-120)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.kernel.errors import FleetError
from fleet.kernel.ids import CommandId, StoryId
from fleet.telemetry.log_line import Cause
from fleet.telemetry.otlp import FinishedSpan, TraceContext, parse_traceparent
from fleet.telemetry.service import on_behalf_of
from fleet.telemetry.story_trace import StoryTrace, request_span_id
from fleet.wiring.telemetry import Telemetry
from serve_apps.tracing import TRACE_HEADER

_NOTED = "fleet.command"
_CUT_OFF = 1006
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
_USUAL = (1000, 1001, 1005, _CUT_OFF)
StoryRoot = Callable[[StoryId], Awaitable[TraceContext | None]]
"""The span of a story, as its first event tells it; None for a story without events. StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class _Command:
    story_id: StoryId
    command_id: CommandId


def note_command(scope: Scope, story_id: StoryId, command_id: CommandId) -> None:
    """The request of this scope sends this command: its span belongs to the story's trace."""
    scope[_NOTED] = _Command(story_id, command_id)


class ObservedRequests:
    """ASGI middleware; the outermost, so that what others refuse is told too. Nothing is added to any answer.

    Args:
        name: of the application, a label of its figures.
        root_of: asked once the answer is out, for requests that send commands.
    """

    def __init__(self, app: ASGIApp, *, name: str, telemetry: Telemetry, root_of: StoryRoot | None = None) -> None:
        self._app, self._name, self._telemetry, self._root_of = app, name, telemetry, root_of
        self._open = {"sse": 0, "websocket": 0}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request is answered, and told."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            # The end of the application's life: what was told is on its way out.
            await asyncio.to_thread(self._telemetry.close)
            return
        seen, asked = _Seen(self, send), _Asked(scope)
        if scope["type"] == "websocket":
            self.opened("websocket", 1)
            seen.stream, receive = "websocket", seen.heard(receive)
        try:
            with on_behalf_of(Cause(traceparent=asked.own.traceparent if asked.own else "")):
                await self._app(scope, receive, seen.send)
        finally:
            if seen.stream:
                self.opened(seen.stream, -1)
            await self._told(scope, seen, asked)

    def opened(self, kind: str, by: int) -> None:
        """So many streams of this kind more are open."""
        self._open[kind] += by
        self._telemetry.meter.set("fleet_http_streams_open", self._open[kind], {"app": self._name, "kind": kind})

    async def _told(self, scope: Scope, seen: _Seen, asked: _Asked) -> None:
        meter = self._telemetry.meter
        if scope["type"] == "websocket":
            meter.add("fleet_http_streams_closed_total", labels={"app": self._name, "code": str(seen.status)})
            return
        seconds = time.monotonic() - asked.since
        labels = {"app": self._name, "method": _method(scope), "route": _route(scope)}
        meter.add("fleet_http_requests_total", labels={**labels, "code": str(seen.status)})
        if seen.stream:
            return
        meter.observe("fleet_http_request_seconds", seconds, labels)
        command: _Command | None = scope.get(_NOTED)
        if command is not None:
            outcome = "pending" if seen.status == 202 else "answered" if seen.status < 400 else "refused"
            meter.observe("fleet_command_seconds", seconds, {"outcome": outcome})
        if self._telemetry.tracer is None:
            return
        span = asked.span if command is None else await self._span_of(command, asked)
        if span is not None:
            self._telemetry.tracer.emit(_finished(span, scope, seen.status, asked.start_ns + int(seconds * 1e9)))

    async def _span_of(self, command: _Command, asked: _Asked) -> _Span:
        """The span of a command's request: in the trace of its story, which may be that of the caller."""
        root = await self._root(command.story_id)
        caller, own_id = asked.caller, request_span_id(command.command_id)
        if caller is not None and (root is None or root.trace_id == caller.trace_id):
            return _Span(TraceContext(caller.trace_id, own_id), caller.span_id, asked.start_ns, command.story_id)
        root = root or StoryTrace(command.story_id).root
        links = () if caller is None else (caller,)
        return _Span(TraceContext(root.trace_id, own_id), root.span_id, asked.start_ns, command.story_id, links)

    async def _root(self, story_id: StoryId) -> TraceContext | None:
        if self._root_of is None:
            return None
        try:
            return await self._root_of(story_id)
        except FleetError:
            return None


@dataclass(frozen=True, slots=True)
class _Span:
    context: TraceContext
    parent: str
    start_ns: int
    story_id: str = ""
    links: tuple[TraceContext, ...] = ()


class _Asked:
    """What is known when a request comes: the time, and who traces it. Looks that nobody traces get no span."""

    def __init__(self, scope: Scope) -> None:
        self.start_ns, self.since = time.time_ns(), time.monotonic()
        self.caller = parse_traceparent(Headers(scope=scope).get(TRACE_HEADER))
        self.own = TraceContext(self.caller.trace_id, secrets.token_hex(8)) if self.caller else None

    @property
    def span(self) -> _Span | None:
        """The span of a request that belongs to no story."""
        if self.caller is None or self.own is None:
            return None
        return _Span(self.own, self.caller.span_id, self.start_ns)


def _method(scope: Scope) -> str:
    """The method of the request; any word can stand there, so that one which HTTP does not have is not told."""
    method: str = scope["method"]
    return method if method in _METHODS else "_OTHER"


def _finished(span: _Span, scope: Scope, status: int, end_ns: int) -> FinishedSpan:
    attributes: dict[str, Any] = {
        "http.request.method": _method(scope),
        "http.route": _route(scope),
        "http.response.status_code": status,
    }
    if span.story_id:
        attributes["fleet.story"] = str(span.story_id)
    return FinishedSpan(
        name=f"{_method(scope)} {_route(scope)}",
        context=span.context,
        parent=span.parent,
        start_ns=span.start_ns,
        end_ns=end_ns,
        kind="server",
        attributes=attributes,
        error=str(status) if status >= 500 else "",
        links=span.links,
    )


class _Seen:
    """The way out of one request: what was answered."""

    def __init__(self, front: ObservedRequests, send: Send) -> None:
        self._front, self._send = front, send
        self.status = 500
        """Of an answer that never began; of a WebSocket the code of its end."""
        self.stream = ""

    def heard(self, receive: Receive) -> Receive:
        """What a client sends, its end included; of the codes that it may choose only usual ones are told."""

        async def hear() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.status = code if (code := message.get("code", _CUT_OFF)) in _USUAL else _CUT_OFF
            return message

        return hear

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start":
                self.status = message["status"]
                if "text/event-stream" in Headers(raw=message.get("headers", [])).get("content-type", ""):
                    self.stream = "sse"
                    self._front.opened("sse", 1)
            case "websocket.accept":
                self.status = _CUT_OFF
            case "websocket.close":
                self.status = message.get("code", 1000)
            case _:
                pass
        await self._send(message)


def _route(scope: Scope) -> str:
    """The route as it is declared; what matched none is told as one, whatever was asked for."""
    return getattr(scope.get("route"), "path", "") or "other"
