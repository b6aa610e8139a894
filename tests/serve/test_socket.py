"""The WebSocket: the token first, no page of another site, bounds, events without gap (AP-110..AP-112)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.kernel.ids import Principal
from serve_apps.routes.gateway import build_gateway
from serve_apps.stream import socket as socket_module
from tests.support.bench import World
from tests.support.rules import files
from tests.support.story_events import STORY, story
from tests.support.tool_front import DEV, keyed, tool_front

REGISTRY = PrincipalRegistry(
    tuple(
        PrincipalEntry(
            principal=Principal(f"user:{name}"),
            roles=frozenset({"po"}),
            token_sha256=hash_token(f"{name}-token"),
            projects=projects,
        )
        for name, projects in (("ana", None), ("eve", frozenset({"pr-other"})))
    )
)


class Page:
    """The client's end of one WebSocket, in this process."""

    def __init__(self, app: FastAPI, *, origin: str | None = None, extensions: dict[str, Any] | None = None) -> None:
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        headers = [(b"host", b"fleet:8000")] + ([(b"origin", origin.encode())] if origin else [])
        scope = {
            "type": "websocket",
            "path": "/api/ws",
            "raw_path": b"/api/ws",
            "query_string": b"",
            "headers": headers,
            "subprotocols": [],
            "scheme": "ws",
            "server": ("fleet", 8000),
            "client": ("127.0.0.1", 1),
            "root_path": "",
            "extensions": extensions or {},
        }
        self._reads = asyncio.Event()
        self._reads.set()
        self._task = asyncio.create_task(app(scope, self._to_app.get, self._taken))
        self._to_app.put_nowait({"type": "websocket.connect"})

    async def _taken(self, message: dict[str, Any]) -> None:
        await self._reads.wait()
        await self._from_app.put(message)

    def slow_down(self, reads: asyncio.Event) -> None:
        """From here on the page takes messages only while this is set."""
        self._reads = reads

    async def left(self, *, within_s: float) -> None:
        """The server is done with the line."""
        async with asyncio.timeout(within_s):
            await asyncio.wait({self._task})

    async def message(self) -> dict[str, Any]:
        """The next message of the protocol."""
        async with asyncio.timeout(10):
            return await self._from_app.get()

    async def told(self, op: str) -> dict[str, Any]:
        """The next message with this `op`; others before it are passed over."""
        while True:
            message = await self.message()
            assert message["type"] == "websocket.send", message
            found = json.loads(message["text"])
            if found["op"] == op:
                return found

    async def closed(self) -> int:
        """The code with which the server ended the line."""
        while (message := await self.message())["type"] != "websocket.close":
            pass
        return message["code"]

    def say(self, document: Any) -> None:
        """Send one message."""
        text = document if isinstance(document, str) else json.dumps(document)
        self._to_app.put_nowait({"type": "websocket.receive", "text": text})

    async def end(self) -> None:
        """The page goes away."""
        self._to_app.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(10):
            await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def page(app: FastAPI, *, token: str = "ana-token", origin: str | None = None) -> AsyncIterator[Page]:
    at = Page(app, origin=origin)
    assert (await at.message())["type"] == "websocket.accept"
    at.say({"op": "auth", "token": token})
    try:
        yield at
    finally:
        await at.end()


def _app(world: World) -> FastAPI:
    return build_gateway(world.desk, REGISTRY, files().load("serve.yaml", ServeSettings))


@pytest.fixture
async def world() -> World:
    found = World()
    await story(until="scope").write_to(found.log)
    return found


@pytest.mark.rule("AP-110")
@pytest.mark.parametrize("first", [{"op": "auth", "token": "wrong"}, {"op": "ping"}, "no json", {"op": "auth"}])
async def test_line_without_a_known_token_is_closed(world: World, first: Any):
    at = Page(_app(world))
    assert (await at.message())["type"] == "websocket.accept"
    at.say(first)
    assert await at.closed() == socket_module.NO_TOKEN
    await at.end()


@pytest.mark.rule("AP-10", "AP-110")
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://fleet:8001", "null", "http://fleet.evil.example:8000"]
)
async def test_page_of_another_site_is_refused_before_anything_is_said(world: World, origin: str):
    at = Page(_app(world), origin=origin)
    assert await at.closed() == 1008
    await at.end()


@pytest.mark.rule("AP-10")
async def test_page_of_another_site_is_told_in_words_where_the_server_can_send_them(world: World):
    at = Page(_app(world), origin="https://evil.example", extensions={"websocket.http.response": {}})
    start, body = await at.message(), await at.message()
    problem = json.loads(body["body"])
    assert (start["status"], problem["code"], problem["rule_id"]) == (403, "policy_denied", "AP-10")
    assert "https://evil.example may not open this line" in problem["detail"]
    assert "origins" in problem["detail"]
    await at.end()


@pytest.mark.rule("AP-110")
async def test_page_of_the_desk_is_let_in(world: World):
    async with page(_app(world), origin="http://fleet:8000") as at:
        at.say({"op": "ping"})
        assert await at.told("pong") == {"op": "pong"}


@pytest.mark.rule("AP-111")
async def test_events_go_on_behind_a_version_without_gap_or_repeat(world: World):
    async with page(_app(world)) as at:
        at.say({"op": "subscribe", "id": "s1", "stories": [STORY], "after": {f"story:{STORY}": 2}})
        await at.told("subscribed")
        recorded = await world.events()
        seen = [(await at.told("event"))["envelope"]["version"] for _ in recorded[2:]]
        assert seen == [e.version for e in recorded[2:]]


@pytest.mark.rule("AP-112", "AP-25")
@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"op": "approve", "gate": "approve_scope"}, "invalid_input"),
        ({"op": "subscribe", "id": "s1"}, "invalid_input"),
        ({"op": "subscribe", "id": "s1", "stories": [STORY], "types": ["Nothing"]}, "invalid_input"),
        ({"op": "subscribe", "id": "s1", "stories": ["st-nobody"]}, "not_found"),
        ({"op": "subscribe", "id": "s1", "stories": ["../x"]}, "invalid_input"),
        ({"op": "subscribe", "id": "s1", "runs": ["rn-nobody1"]}, "sandbox_unavailable"),
        ("[" * 1000, "invalid_input"),
        ("nothing", "invalid_input"),
    ],
)
async def test_message_that_is_refused_leaves_the_line_open(world: World, message: Any, code: str):
    async with page(_app(world)) as at:
        at.say(message)
        assert (await at.told("error"))["code"] == code
        at.say({"op": "ping"})
        await at.told("pong")


@pytest.mark.rule("AP-25", "AP-104")
async def test_story_of_another_project_is_not_there(world: World):
    async with page(_app(world), token="eve-token") as at:
        for wanted in ({"stories": [STORY]}, {"projects": ["pr-default"]}):
            at.say({"op": "subscribe", "id": "s1", **wanted})
            assert (await at.told("error"))["code"] == "not_found"


@pytest.mark.rule("AP-112")
async def test_frame_over_the_bound_and_a_flood_of_messages_end_the_line(world: World):
    async with page(_app(world)) as at:
        at.say(json.dumps({"op": "ping", "x": "y" * 65_536}))
        assert await at.closed() == socket_module.TOO_LARGE
    async with page(_app(world)) as at:
        for _ in range(socket_module.MAX_PER_SECOND + 1):
            at.say({"op": "ping"})
        assert await at.closed() == socket_module.TOO_MANY


@pytest.mark.rule("AP-111")
async def test_lines_of_a_run_go_on_behind_a_number_and_say_when_they_are_over():
    async with tool_front() as front:
        run = (await front.run("python", "a.py")).json()["taskId"]
        await front.result(run)
        async with page(front.app, token="dev-token") as at:
            at.say({"op": "subscribe", "id": "r1", "runs": [run], "after": {run: 1}})
            line = await at.told("log")
            assert (line["run_id"], line["n"], line["line"]) == (run, 2, "two")
            assert (await at.told("log_end"))["run_id"] == run


@pytest.mark.rule("AP-110")
async def test_subscription_to_a_project_ends_when_it_is_asked_to():
    async with tool_front() as front, page(front.app, token="dev-token") as at:
        at.say({"op": "subscribe", "id": "p1", "projects": ["pr-default"], "types": ["QuestionRaised"]})
        await at.told("subscribed")
        url = f"/api/planner/stories/{STORY}/questions"
        await front.client.post(url, json={"text": "Which alphabet?"}, headers=keyed(1, DEV))
        assert (await at.told("event"))["envelope"]["body"]["text"] == "Which alphabet?"
        at.say({"op": "unsubscribe", "id": "p1"})
        await front.client.post(url, json={"text": "Which length?"}, headers=keyed(2, DEV))
        at.say({"op": "ping"})
        message = json.loads((await at.message())["text"])
        assert message == {"op": "pong"}
