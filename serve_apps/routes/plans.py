"""Plan versions of a story over HTTP: read them, write one by hand, adopt or reject a proposed one."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from fleet.desk.planning import PlanningDesk
from fleet.kernel.errors import AlreadyClaimed
from fleet.kernel.ids import Principal, StoryId
from fleet.story.commands.command import StoryCommand
from fleet.story.commands.plan_adoption import AdoptPlan, AdoptRequest
from fleet.story.commands.plan_versions import (
    DeriveTasks,
    RejectPlan,
    RejectPlanRequest,
    WritePlan,
    WritePlanRequest,
    find_plan,
    plan_by_hand,
)
from serve_apps.commanding import carried_out, tagged
from serve_apps.requests import Caller, Desk, Key, Story
from serve_apps.sight import sight_of
from serve_apps.wire.plan import (
    DerivationView,
    PlanPage,
    PlanVersionList,
    plan_page,
    plan_version_list,
)

plan_router = APIRouter(prefix="/api")

_PLANS = "/planner/stories/{story_id}/plans"


@plan_router.get(
    _PLANS, response_model=PlanVersionList, operation_id="plan_versions_api_planner_stories__story_id__plans_get"
)
async def plan_versions(request: Request, desk: Desk, who: Caller, story_id: Story) -> Response:
    """Every plan version: proposed, adopted, superseded or rejected."""
    state = await sight_of(request).shown(who, await desk.state(story_id))
    return tagged(plan_version_list(state), state.version)


@plan_router.get(
    _PLANS + "/{plan_id}",
    response_model=PlanPage,
    operation_id="show_plan_api_planner_stories__story_id__plans__plan_id__get",
)
async def show_plan(request: Request, desk: Desk, who: Caller, story_id: Story, plan_id: str) -> Response:
    """One plan version: tasks, dependencies, layers, critical path, and which tasks may start now."""
    return await _page(request, desk, story_id, plan_id, who=who)


@plan_router.post(
    _PLANS,
    status_code=201,
    response_model=PlanPage,
    operation_id="write_plan_api_planner_stories__story_id__plans_post",
)
async def write_plan(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: WritePlanRequest
) -> Response:
    """Propose a plan version by hand, new or edited; tasks that stay keep their ids."""
    # With what was sent alone, so that a problem names what the caller wrote.
    sent = WritePlan.model_validate(body.model_dump(mode="json", exclude_unset=True))
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key)
    return pending or await _page(request, desk, story_id, plan_by_hand(story_id, who, key), who=who, status=201)


@plan_router.post(
    "/planner/stories/{story_id}/derive-tasks",
    status_code=202,
    response_model=DerivationView,
    operation_id="derive_tasks_api_planner_stories__story_id__derive_tasks_post",
)
async def derive_tasks(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story) -> Response:
    """Ask the planner for the tasks of the present text once more; while it is asked, the answer names that plan."""
    plan_id = str(plan_by_hand(story_id, who, key))
    try:
        pending = await carried_out(request, desk, story_id, DeriveTasks(), who=who, key=key)
    except AlreadyClaimed as error:
        pending, plan_id = None, str(error.details["holder"])
    view = DerivationView(
        plan_id=plan_id, status="requested", status_url=f"/api/planner/stories/{story_id}/plans/{plan_id}"
    )
    return pending or tagged(view, (await desk.state(story_id)).version, status=202)


@plan_router.post(
    _PLANS + "/{plan_id}/adopt",
    response_model=PlanPage,
    operation_id="adopt_plan_api_planner_stories__story_id__plans__plan_id__adopt_post",
)
async def adopt_plan(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, plan_id: str, body: AdoptRequest
) -> Response:
    """Follow a proposed version, on an accepted decision; the former one is superseded."""
    sent = AdoptPlan(plan_id=plan_id, decision_id=body.decision_id)
    return await _after(request, desk, story_id, sent, plan_id, who=who, key=key)


@plan_router.post(
    _PLANS + "/{plan_id}/reject",
    response_model=PlanPage,
    operation_id="reject_plan_api_planner_stories__story_id__plans__plan_id__reject_post",
)
async def reject_plan(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, plan_id: str, body: RejectPlanRequest
) -> Response:
    """Do not follow a proposed version."""
    sent = RejectPlan(plan_id=plan_id, reason=body.reason)
    return await _after(request, desk, story_id, sent, plan_id, who=who, key=key)


async def _page(
    request: Request, desk: PlanningDesk, story_id: StoryId, plan_id: str, *, who: Principal, status: int = 200
) -> Response:
    state = await sight_of(request).shown(who, await desk.state(story_id))
    return tagged(plan_page(state, find_plan(state, plan_id)), state.version, status=status)


async def _after(
    request: Request,
    desk: PlanningDesk,
    story_id: StoryId,
    sent: StoryCommand,
    plan_id: str,
    *,
    who: Principal,
    key: str,
) -> Response:
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key)
    return pending or await _page(request, desk, story_id, plan_id, who=who)
