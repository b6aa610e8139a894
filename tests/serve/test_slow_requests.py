"""Requests that come slowly or never end hold no connection: real sockets, against the protocol of the doors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from serve_apps.patience import BODY_S, HEAD_S, PatientProtocol, http_proxy_callback

pytestmark = pytest.mark.rule("AP-9")
HEAD, BODY = 0.4, 0.8
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n"


class Quick(PatientProtocol):
    """The same with less patience, so that a test does not wait for a minute."""

    head_s, body_s = HEAD, BODY


async def _length(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


async def _stream(_: Request) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"part\n"
            await asyncio.sleep(BODY / 2)

    return StreamingResponse(parts())


async def _echo(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(text)


APP = Starlette(
    routes=[
        Route("/", _length, methods=["GET", "POST"]),
        Route("/stream", _stream),
        WebSocketRoute("/socket", _echo),
    ]
)


@asynccontextmanager
async def door() -> AsyncIterator[int]:
    config = uvicorn.Config(APP, http=Quick, port=0, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def answer(port: int, *parts: bytes, every_s: float = 0.1) -> tuple[bytes, float]:
    """All that comes until the door closes the connection, and after how many seconds it did."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    loop = asyncio.get_running_loop()
    began, reading = loop.time(), asyncio.create_task(reader.read())
    try:
        for part in parts:
            if reading.done():
                break
            writer.write(part)
            await asyncio.sleep(every_s)
        return await asyncio.wait_for(reading, 10), loop.time() - began
    except ConnectionError:
        return await reading, loop.time() - began
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("parts", "limit_s"),
    [
        ((), HEAD),
        ((b"GET / HTTP/1.1\r\n",), HEAD),
        (tuple(b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 40 if n == 0 else b"a" for n in range(60)), HEAD),
        ((POST, b"12345"), BODY),
        ((POST, *[b"1"] * 9), BODY),
        ((b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", *[b"1\r\na\r\n"] * 60), BODY),
    ],
    ids=["silent", "half-head", "dripping-head", "half-body", "dripping-body", "endless-chunks"],
)
async def test_request_that_is_late_is_answered_408_and_its_connection_closed(
    parts: tuple[bytes, ...], limit_s: float
) -> None:
    async with door() as port:
        told, seconds = await answer(port, *parts)
    assert told.startswith(b"HTTP/1.1 408 ")
    assert told.endswith(b"\r\n\r\n")
    assert limit_s * 0.9 < seconds < limit_s + 3


async def test_connection_that_is_kept_alive_by_empty_lines_is_closed_after_its_answer() -> None:
    async with door() as port:
        told, seconds = await answer(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", *[b"\r\n"] * 80)
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.count(b"HTTP/1.1") == 1
    assert seconds < HEAD + 3


async def test_second_request_on_a_connection_is_waited_for_as_long_as_the_first() -> None:
    async with door() as port:
        told, _ = await answer(port, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"GET / HTTP/1.1\r\n")
    assert told.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in told


async def test_forty_half_open_connections_keep_nobody_out_and_are_gone_after_their_time() -> None:
    async with door() as port:
        slow = [asyncio.create_task(answer(port, b"GET / HT")) for _ in range(40)]
        told, _ = await answer(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 200 ")
        assert all(text.startswith(b"HTTP/1.1 408 ") for text, _ in await asyncio.gather(*slow))


async def test_answers_and_sockets_last_as_long_as_they_do() -> None:
    async with door() as port:
        told, seconds = await answer(port, b"GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert (told.count(b"part\n"), seconds > BODY) == (4, True)
        async with connect(f"ws://127.0.0.1:{port}/socket") as socket:
            await asyncio.sleep(BODY + HEAD)
            await socket.send("there")
            assert await socket.recv() == "there"


def test_each_proxy_of_serve_takes_this_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    protocols: dict[Any, Any] = uvicorn.config.HTTP_PROTOCOLS
    monkeypatch.setitem(protocols, "auto", protocols["auto"])
    assert http_proxy_callback() == []
    config = uvicorn.Config(APP)
    config.load()
    assert config.http_protocol_class is PatientProtocol
    assert (PatientProtocol.head_s, PatientProtocol.body_s) == (HEAD_S, BODY_S) == (15, 60)
