"""Standing delegations over HTTP: gates that agents may decide in stories to come (AP-94, LC-77)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, Field

from fleet.desk.principals import PrincipalRegistry
from fleet.kernel.errors import NotFound, PolicyDenied
from fleet.kernel.ids import EntityId, Principal
from fleet.kernel.types import Reason
from fleet.planning.platform_state import StandingDelegation
from fleet.projects.platform_commands import GrantDelegation, RevokeDelegation
from serve_apps.requests import Caller, Key, require_one_of
from serve_apps.routes.fleet_state import Fleet, platform_command
from serve_apps.routes.projects import Projects
from serve_apps.sight import require_project, sees_project
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at, at_or_none

delegation_router = APIRouter(prefix="/api")


class DelegationRequest(Wire):
    """Let an agent role decide a gate in stories that are started from here on."""

    gate: Annotated[str, Field(min_length=1, max_length=60)]
    delegate: Annotated[str, Field(min_length=1, max_length=60)]
    """A role of config/roles.yaml that agents may have, or `council:<role>` for a council of a role."""
    reason: Reason
    valid_until: AwareDatetime
    """At most 30 days ahead, with its offset from UTC."""
    max_rigor: Annotated[str, Field(min_length=2, max_length=20)]
    """Stories of a higher rigor are not meant."""
    projects: Annotated[tuple[Annotated[str, Field(max_length=80)], ...], Field(max_length=50)] = ()
    """Stories of these alone; without any, those of all projects."""


class DelegationView(Wire):
    """One delegation as it stands."""

    delegation_id: str
    gate: str
    delegate: str
    granted_by: str
    reason: str
    granted_at: str
    valid_until: str
    max_rigor: str
    projects: tuple[str, ...]
    status: Literal["active", "expired", "revoked"]
    revoked_by: str | None
    revoked_at: str | None


class DelegationList(Wire):
    """Delegations in the order in which they were granted."""

    items: tuple[DelegationView, ...]


@delegation_router.get(
    "/delegations", response_model=DelegationList, operation_id="list_delegations_api_delegations_get"
)
async def list_delegations(request: Request, fleet: Fleet, who: Caller) -> DelegationList:
    """The delegations that concern projects of the caller, those that are over too."""
    _require_grantor(request, who)
    delegations = [one for one in (await fleet.state()).delegations.values() if _concerns(request, who, one)]
    return DelegationList(items=tuple(_view(one, fleet.now_ms) for one in delegations))


@delegation_router.post(
    "/delegations", status_code=201, response_model=DelegationView, operation_id="grant_delegation_api_delegations_post"
)
async def grant_delegation(
    request: Request, fleet: Fleet, projects: Projects, who: Caller, key: Key, body: DelegationRequest
) -> Any:
    """Delegate a gate; the same Idempotency-Key delegates it once."""
    _require_grantor(request, who)
    registry: PrincipalRegistry = request.app.state.registry
    if not body.projects and registry.projects_of(who) is not None:
        raise PolicyDenied(f"{who} sees chosen projects only: name those that are meant", rule_id="project_not_held")
    for name in body.projects:
        require_project(request, who, name)
        await projects.project(EntityId(name))
    sent = GrantDelegation(**{**body.model_dump(), "valid_until": _ms(body.valid_until)})
    answer = await platform_command(request, fleet, sent, who, key)
    return answer if isinstance(answer, Response) else await _shown(fleet, answer["delegation_id"], status=201)


@delegation_router.delete(
    "/delegations/{delegation_id}",
    response_model=DelegationView,
    operation_id="revoke_delegation_api_delegations__delegation_id__delete",
)
async def revoke_delegation(
    request: Request,
    fleet: Fleet,
    who: Caller,
    key: Key,
    delegation_id: str,
    reason: Annotated[str, Query(max_length=4000)] = "",
) -> Any:
    """Take a delegation back. Gates that wait from here on wait for a person, in stories under way too."""
    _require_grantor(request, who)
    delegation = (await fleet.state()).delegations.get(delegation_id)
    if delegation is None or not _concerns(request, who, delegation):
        raise NotFound(f"there is no delegation {delegation_id[:80]!r}", delegation_id=delegation_id[:80])
    sent = RevokeDelegation(delegation_id=delegation_id, reason=reason)
    answer = await platform_command(request, fleet, sent, who, key)
    return answer if isinstance(answer, Response) else await _shown(fleet, delegation_id)


def _require_grantor(request: Request, who: Principal) -> None:
    """Returns for a person in role admin or po; the owner of the stream decides by the same rule."""
    if not who.is_human:
        raise PolicyDenied("only a person delegates a gate", rule_id="LC-77")
    require_one_of(request, who, "admin", "po")


def _concerns(request: Request, who: Principal, one: StandingDelegation) -> bool:
    projects = one.granted.projects
    return not projects or any(sees_project(request, who, name) for name in projects)


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


async def _shown(fleet: Fleet, delegation_id: str, *, status: int = 200) -> Response:
    view = _view((await fleet.state()).delegations[delegation_id], fleet.now_ms)
    return JSONResponse(view.model_dump(mode="json"), status_code=status)


def _view(one: StandingDelegation, now_ms: int) -> DelegationView:
    granted = one.granted
    is_over = "revoked" if one.revoked_ms is not None else "expired"
    return DelegationView(
        delegation_id=granted.delegation_id,
        gate=granted.gate,
        delegate=granted.delegate,
        granted_by=granted.granted_by,
        reason=granted.reason,
        granted_at=at(one.granted_ms),
        valid_until=at(granted.valid_until),
        max_rigor=granted.max_rigor,
        projects=tuple(str(name) for name in granted.projects),
        status="active" if one.holds(now_ms=now_ms) else is_over,
        revoked_by=one.revoked_by,
        revoked_at=at_or_none(one.revoked_ms),
    )
