"""The fleet as a whole over HTTP: whether it is paused, and who may pause it (AP-95, PL-50)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from fleet.desk.planning import Pending
from fleet.desk.platform import PlatformDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.errors import PolicyDenied, StoreUnavailable
from fleet.kernel.ids import EntityId, Principal
from fleet.planning.platform_state import FleetPause, PlatformState
from fleet.projects.platform_commands import (
    AnyPlatformCommand,
    PauseFleet,
    PauseRequest,
    ResumeFleet,
    ResumeRequest,
)
from fleet.trees.port import DiskKind
from serve_apps.requests import Caller, Key, Tools, require_one_of
from serve_apps.routes.projects import Projects
from serve_apps.sight import require_project, sees_project
from serve_apps.tracing import TRACE_HEADER, trace_id_of
from serve_apps.wire.story import CommandView, Wire
from serve_apps.wire.times import at

fleet_router = APIRouter(prefix="/api")


class PauseView(Wire):
    """Who holds something back since when, and why."""

    project_id: str | None
    by: str
    reason: str
    since: str


class FleetView(Wire):
    """The fleet as a whole."""

    version: int
    """Of the platform's stream."""
    is_paused: bool
    """No step of any story starts; those that ran may have ended since."""
    pause: PauseView | None
    projects: tuple[PauseView, ...]
    """Projects that are paused by themselves, of those that the caller sees."""


class EvictedView(Wire):
    """An environment layer that made room for others."""

    name: str
    size_bytes: int
    at: str


class DiskUseView(Wire):
    """What one kind of things takes on the disk of one node; bytes as the disk counts them."""

    node: str
    kind: DiskKind
    used_bytes: int
    held_bytes: int
    """In use now, or the only copy of what is on record: never evicted."""
    count: int
    limit_bytes: int | None
    """Null: no limit."""
    folder: str
    """Where it lies on that node."""
    evicted: tuple[EvictedView, ...]
    """Layers that made room, the newest last."""


class FleetDiskView(Wire):
    """What the fleet has on the disks of its nodes."""

    items: tuple[DiskUseView, ...]


def _fleet(request: Request, who: Caller) -> PlatformDesk:
    desk: PlatformDesk | None = request.app.state.platform
    if desk is None:
        raise StoreUnavailable("this front has no commands on the fleet wired")
    return desk


Fleet = Annotated[PlatformDesk, Depends(_fleet)]


@fleet_router.get("/fleet", response_model=FleetView, operation_id="show_fleet_api_fleet_get")
async def show_fleet(request: Request, fleet: Fleet, who: Caller) -> FleetView:
    """Whether steps may start, and who said that they may not."""
    return _view(request, who, await fleet.state())


@fleet_router.get("/fleet/disk", response_model=FleetDiskView, operation_id="show_disk_api_fleet_disk_get")
async def show_disk(request: Request, tools: Tools, who: Caller) -> FleetDiskView:
    """What work sessions, toolchains, environment layers and blobs take on each node, where, and what they may take."""
    require_one_of(request, who, "admin")
    disk = (await tools.health()).disk
    return FleetDiskView(items=tuple(DiskUseView.model_validate(asdict(use)) for use in disk))


@fleet_router.post("/fleet/pause", response_model=FleetView, operation_id="pause_fleet_api_fleet_pause_post")
async def pause_fleet(
    request: Request, fleet: Fleet, projects: Projects, who: Caller, key: Key, body: PauseRequest
) -> Any:
    """No step starts from here on, in any story or in those of a project; what runs may end."""
    project = await _scope(request, projects, who, body.project_id)
    return await _done(request, fleet, PauseFleet(reason=body.reason, project_id=project), who, key)


@fleet_router.post("/fleet/resume", response_model=FleetView, operation_id="resume_fleet_api_fleet_resume_post")
async def resume_fleet(
    request: Request, fleet: Fleet, projects: Projects, who: Caller, key: Key, body: ResumeRequest
) -> Any:
    """Stories go on where they stood."""
    project = await _scope(request, projects, who, body.project_id)
    return await _done(request, fleet, ResumeFleet(note=body.note, project_id=project), who, key)


async def _scope(request: Request, projects: Projects, who: Principal, project_id: str | None) -> str | None:
    """The project that is meant, which is there and seen; None for everything, which only who sees all may mean."""
    registry: PrincipalRegistry = request.app.state.registry
    # Said before anything about the project: whether it is there is not for everybody to ask.
    require_one_of(request, who, "admin")
    if project_id is None:
        if registry.projects_of(who) is not None:
            raise PolicyDenied(f"{who} sees chosen projects only: name one of them", rule_id="project_not_held")
        return None
    require_project(request, who, project_id)
    return (await projects.project(EntityId(project_id))).project_id


async def _done(
    request: Request, fleet: PlatformDesk, sent: AnyPlatformCommand, who: Principal, key: str
) -> Response | FleetView:
    answer = await platform_command(request, fleet, sent, who, key)
    return answer if isinstance(answer, Response) else _view(request, who, await fleet.state())


async def platform_command(
    request: Request, fleet: PlatformDesk, sent: AnyPlatformCommand, who: Principal, key: str
) -> dict[str, Any] | Response:
    """The result of a command, or the answer that says where it can be asked for (AP-4)."""
    trace_id = trace_id_of(request.headers.get(TRACE_HEADER))
    answer = await fleet.command(sent, principal=who, key=key, trace_id=trace_id)
    if isinstance(answer, Pending):
        url = f"/api/commands/{answer.command_id}"
        view = CommandView(command_id=answer.command_id, status="pending", status_url=url)
        return JSONResponse(view.model_dump(), status_code=202, headers={"Location": url})
    return answer


def _view(request: Request, who: Principal, state: PlatformState) -> FleetView:
    seen = [(name, one) for name, one in sorted(state.project_pauses.items()) if sees_project(request, who, name)]
    return FleetView(
        version=state.version,
        is_paused=state.pause is not None,
        pause=_pause(None, state.pause) if state.pause else None,
        projects=tuple(_pause(name, one) for name, one in seen),
    )


def _pause(project_id: str | None, pause: FleetPause) -> PauseView:
    return PauseView(project_id=project_id, by=pause.by, reason=pause.reason, since=at(pause.since_ms))
