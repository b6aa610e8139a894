"""Projects, epics and discoveries over HTTP (AP-50, AP-51, PL-54). What a caller may not see is not there."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from fleet.desk.planning import Pending
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.projects import EpicLine, ProjectDesk, new_project_id
from fleet.kernel.errors import NotFound, PolicyDenied, StoreUnavailable
from fleet.kernel.ids import EntityId, Principal
from fleet.planning.discovery import requirements_text
from fleet.planning.project_text import EpicChanges, EpicText, ProjectChanges, ProjectText
from fleet.projects.project_commands import (
    AcceptDiscovery,
    AnswerDiscovery,
    AnswersRequest,
    CreateEpic,
    CreateProject,
    Discover,
    DiscoverRequest,
    DiscoveryCommand,
    ProjectCommand,
    ProposalAcceptRequest,
    RejectDiscovery,
    UpdateEpic,
    UpdateProject,
)
from serve_apps.commanding import check_version
from serve_apps.requests import Caller, Key
from serve_apps.sight import sees_project, sight_of
from serve_apps.tracing import TRACE_HEADER, trace_id_of
from serve_apps.wire.project import (
    DiscoveryList,
    DiscoveryView,
    EpicList,
    EpicPatch,
    EpicView,
    ProjectList,
    ProjectView,
    ProposalRejectRequest,
    discovery_view,
    epic_view,
    project_view,
)
from serve_apps.wire.story import CommandView, Wire

project_router = APIRouter(prefix="/api")


def _projects(request: Request, who: Caller) -> ProjectDesk:
    desk: ProjectDesk | None = request.app.state.projects
    if desk is None:
        raise StoreUnavailable("this front has no projects wired")
    return desk


def _project_id(request: Request, who: Caller, project_id: str) -> EntityId:
    project = EntityId(project_id)
    if not project.startswith("pr-") or not sees_project(request, who, project):
        raise NotFound(f"there is no project {project}", project_id=project)
    return project


async def project_of_query(
    request: Request, who: Caller, project_id: Annotated[str | None, Query(max_length=80)] = None
) -> EntityId | None:
    """The project that a query is about, which is there and seen; None when it names none."""
    return None if project_id is None else await known_project(request, who, project_id)


async def known_project(request: Request, who: Principal, project_id: str) -> EntityId:
    """The project of this name, which is there and seen; NotFound otherwise."""
    project = _project_id(request, who, project_id)
    return EntityId((await _projects(request, who).project(project)).project_id)


Projects = Annotated[ProjectDesk, Depends(_projects)]
Project = Annotated[EntityId, Depends(_project_id)]


async def _epic(request: Request, who: Caller, desk: Projects, epic_id: str) -> EpicLine:
    line = await desk.epic(epic_id)
    sight = sight_of(request)
    if not sight.sees_epic(who, line.project_id, line.epic.epic_id):
        await sight.refused(who, "read_epic", line.epic.epic_id)
        raise NotFound(f"there is no epic {line.epic.epic_id}", epic_id=line.epic.epic_id)
    return line


Epic = Annotated[EpicLine, Depends(_epic)]


async def project_command(
    request: Request, desk: ProjectDesk, project: EntityId, sent: ProjectCommand, who: Principal, key: str
) -> dict[str, Any] | JSONResponse:
    """The result of a command, or the answer that says where it can be asked for (AP-4)."""
    trace_id = trace_id_of(request.headers.get(TRACE_HEADER))
    answer = await desk.command(project, sent, principal=who, key=key, trace_id=trace_id)
    if isinstance(answer, Pending):
        url = f"/api/commands/{answer.command_id}"
        view = CommandView(command_id=answer.command_id, status="pending", status_url=url)
        return JSONResponse(view.model_dump(), status_code=202, headers={"Location": url})
    return answer


def versioned(view: Wire, version: int, *, status: int = 200) -> Response:
    """The answer that holds the view, with the version of its project as entity tag (AP-3)."""
    headers = {"ETag": f'"v{version}"', "X-Fleet-As-Of": str(version)}
    return JSONResponse(view.model_dump(mode="json"), status_code=status, headers=headers)


async def _project_after(desk: ProjectDesk, project: EntityId, *, status: int = 200) -> Response:
    state = await desk.project(project)
    return versioned(project_view(state), state.version, status=status)


@project_router.get("/projects", response_model=ProjectList, operation_id="projects_api_projects_get")
async def list_projects(
    request: Request,
    desk: Projects,
    who: Caller,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Annotated[str | None, Query(max_length=80)] = None,
) -> ProjectList:
    """The projects that the caller sees, by id, a page at a time."""
    seen = [s for s in await desk.projects() if sees_project(request, who, s.project_id)]
    rest = [s for s in seen if cursor is None or s.project_id > cursor]
    following = rest[limit - 1].project_id if len(rest) > limit else None
    return ProjectList(items=tuple(project_view(s) for s in rest[:limit]), next_cursor=following)


@project_router.post(
    "/projects", status_code=201, response_model=ProjectView, operation_id="create_project_api_projects_post"
)
async def create_project(request: Request, desk: Projects, who: Caller, key: Key, body: ProjectText) -> Any:
    """Create a project with its built-in epic; the same Idempotency-Key creates it once."""
    registry: PrincipalRegistry = request.app.state.registry
    if registry.projects_of(who) is not None:
        raise PolicyDenied(
            f"{who} sees chosen projects only, and a new one is none of them", rule_id="project_not_held"
        )
    project = new_project_id(who, key)
    answer = await project_command(request, desk, project, CreateProject(project=body), who, key)
    return answer if isinstance(answer, Response) else await _project_after(desk, project, status=201)


@project_router.get(
    "/projects/{project_id}", response_model=ProjectView, operation_id="show_project_api_projects__project_id__get"
)
async def show_project(desk: Projects, who: Caller, project_id: Project) -> Any:
    """One project as recorded now."""
    return await _project_after(desk, project_id)


@project_router.patch(
    "/projects/{project_id}", response_model=ProjectView, operation_id="update_project_api_projects__project_id__patch"
)
async def update_project(
    request: Request, desk: Projects, who: Caller, key: Key, project_id: Project, body: ProjectChanges
) -> Any:
    """Give fields of a project new values; `If-Match` names the version that was read."""
    check_version(request.headers.get("if-match"), (await desk.project(project_id)).version)
    answer = await project_command(request, desk, project_id, UpdateProject(changes=body), who, key)
    return answer if isinstance(answer, Response) else await _project_after(desk, project_id)


@project_router.get(
    "/projects/{project_id}/epics",
    response_model=EpicList,
    operation_id="list_epics_api_projects__project_id__epics_get",
)
async def list_epics(request: Request, desk: Projects, who: Caller, project_id: Project) -> EpicList:
    """The epics of a project with the status that follows from their stories."""
    sight = sight_of(request)
    lines = [line for line in await desk.epics(project_id) if sight.sees_epic(who, project_id, line.epic.epic_id)]
    return EpicList(items=tuple(map(epic_view, lines)))


@project_router.post(
    "/projects/{project_id}/epics",
    status_code=201,
    response_model=EpicView,
    operation_id="create_epic_api_projects__project_id__epics_post",
)
async def create_epic(
    request: Request, desk: Projects, who: Caller, key: Key, project_id: Project, body: EpicText
) -> Any:
    """Create an epic; the same Idempotency-Key creates it once."""
    answer = await project_command(request, desk, project_id, CreateEpic(epic=body), who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(epic_view(await desk.epic(answer["epic_id"])), answer["version"], status=201)


@project_router.get("/epics/{epic_id}", response_model=EpicView, operation_id="show_epic_api_epics__epic_id__get")
async def show_epic(who: Caller, epic: Epic) -> EpicView:
    """One epic with its stories."""
    return epic_view(epic)


@project_router.patch("/epics/{epic_id}", response_model=EpicView, operation_id="update_epic_api_epics__epic_id__patch")
async def update_epic(request: Request, desk: Projects, who: Caller, key: Key, epic: Epic, body: EpicPatch) -> Any:
    """Give fields of an epic new values. Cancelling it cancels its open stories, with the same reason."""
    changes = EpicChanges(**body.model_dump(exclude_unset=True, exclude={"reason"}))
    sent = UpdateEpic(epic_id=epic.epic.epic_id, changes=changes, reason=body.reason)
    answer = await project_command(request, desk, epic.project_id, sent, who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(epic_view(await desk.epic(epic.epic.epic_id)), answer["version"])


# Discovery.


async def _view(desk: ProjectDesk, project: EntityId, discovery_id: str) -> DiscoveryView:
    return discovery_view(project, *await desk.discovery(project, discovery_id))


_ONE = "/projects/{project_id}/discoveries/{discovery_id}"


@project_router.get(
    "/projects/{project_id}/discoveries",
    response_model=DiscoveryList,
    operation_id="list_discoveries_api_projects__project_id__discoveries_get",
)
async def list_discoveries(desk: Projects, who: Caller, project_id: Project) -> DiscoveryList:
    """The goals of a project and what was proposed for each."""
    names = (await desk.project(project_id)).discoveries
    return DiscoveryList(items=tuple([await _view(desk, project_id, name) for name in names]))


@project_router.post(
    "/projects/{project_id}/discoveries",
    status_code=201,
    response_model=DiscoveryView,
    operation_id="discover_api_projects__project_id__discoveries_post",
)
async def discover(
    request: Request, desk: Projects, who: Caller, key: Key, project_id: Project, body: DiscoverRequest
) -> Any:
    """Have a one-line goal turned into requirements, questions, an epic and stories, all of them proposed."""
    sent = Discover(**body.model_dump(exclude_unset=True))
    answer = await project_command(request, desk, project_id, sent, who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(await _view(desk, project_id, answer["discovery_id"]), answer["version"], status=201)


@project_router.get(
    _ONE,
    response_model=DiscoveryView,
    operation_id="show_discovery_api_projects__project_id__discoveries__discovery_id__get",
)
async def show_discovery(desk: Projects, who: Caller, project_id: Project, discovery_id: str) -> DiscoveryView:
    """One proposal as it is now."""
    return await _view(desk, project_id, EntityId(discovery_id))


@project_router.get(
    _ONE + "/requirements.md",
    response_class=Response,
    operation_id="discovery_requirements_api_projects__project_id__discoveries__discovery_id__requirements_md_get",
)
async def discovery_requirements(desk: Projects, who: Caller, project_id: Project, discovery_id: str) -> Response:
    """The proposal as a document for people: requirements, stories, questions and their answers."""
    _, proposal = await desk.discovery(project_id, EntityId(discovery_id))
    return Response(requirements_text(proposal), media_type="text/markdown; charset=utf-8")


@project_router.post(
    _ONE + "/answers",
    response_model=DiscoveryView,
    operation_id="answer_discovery_api_projects__project_id__discoveries__discovery_id__answers_post",
)
async def answer_discovery(
    request: Request,
    desk: Projects,
    who: Caller,
    key: Key,
    project_id: Project,
    discovery_id: str,
    body: AnswersRequest,
) -> Any:
    """Answer questions of a proposal: the answers stand in its stories from then on."""
    sent = AnswerDiscovery(discovery_id=EntityId(discovery_id), answers=body.answers)
    return await _decided(request, desk, who, key, project_id, sent)


@project_router.post(
    _ONE + "/accept",
    response_model=DiscoveryView,
    operation_id="accept_discovery_api_projects__project_id__discoveries__discovery_id__accept_post",
)
async def accept_discovery(
    request: Request,
    desk: Projects,
    who: Caller,
    key: Key,
    project_id: Project,
    discovery_id: str,
    body: ProposalAcceptRequest,
) -> Any:
    """Take a proposal: its epic stands, and its stories are created."""
    sent = AcceptDiscovery(discovery_id=EntityId(discovery_id), note=body.note)
    return await _decided(request, desk, who, key, project_id, sent)


@project_router.post(
    _ONE + "/reject",
    response_model=DiscoveryView,
    operation_id="reject_discovery_api_projects__project_id__discoveries__discovery_id__reject_post",
)
async def reject_discovery(
    request: Request,
    desk: Projects,
    who: Caller,
    key: Key,
    project_id: Project,
    discovery_id: str,
    body: ProposalRejectRequest,
) -> Any:
    """Leave a proposal, with a reason; nothing is created."""
    sent = RejectDiscovery(discovery_id=EntityId(discovery_id), reason=body.reason)
    return await _decided(request, desk, who, key, project_id, sent)


async def _decided(
    request: Request, desk: ProjectDesk, who: Principal, key: str, project: EntityId, sent: DiscoveryCommand
) -> Any:
    answer = await project_command(request, desk, project, sent, who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(await _view(desk, project, sent.discovery_id), answer["version"])
