"""Readers of a stream that do not keep up: a bounded queue, one last word, and nothing lost (EV-24, AP-103)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.events.codec import encode
from fleet.events.envelope import StoredEvent
from fleet.events.story import MilestoneReached
from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.port import AppendRequest
from serve_apps.routes.gateway import build_gateway
from serve_apps.stream import socket as socket_module
from serve_apps.stream import sse as sse_module
from serve_apps.stream.backlog import Backlog
from serve_apps.stream.routes import Choice, event_frames, many_frames
from tests.serve.test_socket import REGISTRY, page
from tests.support.bench import World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.stores import eventually
from tests.support.story_events import STORY, story

QUEUE, BURST = 5, 20
STREAM = StreamId.of_story(STORY)
URL = f"/api/events/stream?storyId={STORY}"


@pytest.fixture
async def world() -> World:
    """A story with four events from long ago."""
    found = World(clock=MemoryClock(now_ms=10**13))
    await story(until="scored").write_to(found.log)
    return found


async def _record(world: World, count: int) -> None:
    """So many more events, as of now, one after the other."""
    for _ in range(count):
        head = await world.log.head(STREAM)
        name = f"mi-m{head.version}"
        payload = MilestoneReached(milestone_id=EntityId(name), name=name, ref="")
        await world.log.append(
            AppendRequest(
                stream=STREAM,
                events=[encode(payload)],
                expected=head,
                command_id=CommandId(f"{STORY}/{name}"),
                actor=Principal("system:council"),
                ts_ms=world.clock.now_ms(),
            )
        )


def _backlog(world: World) -> Backlog:
    return Backlog(QUEUE, since_ms=world.clock.now_ms())


def _app(world: World) -> FastAPI:
    settings = files().load("serve.yaml", ServeSettings).model_copy(update={"stream_queue": QUEUE})
    return build_gateway(world.desk, REGISTRY, settings, parts=front_parts(world))


def _fields(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.strip().splitlines() if ": " in line)


async def _versions(frames: AsyncIterator[str], *, until: int) -> list[int]:
    """The versions of the frames up to this one, which all come."""
    found: list[int] = []
    async with asyncio.timeout(20):
        async for text in frames:
            fields = _fields(text)
            if "id" in fields and "data" in fields:
                found.append(json.loads(fields["data"])["version"])
                if found[-1] == until:
                    return found
    raise AssertionError(f"the stream ended after {found}")


@pytest.mark.rule("EV-24", "AP-103")
async def test_reader_that_does_not_read_gets_overflow_and_goes_on_without_a_gap(world: World):
    backlog, last = _backlog(world), (await world.log.head(STREAM)).version
    async with aclosing(event_frames(world.desk, STORY, after=0, heartbeat_s=15, backlog=backlog)) as frames:
        seen = await _versions(frames, until=last)
        await _record(world, 1)
        seen += await _versions(frames, until=last + 1)
        await _record(world, BURST)
        await eventually(lambda: _is(backlog.overflowed), within_s=10)
        rest = [_fields(text) async for text in frames]
    assert [(fields["event"], json.loads(fields["data"])) for fields in rest] == [("overflow", {"queue": QUEUE})]
    assert "id" not in rest[0], "the client comes again with the last id of an event"
    again = event_frames(world.desk, STORY, after=seen[-1], heartbeat_s=15, backlog=_backlog(world))
    async with aclosing(again) as frames:
        seen += await _versions(frames, until=last + 1 + BURST)
    assert seen == list(range(1, last + 2 + BURST))


async def _is(event: asyncio.Event) -> bool:
    return event.is_set()


@pytest.mark.rule("EV-24")
async def test_history_longer_than_the_queue_is_read_at_the_readers_own_pace(world: World):
    await _record(world, BURST)
    world.clock.advance(1)  # type: ignore[attr-defined]
    backlog, last = _backlog(world), (await world.log.head(STREAM)).version
    async with aclosing(event_frames(world.desk, STORY, after=0, heartbeat_s=15, backlog=backlog)) as frames:
        seen: list[int] = []
        for until in range(1, last + 1):
            seen += await _versions(frames, until=until)
            await asyncio.sleep(0.001)
    assert seen == list(range(1, last + 1))
    assert not backlog.overflowed.is_set()


@pytest.mark.rule("EV-24", "AP-103")
async def test_reader_that_keeps_up_is_never_let_go(world: World):
    backlog, last = _backlog(world), (await world.log.head(STREAM)).version
    async with aclosing(event_frames(world.desk, STORY, after=last, heartbeat_s=15, backlog=backlog)) as frames:
        reading = asyncio.create_task(_versions(frames, until=last + BURST))
        await asyncio.sleep(0)
        await _record(world, BURST)
        assert await reading == list(range(last + 1, last + 1 + BURST))
    assert not backlog.overflowed.is_set()


@pytest.mark.rule("EV-24", "AP-102")
async def test_watch_of_several_stories_overflows_too(world: World):
    backlog, last = _backlog(world), (await world.log.head(STREAM)).version
    app = _app(world)
    choice = Choice(app.state.sight, Principal("user:ana"), projects=frozenset({"pr-default"}))
    several = many_frames(world.desk, choice, after={STORY: last}, heartbeat_s=15, backlog=backlog)
    async with aclosing(several) as frames:
        await anext(frames)
        await _record(world, 1)
        assert await _versions(frames, until=last + 1) == [last + 1]
        await _record(world, BURST)
        await eventually(lambda: _is(backlog.overflowed), within_s=10)
        (rest,) = [_fields(text) async for text in frames]
    assert rest["event"] == "overflow"


async def test_fault_of_the_log_reaches_the_reader():
    async def broken() -> AsyncIterator[StoredEvent | None]:
        yield None
        raise OSError("the log is away")

    through = Backlog(QUEUE, since_ms=0).through(broken())
    assert await anext(through) is None
    with pytest.raises(OSError, match="away"):
        await anext(through)


class _Stuck:
    """The server's end of a connection whose client takes nothing once it was told to stop."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, message: Any) -> None:
        await self.reads.wait()
        self.taken.append(message.get("body", b""))

    async def receive(self) -> Any:
        await asyncio.Event().wait()


def _scope() -> dict[str, Any]:
    path, _, query = URL.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(b"host", b"fleet"), (b"authorization", b"Bearer ana-token")],
        "server": ("fleet", 80),
        "client": ("127.0.0.1", 1),
        "root_path": "",
    }


@pytest.mark.rule("EV-24", "AP-103")
async def test_line_of_a_client_that_takes_nothing_is_cut(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse_module, "LAST_WORD_S", 0.05)
    app, client = _app(world), _Stuck()
    last = (await world.log.head(STREAM)).version
    answering = asyncio.create_task(app(_scope(), client.receive, client.send))

    async def has_last() -> bool:
        return any(f"{STORY}/{last}".encode() in chunk for chunk in client.taken)

    await eventually(has_last, within_s=10)
    client.reads.clear()
    await _record(world, BURST)
    async with asyncio.timeout(10):
        await asyncio.wait({answering})
    assert not answering.cancelled()
    assert not any(f"{STORY}/{last + 1}".encode() in chunk for chunk in client.taken)


@pytest.mark.rule("EV-24", "AP-103")
async def test_client_that_reads_again_in_time_is_told_and_the_answer_ends_well(world: World):
    app, client = _app(world), _Stuck()
    answering = asyncio.create_task(app(_scope(), client.receive, client.send))

    async def began() -> bool:
        return any(f"{STORY}/1".encode() in chunk for chunk in client.taken)

    await eventually(began, within_s=10)
    client.reads.clear()
    await _record(world, BURST)
    await asyncio.sleep(0.1)
    client.reads.set()
    async with asyncio.timeout(10):
        await answering
    assert client.taken[-1] == b""
    assert client.taken[-2].startswith(b"event: overflow\n")


@pytest.mark.rule("EV-24", "AP-111")
async def test_page_that_does_not_read_is_closed_with_overflow_and_goes_on_without_a_gap(world: World):
    app = _app(world)
    last = (await world.log.head(STREAM)).version
    reads = asyncio.Event()
    reads.set()
    async with page(app) as at:
        at.slow_down(reads)
        at.say({"op": "subscribe", "id": "one", "stories": [STORY], "after": {STORY: last}})
        await at.told("subscribed")
        reads.clear()
        await _record(world, BURST)
        await asyncio.sleep(0.1)
        reads.set()
        seen: list[int] = []
        while (message := await at.message())["type"] == "websocket.send":
            found = json.loads(message["text"])
            if found["op"] == "event":
                seen.append(found["envelope"]["version"])
            elif found["op"] == "error":
                assert found["code"] == "overflow"
    assert (message["type"], message["code"]) == ("websocket.close", socket_module.TOO_SLOW)
    assert len(seen) < BURST
    async with page(app) as at:
        after = seen[-1] if seen else last
        at.say({"op": "subscribe", "id": "one", "stories": [STORY], "after": {STORY: after}})
        while len(seen) < BURST:
            seen.append((await at.told("event"))["envelope"]["version"])
    assert seen == list(range(last + 1, last + 1 + BURST))


@pytest.mark.rule("EV-24")
async def test_page_that_takes_nothing_at_all_is_let_go_in_time(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket_module, "LAST_WORD_S", 0.05)
    last = (await world.log.head(STREAM)).version
    reads = asyncio.Event()
    reads.set()
    async with page(_app(world)) as at:
        at.slow_down(reads)
        at.say({"op": "subscribe", "id": "one", "stories": [STORY], "after": {STORY: last}})
        await at.told("subscribed")
        reads.clear()
        await _record(world, BURST)
        await at.left(within_s=10)
