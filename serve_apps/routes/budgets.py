"""Budgets and usage over HTTP (AP-87)."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from fleet.desk.budgets import BudgetDesk, BudgetView, parse_key
from fleet.desk.planning import Pending
from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.kernel.ids import Principal, StoryId
from fleet.kernel.types import BudgetLimit, NoteRequest
from fleet.report.usage import UsageRow, sum_usage
from fleet.story.commands.budgets import Limits, SetBudget
from serve_apps.requests import Caller, Desk, Key, NamedStory
from serve_apps.sight import require_sight, sees_project, sight_of
from serve_apps.wire.story import CommandView, Wire

budget_router = APIRouter(prefix="/api")


class LimitsRequest(NoteRequest):
    """New limits of one scope; quantities that are left out keep theirs, null takes a limit away."""

    limits: Annotated[Limits, Field(min_length=1)]
    story_id: Annotated[str | None, Field(max_length=80)] = None
    """The story that a task, council or role is meant in."""


class BudgetLineView(Wire):
    """One limit of one scope, or a quantity without limit that was used."""

    scope: str
    id: str
    quantity: BudgetLimit
    limit: int | None
    spent: int
    reserved: int
    left: int | None


class BudgetList(Wire):
    """The budgets of one story, or of the platform and its projects today (UTC)."""

    story_id: str | None
    day: str
    items: tuple[BudgetLineView, ...]


# Source: MB-31.
class UsageSumView(Wire):
    """Usage with one value of the key. Tokens without a price are listed as such, never as a cost of 0."""

    key: str
    steps: int
    calls: int
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    tokens_unpriced: int
    gpu_ms: int
    latency_ms: int
    cost_microusd: int


class UsageList(Wire):
    """The ledger by one key."""

    group_by: str
    story_id: str | None
    items: tuple[UsageSumView, ...]


def _budgets(request: Request, who: Caller) -> BudgetDesk:
    desk: BudgetDesk | None = request.app.state.budgets
    if desk is None:
        raise StoreUnavailable("this front has no budgets wired")
    return desk


Budgets = Annotated[BudgetDesk, Depends(_budgets)]


@budget_router.get("/budgets", response_model=BudgetList, operation_id="list_budgets_api_budgets_get")
async def list_budgets(
    request: Request, budgets: Budgets, who: Caller, scope: Annotated[str, Query(max_length=100)] = "platform"
) -> BudgetList:
    """Limits, used, reserved and left: of `platform` today with its projects, or of `story:<id>`.

    Those from whom some stories are hidden see no days of platform and projects, which are sums over all of them. Those
    from whom tasks of a story are hidden see what was used, reserved and left as if there were no more than they see.
    """
    kind, _, name = scope.partition(":")
    if kind == "story" and name:
        story = await require_sight(request, who, StoryId(name))
        return _listed(await _of_story(request, who, budgets, story))
    if scope != "platform":
        raise InvalidInput(
            f"there is no list of budgets of {scope!r}: ask for platform or story:ID",
            field="scope",
            value=scope,
            allowed=["platform", "story:ID"],
        )
    return _listed(_seen(request, who, await budgets.today()))


async def _of_story(request: Request, who: Principal, budgets: BudgetDesk, story_id: StoryId) -> BudgetView:
    return await budgets.story(story_id, await sight_of(request).cut_again(who, story_id, None))


def _seen(request: Request, who: Principal, view: BudgetView) -> BudgetView:
    """Without the projects that the caller does not see; without any where it does not see every story of its own."""
    if not sight_of(request).sees_every_row(who):
        return replace(view, lines=())
    lines = tuple(line for line in view.lines if line.scope != "project" or sees_project(request, who, line.id))
    return replace(view, lines=lines)


def _listed(view: BudgetView) -> BudgetList:
    lines = tuple(BudgetLineView(**asdict(line), left=line.left) for line in view.lines)
    return BudgetList(story_id=view.story_id, day=view.day, items=lines)


@budget_router.put(
    "/budgets/{scope}/{scope_id}",
    response_model=BudgetList,
    operation_id="set_budget_api_budgets__scope___scope_id__put",
)
async def set_budget(
    request: Request,
    desk: Desk,
    budgets: Budgets,
    who: Caller,
    key: Key,
    scope: Literal["story", "task", "council", "role"],
    scope_id: str,
    body: LimitsRequest,
) -> Response:
    """Set limits. Lower ones hold at once; higher ones need a person in role po. A story parked for it goes on."""
    named = scope_id if scope == "story" else body.story_id
    if named is None:
        raise InvalidInput(f"say in which story this {scope} is: story_id", field="story_id")
    story_id = await require_sight(request, who, StoryId(named))
    sent = SetBudget(scope=scope, id=scope_id, limits=body.limits, note=body.note)
    answer = await desk.command(story_id, sent, principal=who, key=key)
    if isinstance(answer, Pending):
        url = f"/api/commands/{answer.command_id}"
        view = CommandView(command_id=answer.command_id, status="pending", status_url=url)
        return JSONResponse(view.model_dump(), status_code=202)
    return JSONResponse(_listed(await _of_story(request, who, budgets, story_id)).model_dump(mode="json"))


@budget_router.get("/usage", response_model=UsageList, operation_id="list_usage_api_usage_get")
async def list_usage(
    request: Request,
    budgets: Budgets,
    who: Caller,
    story_id: NamedStory,
    group_by: Annotated[str, Query(max_length=20)] = "role",
) -> UsageList:
    """Usage by story, task, council, role, engine, model, kind or day: of one story, or of all that the caller sees."""
    registry: PrincipalRegistry = request.app.state.registry
    key = parse_key(group_by)
    rows = await budgets.rows(story_id, projects=registry.projects_of(who))
    ids = await sight_of(request).known_ids(who, story_id)
    sums = sum_usage([row for row in rows if _is_seen(row, ids)], by=key)
    return UsageList(group_by=group_by, story_id=story_id, items=tuple(UsageSumView(**asdict(one)) for one in sums))


def _is_seen(row: UsageRow, ids: frozenset[str] | None) -> bool:
    """Whether a step is of a story, task and council that are shown to the caller."""
    return ids is None or all(name is None or name in ids for name in (row.story, row.task, row.council))
