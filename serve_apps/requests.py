"""What routes ask of a request before they look at it: who calls, under which key, with which document (AP-1, AP-2)."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request

from fleet.desk.coach import CoachDesk
from fleet.desk.gates import GateDesk
from fleet.desk.planning import PlanningDesk
from fleet.desk.principals import PrincipalRegistry
from fleet.desk.stories import StoryDesk
from fleet.desk.tools.desk import ToolDesk
from fleet.desk.tools.tasks import TaskDesk
from fleet.kernel.errors import (
    IdempotencyKeyRequired,
    MalformedRequest,
    PolicyDenied,
    SandboxUnavailable,
    StoreUnavailable,
)
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.policy.roles import require_chosen, require_role
from serve_apps.rates import PrincipalRates
from serve_apps.sight import require_sight, sight_of

RoleHeader = Annotated[str | None, Header(description="One of the caller's roles: the request acts in no other.")]


def _caller(
    request: Request, authorization: Annotated[str | None, Header()] = None, x_fleet_role: RoleHeader = None
) -> Principal:
    registry: PrincipalRegistry = request.app.state.registry
    who = registry.authenticate(authorization)
    rates: PrincipalRates | None = request.app.state.rates
    if rates is not None:
        rates.count(who)
    if x_fleet_role is not None:
        require_chosen(who, registry.roles_of(who), x_fleet_role)
    return who


def require_one_of(
    request: Request, who: Principal, *roles: str, rule_id: str = "role_not_held", listed: bool = False
) -> None:
    """Return when the caller holds one of these roles; PolicyDenied otherwise."""
    registry: PrincipalRegistry = request.app.state.registry
    require_role(who, registry.roles_of(who), *roles, rule_id=rule_id, listed=listed)


Caller = Annotated[Principal, Depends(_caller)]


async def _json(request: Request, who: Caller) -> Any:
    """The body of a known caller; a key that stands twice reads one way and loads another, so it is refused."""
    raw = await request.body()
    try:
        return json.loads(raw, object_pairs_hook=_once, parse_constant=_no_number) if raw else None
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"key {name[:80]!r} stands twice")
        fields[name] = value
    return fields


Json = Annotated[Any, Depends(_json)]


def check_key(key: str | None) -> str:
    """The key, which has the form of one (AP-2)."""
    if key is None:
        raise IdempotencyKeyRequired("send an Idempotency-Key header of 8 to 128 visible characters")
    if not 8 <= len(key) <= 128 or not all("!" <= c <= "~" for c in key):
        raise MalformedRequest("Idempotency-Key must have 8 to 128 visible ASCII characters")
    return key


def _key(checked: Json, idempotency_key: Annotated[str | None, Header()] = None) -> str:
    return check_key(idempotency_key)


Key = Annotated[str, Depends(_key)]


async def _story_id(request: Request, who: Caller, story_id: str) -> StoryId:
    return await require_sight(request, who, StoryId(story_id))


def _session_id(session_id: str) -> EntityId:
    return EntityId(session_id)


def _run_id(run_id: str) -> EntityId:
    return EntityId(run_id)


def _invocation_id(invocation_id: str) -> EntityId:
    return EntityId(invocation_id)


def _digest(digest: str) -> Digest:
    return Digest(digest)


async def _named_story(
    request: Request, who: Caller, story_id: Annotated[str | None, Query(alias="storyId", max_length=80)] = None
) -> StoryId | None:
    """Only an id that is older than the index of ids needs its story named."""
    return None if story_id is None else await require_sight(request, who, StoryId(story_id))


Story = Annotated[StoryId, Depends(_story_id)]


async def _task_id(request: Request, who: Caller, story_id: Story, task_id: str) -> str:
    return await sight_of(request).require_task(who, story_id, task_id)


TaskId = Annotated[str, Depends(_task_id)]
"""A task of the story that the caller sees."""
Session = Annotated[EntityId, Depends(_session_id)]
Run = Annotated[EntityId, Depends(_run_id)]
Invocation = Annotated[EntityId, Depends(_invocation_id)]
Hash = Annotated[Digest, Depends(_digest)]
NamedStory = Annotated[StoryId | None, Depends(_named_story)]


def _selected_role(x_fleet_role: RoleHeader = None) -> str | None:
    return x_fleet_role


SelectedRole = Annotated[str | None, Depends(_selected_role)]


def check_role(selected: SelectedRole, role: str) -> None:
    """Returns when the body names the role that the header selected, or none is selected (AP-1)."""
    if selected is not None and selected != role:
        raise PolicyDenied(
            f"X-Fleet-Role selects {selected!r} and the body names {role!r}: send the same role twice, or no header",
            rule_id="role_not_selected",
            role=role,
        )


def _desk(request: Request) -> PlanningDesk:
    return request.app.state.desk


def _stories(request: Request, who: Caller) -> StoryDesk:
    desk: StoryDesk | None = request.app.state.stories
    if desk is None:
        raise StoreUnavailable("this front has no reads of stories wired")
    return desk


def _gates(request: Request, who: Caller) -> GateDesk:
    desk: GateDesk | None = request.app.state.gates
    if desk is None:
        raise StoreUnavailable("this front has no gates wired")
    return desk


def _coach(request: Request, who: Caller) -> CoachDesk:
    desk: CoachDesk | None = request.app.state.coach
    if desk is None:
        raise StoreUnavailable("this front has no coach wired")
    return desk


def _tools(request: Request, who: Caller) -> ToolDesk:
    desk: ToolDesk | None = request.app.state.tools
    if desk is None:
        raise SandboxUnavailable("this front has no tools wired: nothing was started", missing="tools")
    return desk


def _tasks(tools: Annotated[ToolDesk, Depends(_tools)]) -> TaskDesk:
    return TaskDesk(tools)


Desk = Annotated[PlanningDesk, Depends(_desk)]
Stories = Annotated[StoryDesk, Depends(_stories)]
Gates = Annotated[GateDesk, Depends(_gates)]
Coach = Annotated[CoachDesk, Depends(_coach)]
Tools = Annotated[ToolDesk, Depends(_tools)]
Tasks = Annotated[TaskDesk, Depends(_tasks)]
