"""One task of a story over HTTP: read it in full, give fields new values, give it back, act in its workflow."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from fleet.desk.planning import PlanningDesk
from fleet.events.codec import decode
from fleet.kernel.errors import InvalidInput, NotFound, PreconditionRequired
from fleet.kernel.ids import Principal, StoryId
from fleet.story.commands.command import StoryCommand
from fleet.story.commands.tasks import ActionRequest, ActOnTask, ClaimTask, ReleaseTask, UpdateTask
from serve_apps.commanding import answered, carried_out, tagged
from serve_apps.requests import Caller, Desk, Key, SelectedRole, Story, TaskId, check_role
from serve_apps.sight import sight_of
from serve_apps.wire.story import ClaimRequest, StoryView
from serve_apps.wire.task import ActionResult, TaskEditRequest, TaskPage, task_page

task_router = APIRouter(prefix="/api")

_TASK = "/planner/stories/{story_id}/tasks/{task_id}"


async def _page(request: Request, desk: PlanningDesk, story_id: StoryId, task_id: str, *, who: Principal) -> TaskPage:
    """The task with its history; both are of one version of the story."""
    state = await desk.state(story_id)
    if task_id not in state.tasks:
        raise NotFound(f"story {story_id} has no task {task_id[:80]!r}", task_id=task_id[:80])
    events = await desk.events(story_id, limit=state.version)
    cut = await sight_of(request).cut(who, state)
    if cut is not None:
        state, events = cut.state(state), [event for event in events if cut.takes(event)]
    return task_page(state, [(event, decode(event)) for event in events], task_id, now_ms=desk.now_ms)


@task_router.get(
    _TASK, response_model=TaskPage, operation_id="show_task_api_planner_stories__story_id__tasks__task_id__get"
)
async def show_task(request: Request, desk: Desk, who: Caller, story_id: Story, task_id: TaskId) -> Response:
    """One task in full: what it asks for, where it stands, how it came there, who has it, what was measured."""
    page = await _page(request, desk, story_id, task_id, who=who)
    return tagged(page, page.version)


@task_router.patch(
    _TASK, response_model=TaskPage, operation_id="edit_task_api_planner_stories__story_id__tasks__task_id__patch"
)
async def edit_task(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    story_id: Story,
    task_id: TaskId,
    body: TaskEditRequest,
    if_match: Annotated[str | None, Header(description='The version that was edited, as `"v12"`.')] = None,
) -> Response:
    """Give fields of a task new values that its plan does not fix."""
    if if_match is None:
        raise PreconditionRequired('send If-Match with the version of the story that you edited, such as "v12"')
    changes = {name: value for name, value in body.model_dump(mode="json").items() if value is not None}
    if not changes:
        raise InvalidInput("the edit changes no field", field="/", problems=[])
    sent = UpdateTask(task_id=task_id, changes=changes)
    return await _after(request, desk, story_id, sent, task_id, who=who, key=key)


@task_router.post(
    _TASK + "/release",
    response_model=TaskPage,
    operation_id="release_task_api_planner_stories__story_id__tasks__task_id__release_post",
)
async def release_task(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, task_id: TaskId
) -> Response:
    """Give a claimed task back; a po gives back anybody's. A review under way waits for a reviewer again."""
    return await _after(request, desk, story_id, ReleaseTask(task_id=task_id), task_id, who=who, key=key)


@task_router.post(
    _TASK + "/actions",
    response_model=ActionResult,
    operation_id="act_on_task_api_planner_stories__story_id__tasks__task_id__actions_post",
)
async def act_on_task(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    selected: SelectedRole,
    story_id: Story,
    task_id: TaskId,
    body: ActionRequest,
) -> Response:
    """Act in the workflow of a task: claim a review, approve or reject it, send work back, discard the task."""
    sent = ActOnTask(task_id=task_id, as_role=selected, **body.model_dump())
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key)
    if pending is not None:
        return pending
    page = await _page(request, desk, story_id, task_id, who=who)
    return tagged(ActionResult(status="accepted", task=page), page.version)


async def _after(
    request: Request, desk: PlanningDesk, story_id: StoryId, sent: StoryCommand, task_id: str, *, who: Any, key: str
) -> Response:
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key)
    if pending is not None:
        return pending
    page = await _page(request, desk, story_id, task_id, who=who)
    return tagged(page, page.version)


@task_router.post(
    "/planner/stories/{story_id}/tasks/{task_id}/claim",
    response_model=StoryView,
    operation_id="claim_task_api_planner_stories__story_id__tasks__task_id__claim_post",
)
async def claim_task(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    selected: SelectedRole,
    story_id: Story,
    task_id: TaskId,
    body: ClaimRequest,
) -> Response:
    """Take a task that is being implemented; operations that write need it."""
    check_role(selected, body.role)
    sent = ClaimTask(task_id=task_id, as_role=body.role)
    return await answered(request, desk, story_id, sent, who=who, key=key)
