"""The REST front: stories, their commands and their events, over the same services as the command line."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from fleet.config import ServeSettings
from fleet.errors import (
    FleetError,
    IdempotencyKeyRequired,
    InvalidInput,
    MalformedRequest,
    NotFound,
    OwnershipError,
    ReplyMalformed,
    StoreError,
)
from fleet.ids import CommandId, Principal, StoryId, derive_id
from fleet.services.planning_desk import Pending, PlanningDesk
from fleet.services.principals import PrincipalRegistry
from serve_apps.bounds import RequestBounds, internal_error
from serve_apps.problems import http_problem, problem_response, validation_problem
from serve_apps.stream import event_frames, resume_point
from serve_apps.wire import (
    CommandView,
    DecisionRequest,
    StartRequest,
    StoryList,
    StoryView,
    TransitionRequest,
    story_view,
)

__all__ = ["build_gateway"]

_LOG = logging.getLogger(__name__)


def build_gateway(desk: PlanningDesk, registry: PrincipalRegistry, settings: ServeSettings) -> FastAPI:
    """The application; it keeps no state of its own, so any number of replicas may answer."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI(
        title="SWE Fleet",
        version="1",
        lifespan=lifespan,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.desk, app.state.registry, app.state.settings = desk, registry, settings
    app.add_exception_handler(FleetError, _fleet_problem)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, validation_problem)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, http_problem)  # pyright: ignore[reportArgumentType]
    app.add_middleware(RequestBounds, max_body_bytes=settings.max_body_bytes)
    _routes(app)
    return app


async def _fleet_problem(request: Request, error: FleetError) -> JSONResponse:
    return problem_response(_told(error, request), instance=request.url.path)


def _told(error: FleetError, request: Request) -> FleetError:
    """The error as a caller may see it: of a fault of the owner nothing but that it happened (AP-7)."""
    if error.code not in (FleetError.code, ReplyMalformed.code):
        return error
    _LOG.error("%s %s failed: %s", request.method, request.url.path, error.message)
    return internal_error()


def _caller(request: Request, authorization: Annotated[str | None, Header()] = None) -> Principal:
    registry: PrincipalRegistry = request.app.state.registry
    return registry.authenticate(authorization)


Caller = Annotated[Principal, Depends(_caller)]


async def _json(request: Request, who: Caller) -> Any:
    """The body of a known caller; a key that stands twice reads one way and loads another, so it is refused."""
    raw = await request.body()
    try:
        return json.loads(raw, object_pairs_hook=_once) if raw else None
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name[:80]!r} stands twice")
        found[name] = value
    return found


Json = Annotated[Any, Depends(_json)]


def _key(checked: Json, idempotency_key: Annotated[str | None, Header()] = None) -> str:
    if idempotency_key is None:
        raise IdempotencyKeyRequired("send an Idempotency-Key header of 8 to 128 visible characters")
    if not 8 <= len(idempotency_key) <= 128 or not all("!" <= c <= "~" for c in idempotency_key):
        raise MalformedRequest("Idempotency-Key must have 8 to 128 visible ASCII characters")
    return idempotency_key


Key = Annotated[str, Depends(_key)]


def _story_id(story_id: str) -> StoryId:
    return StoryId(story_id)


Story = Annotated[StoryId, Depends(_story_id)]


def _desk(request: Request) -> PlanningDesk:
    return request.app.state.desk


Desk = Annotated[PlanningDesk, Depends(_desk)]


async def _answer(
    desk: PlanningDesk,
    story_id: StoryId,
    name: str,
    body: dict[str, Any],
    who: Principal,
    key: str,
    *,
    created: bool = False,
) -> Response:
    found = await desk.command(story_id, name, body, principal=who, key=key)
    if isinstance(found, Pending):
        view = CommandView(
            command_id=found.command_id, status="pending", status_url=f"/api/commands/{found.command_id}"
        )
        return JSONResponse(view.model_dump(), status_code=202)
    view_ = await _view(desk, story_id)
    headers = {"ETag": f'"v{view_.version}"', "X-Fleet-As-Of": str(view_.version)}
    return JSONResponse(view_.model_dump(mode="json"), status_code=201 if created else 200, headers=headers)


async def _view(desk: PlanningDesk, story_id: StoryId) -> StoryView:
    state = await desk.state(story_id)
    return story_view(state, desk.waiting_for(state))


def _routes(app: FastAPI) -> None:
    _health_routes(app)
    _story_routes(app)
    _command_routes(app)


def _health_routes(app: FastAPI) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the front itself lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(desk: Desk) -> dict[str, str]:
        """Whether the log answers, so that stories can be read and commands queued."""
        await desk.stories_exist()
        return {"status": "ready"}


def _story_routes(app: FastAPI) -> None:
    @app.get("/api/planner/stories", response_model=StoryList)
    async def list_stories(
        desk: Desk,
        who: Caller,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=80)] = None,
    ) -> StoryList:
        """Stories by id, a page at a time."""
        lines = [line for line in await desk.stories() if cursor is None or line.story_id > cursor]
        following = lines[limit - 1].story_id if len(lines) > limit else None
        return StoryList(items=tuple(lines[:limit]), next_cursor=following)

    @app.post("/api/planner/stories", status_code=201, response_model=StoryView)
    async def create_story(desk: Desk, who: Caller, key: Key, body: Json) -> Response:
        """Create a story; the same Idempotency-Key creates it once."""
        story_id = StoryId(derive_id("st", "platform:main", f"{who}/{key}"))
        return await _answer(desk, story_id, "create_story", {"story": body}, who, key, created=True)

    @app.get("/api/planner/stories/{story_id}", response_model=StoryView)
    async def show_story(desk: Desk, who: Caller, story_id: Story) -> Response:
        """One story as recorded now."""
        view = await _view(desk, story_id)
        headers = {"ETag": f'"v{view.version}"', "X-Fleet-As-Of": str(view.version)}
        return JSONResponse(view.model_dump(mode="json"), headers=headers)

    @app.post("/api/planner/stories/{story_id}/start", response_model=StoryView)
    async def start_story(desk: Desk, who: Caller, key: Key, story_id: Story, body: StartRequest) -> Response:
        """Start the work on a story (the HTTP form of `fleet run`)."""
        return await _answer(desk, story_id, "start_story", body.model_dump(mode="json"), who, key)

    @app.post("/api/planner/stories/{story_id}/transition", response_model=StoryView)
    async def transition(desk: Desk, who: Caller, key: Key, story_id: Story, body: TransitionRequest) -> Response:
        """Fire an event of the story's lifecycle."""
        return await _answer(desk, story_id, "transition", body.model_dump(mode="json"), who, key)

    @app.post("/api/planner/stories/{story_id}/approvals/{gate}/{decision}", response_model=StoryView)
    async def decide(
        desk: Desk, who: Caller, key: Key, story_id: Story, gate: str, decision: str, body: DecisionRequest
    ) -> Response:
        """Grant or reject a pending approval of this story, by gate or approval id."""
        if decision not in ("grant", "reject"):
            raise InvalidInput(f"{decision!r} is no decision", allowed=["grant", "reject"])
        name = "approve" if decision == "grant" else "reject"
        return await _answer(desk, story_id, name, {"gate": gate, **body.model_dump()}, who, key)


def _command_routes(app: FastAPI) -> None:
    @app.get("/api/commands/{command_id:path}", response_model=CommandView)
    async def command(request: Request, desk: Desk, who: Caller, command_id: str) -> CommandView:
        """What came of a queued command."""
        if not command_id.startswith(f"{who}/"):
            raise NotFound(f"{who} sent no command {command_id[:200]!r}")
        url = f"/api/commands/{command_id}"
        try:
            result = await desk.answer(CommandId(command_id))
        except (StoreError, OwnershipError):
            raise
        except FleetError as error:
            problem = _told(error, request).to_wire()
            return CommandView(command_id=command_id, status="refused", status_url=url, problem=problem)
        status = "pending" if result is None else "done"
        return CommandView(command_id=command_id, status=status, status_url=url, result=result)

    @app.get("/api/events/stream")
    async def stream(
        request: Request,
        desk: Desk,
        who: Caller,
        story_id: Annotated[str, Query(alias="storyId")],
        after: Annotated[str | None, Query()] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """The events of a story as they are recorded; `Last-Event-ID` resumes without gap or repeat."""
        story = StoryId(story_id)
        start = resume_point(story, last_event_id or after)
        await desk.events(story, limit=1)
        settings: ServeSettings = request.app.state.settings
        frames = event_frames(desk, story, after=start, heartbeat_s=settings.heartbeat_s)
        return StreamingResponse(frames, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
