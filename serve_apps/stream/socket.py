"""The WebSocket at `/api/ws`: events, live lines and hints for one page (AP-110..AP-112). It carries no commands."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocketDisconnect, WebSocketState

from fleet.desk.planning import PlanningDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.tools.desk import ToolDesk
from fleet.events.codec import decode, published
from fleet.events.council import RoundOpened
from fleet.events.envelope import StoredEvent
from fleet.events.registry import EVENT_TYPES
from fleet.events.task import TreeMerged
from fleet.kernel.errors import (
    FleetError,
    InvalidInput,
    NotFound,
    PolicyDenied,
    RateLimited,
    SandboxUnavailable,
    Unauthenticated,
)
from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.sandbox.port import LogPage
from serve_apps.problems import problem_response, told
from serve_apps.sight import Sight
from serve_apps.stream.backlog import Backlog
from serve_apps.stream.routes import Choice
from serve_apps.wire.tool import line_view

socket_router = APIRouter()

AUTH_S = 5.0
MAX_FRAME = 64 * 1024
MAX_PER_SECOND = 100
MAX_SUBSCRIPTIONS = 20
NO_TOKEN, TOO_SLOW, TOO_LARGE, TOO_MANY = 4401, 4408, 4413, 4429
LAST_WORD_S = 5.0
"""How long a page that is let go has to take what tells it so."""
_PERCENT = {"drafting": 10, "evidence": 40, "repairing": 60, "balloting": 80}

Name = Annotated[str, Field(min_length=1, max_length=200)]


class _Op(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Subscribe(_Op):
    """Send events of stories and projects, and lines of runs; `after` holds versions and line numbers to go on from.

    A run is named by its id, or as `STORY/STEP` for one of a story's own procedures.
    """

    op: Literal["subscribe"]
    id: Annotated[str, Field(min_length=1, max_length=80)]
    stories: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    projects: Annotated[tuple[Name, ...], Field(max_length=10)] = ()
    runs: Annotated[tuple[Name, ...], Field(max_length=10)] = ()
    types: Annotated[tuple[Name, ...], Field(max_length=50)] = ()
    after: Annotated[dict[Name, Annotated[int, Field(ge=0, le=10**12)]], Field(max_length=100)] = {}


class Unsubscribe(_Op):
    """Send no more of a subscription."""

    op: Literal["unsubscribe"]
    id: Annotated[str, Field(min_length=1, max_length=80)]


class Ping(_Op):
    """Ask whether the line lives."""

    op: Literal["ping"]


Ask = Annotated[Subscribe | Unsubscribe | Ping, Field(discriminator="op")]
_ASK: TypeAdapter[Subscribe | Unsubscribe | Ping] = TypeAdapter(Ask)


class Auth(_Op):
    """The first message: the caller's bearer token."""

    op: Literal["auth"]
    token: Annotated[str, Field(min_length=1, max_length=8000)]


@socket_router.websocket("/api/ws")
async def socket(ws: WebSocket) -> None:
    """Events and live lines; the first message is the token, so that it stands in no address."""
    if not _is_our_page(ws):
        await _refuse(ws)
        return
    await ws.accept()
    who = await _authenticated(ws)
    if who is None:
        await ws.close(NO_TOKEN)
        return
    line = _Line(ws, who)
    serving = asyncio.create_task(line.serve())
    too_slow = asyncio.create_task(line.too_slow.wait())
    try:
        await asyncio.wait({serving, too_slow}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    except WebSocketDisconnect:
        pass
    finally:
        serving.cancel()
        too_slow.cancel()
        await asyncio.gather(serving, too_slow, return_exceptions=True)
        await line.end()
    if line.too_slow.is_set():
        await _let_go(ws)


async def _let_go(ws: WebSocket) -> None:
    """The page is told that it was too slow, if it takes that in time; it goes on from the versions that it has."""
    detail = "more events wait than a line holds: subscribe again after the last versions that you have"
    with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
        async with asyncio.timeout(LAST_WORD_S):
            await ws.send_text(json.dumps({"op": "error", "sub": None, "code": "overflow", "detail": detail}))
            await ws.close(TOO_SLOW, reason="overflow")


def _is_our_page(ws: WebSocket) -> bool:
    """Whether no page of another site opened this: a browser says where its page is from (AP-10)."""
    origin = ws.headers.get("origin")
    if origin is None or origin in ws.app.state.settings.origins:
        return True
    return urlsplit(origin).netloc.lower() == ws.headers.get("host", "").lower()


async def _refuse(ws: WebSocket) -> None:
    """The handshake is refused with words, where the server can send them; a program of the caller reads them."""
    error = PolicyDenied(
        f"a page of {(ws.headers.get('origin') or '')[:200]} may not open this line: open the desk at the fleet's own "
        "address, or name that origin in `origins` of config/serve.yaml",
        rule_id="AP-10",
    )
    if "websocket.http.response" in (ws.scope.get("extensions") or {}):
        await ws.send_denial_response(problem_response(error, instance="/api/ws"))
    else:
        await ws.close(1008, reason="this origin is not allowed")


async def _authenticated(ws: WebSocket) -> Principal | None:
    registry: PrincipalRegistry = ws.app.state.registry
    try:
        async with asyncio.timeout(AUTH_S):
            text = await _text(ws)
        who = registry.authenticate(f"Bearer {Auth.model_validate_json(text or '').token}")
        if ws.app.state.rates is not None:
            ws.app.state.rates.count(who)
        return who
    except (TimeoutError, WebSocketDisconnect, ValidationError, Unauthenticated, RateLimited):
        return None


async def _text(ws: WebSocket) -> str | None:
    """The next message as text, None for one that is no text or over the bound."""
    message = await ws.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text: str | None = message.get("text")
    return text if text is not None and len(text.encode()) <= MAX_FRAME else None


@dataclass
class _Line:
    """One open line. What it sends goes out one message after the other, at the pace of the client.

    A page that falls behind what is recorded by more than a subscription holds is let go (AP-103).
    """

    ws: WebSocket
    who: Principal
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, asyncio.Task[None]])
    # Two subscriptions must not write into each other's messages.
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    too_slow: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self) -> None:
        """Answers messages until the client goes, or breaks a bound."""
        loop = asyncio.get_running_loop()
        second, count = loop.time(), 0
        while True:
            text = await _text(self.ws)
            if loop.time() - second >= 1:
                second, count = loop.time(), 0
            count += 1
            if text is None or count > MAX_PER_SECOND:
                await self.ws.close(TOO_LARGE if text is None else TOO_MANY)
                return
            try:
                await self._answer(text)
            except FleetError as error:
                await self._problem(error)

    async def end(self) -> None:
        """No subscription is left."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _answer(self, text: str) -> None:
        try:
            asked = _ASK.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = "/".join(map(str, first["loc"]))
            raise InvalidInput(f"{place}: {first['msg']}", allowed=["subscribe", "unsubscribe", "ping"]) from error
        match asked:
            case Ping():
                await self._send({"op": "pong"})
            case Unsubscribe():
                await self._stop(asked.id)
            case Subscribe():
                await self._begin(asked)

    async def _begin(self, asked: Subscribe) -> None:
        if asked.id not in self._tasks and len(self._tasks) >= MAX_SUBSCRIPTIONS:
            raise RateLimited(f"a line has at most {MAX_SUBSCRIPTIONS} subscriptions", limit=MAX_SUBSCRIPTIONS)
        if unknown := [name for name in asked.types if name not in EVENT_TYPES]:
            raise InvalidInput(f"there is no event type {unknown[0][:60]!r}", field="types")
        if not (asked.stories or asked.projects or asked.runs):
            raise InvalidInput("name stories, projects or runs", field="stories")
        stories = [await self._sight.require(self.who, StoryId(name)) for name in asked.stories]
        for story_id in stories:
            await self._desk.events(story_id, limit=1)
        for project_id in asked.projects:
            if not self._sight.sees(self.who, project_id):
                raise NotFound(f"there is no project {project_id!r}", project_id=project_id)
        parts: list[Callable[[], Coroutine[Any, Any, None]]] = []
        if stories or asked.projects:
            choice = Choice(self._sight, self.who, frozenset(stories), frozenset(asked.projects))
            parts.append(lambda: self._events(asked, choice))
        parts += [lambda run=run: self._lines(asked, run) for run in asked.runs]
        await self._stop(asked.id)
        self._tasks[asked.id] = asyncio.create_task(self._all(asked.id, parts), name=f"subscription {asked.id[:20]}")
        await self._send({"op": "subscribed", "id": asked.id})

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _all(self, name: str, parts: list[Callable[[], Coroutine[Any, Any, None]]]) -> None:
        await asyncio.gather(*(self._told(name, part()) for part in parts))

    async def _told(self, name: str, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except FleetError as error:
            await self._problem(error, sub=name)
        except (WebSocketDisconnect, RuntimeError):
            return  # the client is gone, and `serve` ends

    async def _events(self, asked: Subscribe, choice: Choice) -> None:
        after = await self._desk.heads(choice.takes)
        for name, version in asked.after.items():
            if (story_id := StoryId(name.removeprefix("story:"))) in after:
                after[story_id] = version
        most = self.ws.app.state.settings.stream_queue
        backlog = Backlog(most, since_ms=self._desk.now_ms, overflowed=self.too_slow)
        async for event in backlog.through(self._desk.watch_many(choice.takes, after=after, idle_s=15)):
            if event is None or (asked.types and event.type not in asked.types):
                continue
            if not await choice.takes(story_id := StoryId(event.stream.entity)):
                if not await choice.is_withdrawn(story_id):
                    continue
                raise NotFound(f"there is no story {event.stream.entity}")
            if not await choice.shows(event):
                continue
            await self._send({"op": "event", "sub": asked.id, "envelope": published(event)})
            for hint in hints_of(event):
                await self._send({"sub": asked.id, **hint})

    async def _lines(self, asked: Subscribe, run: str) -> None:
        number = asked.after.get(run, 0)
        async for page in self._pages(run, number):
            for line in page.lines:
                await self._send({"op": "log", "sub": asked.id, "run_id": run, **line_view(line).model_dump()})
        await self._send({"op": "log_end", "sub": asked.id, "run_id": run})

    async def _pages(self, run: str, after: int) -> AsyncIterator[LogPage]:
        """Pages of lines until the run is over."""
        tools: ToolDesk | None = self.ws.app.state.tools
        if tools is None:
            raise SandboxUnavailable("this front has no tools wired", missing="tools")
        story, _, step = run.partition("/")
        named = StoryId(story) if step else await tools.story_of(EntityId(run), principal=None)
        await self._sight.require(self.who, named)
        step_id = await self._sight.require_step(self.who, named, step or f"run/{run}")
        is_over = False
        while not is_over:
            page = await tools.step_logs(named, step_id, after=after, wait_s=10)
            after, is_over = (page.lines[-1].n if page.lines else after), page.is_over
            yield page

    async def _problem(self, error: FleetError, *, sub: str | None = None) -> None:
        shown = told(error, "WS /api/ws").to_wire()
        await self._send({"op": "error", "sub": sub, "code": shown["code"], "detail": shown["message"]})

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._sending:
            if self.ws.application_state is WebSocketState.CONNECTED:
                await self.ws.send_text(json.dumps(message, ensure_ascii=False, separators=(",", ":")))

    @property
    def _desk(self) -> PlanningDesk:
        return self.ws.app.state.desk

    @property
    def _sight(self) -> Sight:
        return self.ws.app.state.sight


def hints_of(event: StoredEvent) -> list[dict[str, Any]]:
    """What a page shows at once of an event; what counts is in the log and in blobs (AP-111)."""
    payload = decode(event)
    match payload:
        case RoundOpened():
            percent = _PERCENT[payload.phase]
            return [{"op": "progress", "council_id": payload.council_id, "phase": payload.phase, "percent": percent}]
        case TreeMerged():
            story_id, old, new = event.stream.entity, payload.base_digest, payload.result_digest
            ref = f"/api/planner/stories/{story_id}/diff?from={old}&to={new}"
            return [{"op": "diff", "task_id": payload.task_id, "tree": new, "patch_ref": ref}]
        case _:
            return []
