"""What runs where this fleet deploys, and its end by hand, over HTTP (LC-49)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from fleet.desk.deployments import DeploymentDesk, Environment
from fleet.desk.planning import Pending
from fleet.kernel.errors import NotFound, SandboxUnavailable
from fleet.kernel.ids import Principal
from fleet.kernel.types import ReasonRequest
from fleet.story.commands.interventions import Action
from serve_apps.requests import Caller, Key, require_one_of
from serve_apps.sight import sees_project, sight_of
from serve_apps.tracing import TRACE_HEADER, trace_id_of
from serve_apps.wire.story import CommandView, Wire
from serve_apps.wire.times import at

environment_router = APIRouter(prefix="/api")

_MAY = frozenset({"devops", "admin"})


class EndRequest(ReasonRequest):
    """End what runs in an environment: exactly what is named, and nothing that came after it."""

    revision: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9]+$")]
    """Of what runs there, as the list of environments has it."""


class EnvironmentView(Wire):
    """One environment, and what runs there now."""

    environment: str
    kind: str
    is_running: bool
    answers: bool
    """Whether it answered the path of its target's `ready` just now."""
    since: str | None
    """When it became ready."""
    revision: str | None
    """Under which the environment knows what runs; a request to end it names it."""
    previous: str | None
    """The revision that a rollback goes back to."""
    story_id: str | None
    """Whose program runs there; null when nothing runs, and to those who do not see the story."""
    deployment_id: str | None
    tree: str | None
    is_healthy: bool | None
    """Whether every window was healthy for as long as the story has to watch it; null until one was observed."""
    port: int | None
    """Of the loopback of the fleet's node, where people reach it."""
    ended: str | None
    """What a person ended there last: who, what and why."""


class EnvironmentList(Wire):
    """Every environment that is declared, in the order of `fleet.yaml`."""

    items: tuple[EnvironmentView, ...]


def _desk(request: Request, who: Caller) -> DeploymentDesk:
    require_one_of(request, who, "admin", "devops")
    desk: DeploymentDesk | None = request.app.state.deployments
    if desk is None:
        raise SandboxUnavailable("this front has no environments wired", missing="deployments")
    return desk


Environments = Annotated[DeploymentDesk, Depends(_desk)]


@environment_router.get(
    "/deployments", response_model=EnvironmentList, operation_id="list_environments_api_deployments_get"
)
async def list_environments(request: Request, desk: Environments, who: Caller) -> EnvironmentList:
    """What runs in each environment, since when, of which story, and whether it answers; for devops and admins."""
    environments = await desk.environments()
    return EnvironmentList(items=tuple(_view(request, who, one) for one in environments if _is_seen(request, who, one)))


@environment_router.post(
    "/deployments/{environment}/stop",
    response_model=EnvironmentView,
    operation_id="stop_environment_api_deployments__environment__stop_post",
)
async def stop_environment(
    request: Request, desk: Environments, who: Caller, key: Key, environment: str, body: EndRequest
) -> Any:
    """End what runs there; it does not come back. A story that is watching it waits for a person."""
    return await _ended(request, desk, environment, "stop", body, who, key)


@environment_router.post(
    "/deployments/{environment}/rollback",
    response_model=EnvironmentView,
    operation_id="roll_back_environment_api_deployments__environment__rollback_post",
)
async def roll_back_environment(
    request: Request, desk: Environments, who: Caller, key: Key, environment: str, body: EndRequest
) -> Any:
    """Let what ran there before run again. A story that is watching what runs now waits for a person."""
    return await _ended(request, desk, environment, "rollback", body, who, key)


async def _ended(
    request: Request, desk: DeploymentDesk, name: str, action: Action, body: EndRequest, who: Principal, key: str
) -> Response | EnvironmentView:
    if not sees_project(request, who, await desk.project_of(name, body.revision)):
        raise NotFound(f"no story deployed {body.revision!r} to {name}", revision=body.revision)
    trace_id = trace_id_of(request.headers.get(TRACE_HEADER))
    answer = await desk.end(
        name, action, revision=body.revision, reason=body.reason, principal=who, key=key, trace_id=trace_id
    )
    if isinstance(answer, Pending):
        url = f"/api/commands/{answer.command_id}"
        view = CommandView(command_id=answer.command_id, status="pending", status_url=url)
        return JSONResponse(view.model_dump(), status_code=202, headers={"Location": url})
    return _view(request, who, await desk.environment(name))


def _is_seen(request: Request, who: Principal, one: Environment) -> bool:
    """Whether what runs there is of a project that the caller sees; of an empty one, whether its target is for such."""
    if one.story is not None:
        return sees_project(request, who, one.story.project_id)
    projects = one.target.projects
    return not projects or any(sees_project(request, who, project) for project in projects)


def _view(request: Request, who: Principal, one: Environment) -> EnvironmentView:
    running, deployment = one.occupancy.running, one.deployment
    is_row = one.story is not None and sight_of(request).sees_story(who, one.story)
    return EnvironmentView(
        environment=one.target.environment,
        kind=one.target.kind,
        is_running=running is not None,
        answers=one.occupancy.answers,
        since=at(one.occupancy.since_ms) if running and one.occupancy.since_ms else None,
        revision=running.key if running else None,
        previous=one.occupancy.previous,
        story_id=running.story if running and is_row else None,
        deployment_id=deployment.deployment_id if deployment and is_row else None,
        tree=running.tree if running else None,
        is_healthy=deployment.is_healthy if deployment and deployment.windows else None,
        port=running.target.expose if running else None,
        ended=one.occupancy.ended.told if one.occupancy.ended else None,
    )
