"""What the front tells of requests: figures by route, spans of commands in the trace of their story."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import StoreUnavailable
from fleet.kernel.ids import CommandId, StoryId
from fleet.telemetry.memory import MemoryMeter, MemorySpans
from fleet.telemetry.otlp import TraceContext
from fleet.telemetry.service import Tracer, current_cause
from fleet.telemetry.story_trace import StoryTrace, request_span_id
from fleet.wiring.telemetry import Telemetry
from serve_apps.observed import ObservedRequests, note_command

STORY = StoryId("st-a-1")
COMMAND = CommandId("user:ana/k1")
CALLER = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
SENT = {"traceparent": CALLER.traceparent}
SEEN: list[str] = []


async def look(request: Request) -> JSONResponse:
    SEEN.append(current_cause().traceparent)
    return JSONResponse({}, status_code=int(request.query_params.get("status", "200")))


async def command(request: Request) -> JSONResponse:
    note_command(request.scope, STORY, COMMAND)
    return JSONResponse({}, status_code=int(request.query_params.get("status", "201")))


async def stream(request: Request) -> StreamingResponse:
    async def lines() -> Any:
        yield "data: 1\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")


async def fail(request: Request) -> JSONResponse:
    raise RuntimeError("a defect")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    if await socket.receive_text() == "stay":
        await socket.receive()
        return
    await socket.close(4401)


class Front:
    """A front with one route of each kind."""

    def __init__(self, root_of: Callable[[StoryId], Awaitable[TraceContext | None]] | None = None) -> None:
        self.meter, self.spans = MemoryMeter(), MemorySpans()
        telemetry = Telemetry(self.meter, Tracer(self.spans, SystemClock()))
        routes = [
            Route("/things/{name}", look),
            Route("/commands", command, methods=["POST"]),
            Route("/events", stream),
            Route("/fail", fail),
            WebSocketRoute("/ws", talk),
        ]
        self.app = Starlette(routes=routes)
        self.app.add_middleware(ObservedRequests, name="gateway", telemetry=telemetry, root_of=root_of)

    async def ask(self, method: str, url: str, headers: dict[str, str] | None = None) -> httpx2.Response:
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://front") as client:
            return await client.request(method, url, headers=headers)


async def none(story_id: StoryId) -> TraceContext | None:
    return None


async def own(story_id: StoryId) -> TraceContext | None:
    return StoryTrace(story_id).root


async def callers(story_id: StoryId) -> TraceContext | None:
    return StoryTrace(story_id, recorded=CALLER.trace_id).root


async def away(story_id: StoryId) -> TraceContext | None:
    raise StoreUnavailable("the log is away")


@pytest.mark.rule("AP-120")
async def test_request_is_counted_by_its_route_and_never_by_its_path() -> None:
    front = Front()
    await front.ask("GET", "/things/secret-name")
    await front.ask("GET", "/things/other?status=404")
    await front.ask("GET", "/nowhere/at/all")
    labels = {"app": "gateway", "method": "GET"}
    assert "secret-name" not in repr(front.meter.figures)
    assert front.meter.value("fleet_http_requests_total", **labels, route="other", code="404") == 1
    told = {dict(series)["route"] for name, series in front.meter.figures if name == "fleet_http_requests_total"}
    assert told <= {"/things/{name}", "other"}
    assert front.spans.spans == []


@pytest.mark.rule("AP-120", "CX-60")
async def test_word_in_place_of_a_method_is_counted_and_traced_without_telling_it() -> None:
    front = Front()
    for number in range(3):
        await front.ask(f"HUNTER{number}", "/things/a", SENT)
    assert "HUNTER" not in repr((front.meter.figures, front.meter.observed, front.spans.spans))
    series = [dict(labels) for name, labels in front.meter.figures if name == "fleet_http_requests_total"]
    assert [labels["method"] for labels in series] == ["_OTHER"]
    assert {span.attributes["http.request.method"] for span in front.spans.spans} == {"_OTHER"}


async def test_fault_is_counted_as_a_server_error() -> None:
    front = Front()
    assert (await front.ask("GET", "/fail")).status_code == 500
    codes = {dict(series)["code"] for name, series in front.meter.figures if name == "fleet_http_requests_total"}
    assert codes == {"500"}


async def test_streams_are_counted_while_they_are_open_and_not_timed() -> None:
    front = Front()
    await front.ask("GET", "/events")
    assert front.meter.figures["fleet_http_streams_open", (("app", "gateway"), ("kind", "sse"))] == 0
    assert not any(name == "fleet_http_request_seconds" for name, _ in front.meter.observed)


def test_socket_is_counted_with_the_code_of_its_end() -> None:
    front = Front()
    with TestClient(front.app) as client:
        with client.websocket_connect("/ws") as socket:
            socket.send_text("go")
            assert socket.receive()["code"] == 4401
        for code in (1000, 3333):
            with client.websocket_connect("/ws") as socket:
                socket.send_text("stay")
                socket.close(code)
    for code in ("4401", "1000", "1006"):
        assert front.meter.value("fleet_http_streams_closed_total", app="gateway", code=code) == 1
    assert front.meter.value("fleet_http_streams_open", app="gateway", kind="websocket") == 0
    assert front.spans.is_closed


async def test_look_of_a_caller_with_a_trace_is_a_span_below_the_callers() -> None:
    front = Front()
    SEEN.clear()
    await front.ask("GET", "/things/a?status=503", SENT)
    (span,) = front.spans.spans
    assert (span.context.trace_id, span.parent, span.kind, span.error) == (
        CALLER.trace_id,
        CALLER.span_id,
        "server",
        "503",
    )
    assert [span.context.traceparent] == SEEN


@pytest.mark.rule("AP-8")
async def test_command_of_nobodys_trace_is_in_the_trace_of_its_story() -> None:
    front = Front(own)
    await front.ask("POST", "/commands")
    (span,) = front.spans.spans
    root = StoryTrace(STORY).root
    assert span.context == TraceContext(root.trace_id, request_span_id(COMMAND))
    assert span.parent == root.span_id
    assert span.links == ()
    assert front.meter.observations("fleet_command_seconds", outcome="answered")


@pytest.mark.rule("AP-8")
@pytest.mark.parametrize("root_of", [callers, none, away, None])
async def test_command_that_creates_a_story_is_the_span_that_the_story_hangs_on(root_of: Any) -> None:
    front = Front(root_of)
    await front.ask("POST", "/commands?status=202", SENT)
    (span,) = front.spans.spans
    assert span.context == TraceContext(CALLER.trace_id, request_span_id(COMMAND))
    assert span.parent == CALLER.span_id
    assert front.meter.observations("fleet_command_seconds", outcome="pending")


async def test_later_command_of_another_trace_is_in_that_of_the_story_and_linked() -> None:
    front = Front(own)
    await front.ask("POST", "/commands?status=409", SENT)
    (span,) = front.spans.spans
    assert span.context.trace_id == StoryTrace(STORY).trace_id
    assert span.links == (CALLER,)
    assert front.meter.observations("fleet_command_seconds", outcome="refused")


async def test_front_without_traces_tells_figures_alone() -> None:
    meter = MemoryMeter()
    app = Starlette(routes=[Route("/commands", command, methods=["POST"])])
    app.add_middleware(ObservedRequests, name="gateway", telemetry=Telemetry(meter))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://front") as client:
        assert (await client.post("/commands", headers=SENT)).status_code == 201
    assert meter.observations("fleet_command_seconds", outcome="answered")
