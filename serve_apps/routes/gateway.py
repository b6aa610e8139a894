"""The REST front: stories, their commands and their events, over the same services as the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from fleet.config.settings import ServeSettings
from fleet.context.row_rules import RowRules
from fleet.desk.budgets import BudgetDesk
from fleet.desk.planning import PlanningDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.tools.desk import ToolDesk
from fleet.events.codec import published
from fleet.events.registry import EVENT_TYPES
from fleet.kernel.errors import FleetError, InvalidInput, NotFound, OwnershipError, StoreError
from fleet.kernel.ids import CommandId, StoryId
from serve_apps.bounds import RequestBounds
from serve_apps.commanding import shown, view_of
from serve_apps.parts import FrontParts
from serve_apps.problems import http_problem, problem_response, told, validation_problem
from serve_apps.rates import PrincipalRates
from serve_apps.requests import Caller, Desk, Story
from serve_apps.routes.agents import agent_router
from serve_apps.routes.audit import audit_router
from serve_apps.routes.board import BoardFilter, board_filter
from serve_apps.routes.budgets import budget_router
from serve_apps.routes.ceremonies import ceremony_router
from serve_apps.routes.coach import coach_router
from serve_apps.routes.context import rehydration_router
from serve_apps.routes.context_stats import context_router
from serve_apps.routes.councils import council_router
from serve_apps.routes.decisions import decision_router
from serve_apps.routes.delegations import delegation_router
from serve_apps.routes.environments import environment_router
from serve_apps.routes.fleet_state import fleet_router
from serve_apps.routes.gates import gates_router
from serve_apps.routes.in_force import in_force_router
from serve_apps.routes.insight import insight_router
from serve_apps.routes.interventions import intervention_router
from serve_apps.routes.losses import loss_router
from serve_apps.routes.mcp import MCP_PATH, McpFront
from serve_apps.routes.metrics import metrics_router
from serve_apps.routes.operations import operations_router
from serve_apps.routes.planner import planner_router
from serve_apps.routes.plans import plan_router
from serve_apps.routes.projects import project_router
from serve_apps.routes.tasks import task_router
from serve_apps.routes.tool_gateway import tool_router
from serve_apps.routes.workspace_reports import workspace_router
from serve_apps.sight import Sight, require_project, require_sight, sight_of
from serve_apps.site import read_site, site_routes
from serve_apps.stream.backlog import Backlog
from serve_apps.stream.routes import Choice, event_frames, many_frames, resume_point, start_of
from serve_apps.stream.socket import socket_router
from serve_apps.stream.sse import event_stream
from serve_apps.wire.story import (
    CommandView,
    EventList,
    StoryList,
    StoryView,
    damaged_views,
)


def build_gateway(
    desk: PlanningDesk,
    registry: PrincipalRegistry,
    settings: ServeSettings,
    *,
    tools: ToolDesk | None = None,
    budgets: BudgetDesk | None = None,
    parts: FrontParts | None = None,
) -> FastAPI:
    """The application; it keeps no state of its own, so any number of replicas may answer.

    Args:
        tools: None answers everything about tools and runs with `sandbox_unavailable`.
        budgets: None answers everything about budgets with `store_unavailable`.
        parts: what else people read; what is missing of it is answered with `store_unavailable`.
    """

    given = parts or FrontParts()
    roles = given.config.roles.roles if given.config is not None else {}
    rows = RowRules(lambda state: desk.fsm_of(state), roles, lambda who: registry.epics_of(who))
    sight = Sight(registry, desk, rows, given.platform, override_s=settings.incident_override_s)
    mcp = McpFront(desk, registry, tools, sight=sight, stories=given.stories)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with mcp.run():
                yield
        finally:
            if given.close is not None:
                await given.close()

    app = FastAPI(
        title="SWE Fleet",
        version="1",
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        # A redirect to the same path without its slash would go to whatever host the request names.
        redirect_slashes=False,
    )
    app.state.desk, app.state.registry, app.state.settings, app.state.tools = desk, registry, settings, tools
    app.state.budgets, app.state.sight = budgets, sight
    app.state.stories, app.state.gates, app.state.coach = given.stories, given.gates, given.coach
    app.state.letters, app.state.projects = given.letters, given.projects
    app.state.statistics, app.state.decisions = given.statistics, given.decisions
    app.state.rehydrator, app.state.deployments = given.rehydrator, given.deployments
    app.state.statistics, app.state.config, app.state.platform = given.statistics, given.config, given.platform
    app.state.figures, app.state.consumers = given.figures, given.consumers
    app.state.audit, app.state.rates = given.audit, PrincipalRates(settings.rate, given.clock) if given.clock else None
    app.add_exception_handler(FleetError, _fleet_problem)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(RequestValidationError, validation_problem)  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(HTTPException, http_problem)  # pyright: ignore[reportArgumentType]
    app.add_middleware(RequestBounds, max_body_bytes=settings.max_body_bytes)
    for router in _ROUTERS:
        # `include_router` would build each route again for every application, which takes longer than all else here.
        app.router.routes.extend(router.routes)
    app.router.routes.append(Route(MCP_PATH, mcp, methods=["POST"], include_in_schema=False))
    app.router.routes.extend(site_routes(read_site()))
    return app


async def _fleet_problem(request: Request, error: FleetError) -> JSONResponse:
    shown = told(error, f"{request.method} {request.url.path}")
    return problem_response(shown, instance=request.url.path)


def _own_routes() -> APIRouter:
    router = APIRouter()
    _health_routes(router)
    _story_routes(router)
    _command_routes(router)
    return router


def _health_routes(router: APIRouter) -> None:
    @router.get("/healthz", operation_id="healthz_healthz_get")
    async def healthz() -> dict[str, str]:
        """Whether the front itself lives."""
        return {"status": "ok"}

    @router.get("/api/openapi.json", include_in_schema=False)
    async def openapi(request: Request, who: Caller) -> JSONResponse:
        """The description of the interface."""
        return JSONResponse(request.app.openapi())

    @router.get("/readyz", operation_id="readyz_readyz_get")
    async def readyz(desk: Desk) -> dict[str, str]:
        """Whether the log answers, so that stories can be read and commands queued."""
        await desk.stories_exist()
        return {"status": "ready"}


def _story_routes(router: APIRouter) -> None:
    @router.get("/api/planner/stories", response_model=StoryList, operation_id="list_stories_api_planner_stories_get")
    async def list_stories(
        request: Request,
        desk: Desk,
        who: Caller,
        choice: Annotated[BoardFilter, Depends(board_filter)],
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=80)] = None,
    ) -> StoryList:
        """Stories by id, a page at a time; filters are all to be met."""
        sight = sight_of(request)
        survey = await desk.survey()
        states = [state for state in survey.states if sight.sees_story(who, state)]
        seen = [desk.line(sight.outlined(who, state)) for state in states]
        lines = [line for line in seen if choice.takes(line) and (cursor is None or line.story_id > cursor)]
        following = lines[limit - 1].story_id if len(lines) > limit else None
        damaged = damaged_views(survey) if sight.sees_everything(who) else ()
        return StoryList(items=tuple(lines[:limit]), next_cursor=following, damaged=damaged)

    @router.get(
        "/api/planner/stories/{story_id}",
        response_model=StoryView,
        operation_id="show_story_api_planner_stories__story_id__get",
    )
    async def show_story(request: Request, desk: Desk, who: Caller, story_id: Story) -> Response:
        """One story as recorded now; `If-None-Match` with its version gives 304."""
        view = await view_of(request, desk, story_id, who=who)
        if request.headers.get("if-none-match") == f'"v{view.version}"':
            return Response(status_code=304, headers={"ETag": f'"v{view.version}"'})
        return shown(view)


def _command_routes(router: APIRouter) -> None:
    @router.get(
        "/api/commands/{command_id:path}",
        response_model=CommandView,
        operation_id="command_api_commands__command_id__get",
    )
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
            problem = told(error, f"{request.method} {request.url.path}").to_wire()
            return CommandView(command_id=command_id, status="refused", status_url=url, problem=problem)
        status = "pending" if result is None else "done"
        return CommandView(command_id=command_id, status=status, status_url=url, result=result)

    @router.get("/api/events/stream", operation_id="stream_api_events_stream_get")
    async def stream(
        request: Request,
        desk: Desk,
        who: Caller,
        story_id: Annotated[list[str] | None, Query(alias="storyId", max_length=50)] = None,
        project_id: Annotated[list[str] | None, Query(alias="projectId", max_length=50)] = None,
        types: Annotated[list[str] | None, Query(max_length=50)] = None,
        after: Annotated[str | None, Query(max_length=16_000)] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """The events of stories as they are recorded; `Last-Event-ID` resumes without gap or repeat.

        One story begins at its first event, several and projects at the present; `after=0` begins at the first.
        """
        settings: ServeSettings = request.app.state.settings
        event_types, heartbeat_s = _event_types(types), settings.heartbeat_s
        named = [await require_sight(request, who, StoryId(one)) for one in dict.fromkeys(story_id or ())]
        for one in named:
            await desk.events(one, limit=1)
        choice = Choice(sight_of(request), who, stories=frozenset(named), projects=frozenset(project_id or ()))
        backlog = Backlog(settings.stream_queue, since_ms=desk.now_ms)
        if len(named) == 1 and not project_id:
            start = resume_point(named[0], last_event_id or after)
            frames = event_frames(
                desk, named[0], after=start, heartbeat_s=heartbeat_s, types=event_types, choice=choice, backlog=backlog
            )
            return event_stream(frames, let_go=backlog.overflowed)
        if not named and not project_id:
            raise InvalidInput("name what to watch: storyId or projectId", field="storyId")
        for project in project_id or ():
            require_project(request, who, project)
        reached = await start_of(desk, choice, last_event_id or after)
        several = many_frames(desk, choice, after=reached, heartbeat_s=heartbeat_s, types=event_types, backlog=backlog)
        return event_stream(several, let_go=backlog.overflowed)

    @router.get("/api/events", response_model=EventList, operation_id="history_api_events_get")
    async def history(
        request: Request,
        desk: Desk,
        who: Caller,
        stream: Annotated[str, Query(max_length=100)],
        after: Annotated[int, Query(ge=0, le=10**9)] = 0,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> EventList:
        """The events of a story behind a version; `stream` is its id."""
        story = await require_sight(request, who, StoryId(stream.removeprefix("story:")))
        events = await desk.events(story, after=after, limit=limit)
        seen = await sight_of(request).events(who, await desk.state(story), events)
        items = tuple(published(event) for event in seen)
        return EventList(items=items, next_after=events[-1].version if len(events) == limit else None)


def _event_types(names: list[str] | None) -> frozenset[str]:
    unknown = [name for name in names or () if name not in EVENT_TYPES]
    if unknown:
        raise InvalidInput(f"there is no event type {unknown[0][:60]!r}", field="types", value=unknown[0][:60])
    return frozenset(names or ())


_ROUTERS = (
    _own_routes(),
    tool_router,
    budget_router,
    intervention_router,
    plan_router,
    task_router,
    gates_router,
    coach_router,
    # Before the router whose routes take any word for the id of a story.
    context_router,
    rehydration_router,
    planner_router,
    decision_router,
    council_router,
    agent_router,
    project_router,
    ceremony_router,
    audit_router,
    operations_router,
    fleet_router,
    loss_router,
    environment_router,
    delegation_router,
    in_force_router,
    metrics_router,
    workspace_router,
    insight_router,
    socket_router,
)
