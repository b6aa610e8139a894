"""The gates inbox over HTTP: what waits for a person, all that is needed to decide, the decision (AP-74..AP-76)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from fleet.desk.gates import GateCard, GateDesk
from fleet.events.story import Finding
from fleet.events.workspace import WorkspaceSummary
from fleet.kernel.errors import InvalidInput, NotFound
from fleet.kernel.ids import Principal
from fleet.report.councils import CouncilSummary
from fleet.story.commands.gates import (
    Approve,
    GrantRequest,
    Reject,
    RejectRequest,
    Revoke,
    RevokeRequest,
)
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.state import Approval, StoryState
from fleet.trees.tree import PathChange
from serve_apps.commanding import answered
from serve_apps.requests import Caller, Desk, Gates, Key, NamedStory, Story
from serve_apps.sight import sight_of
from serve_apps.wire.story import DecisionRequest, StoryView, Wire
from serve_apps.wire.times import at, at_or_none

gates_router = APIRouter(prefix="/api")

Status = Literal["requested", "granted", "rejected", "expired", "revoked", "voided"]


# Source: AP-76.
class AskRequest(Wire):
    """Ask for an approval, also again after one that was rejected or that nobody answered."""

    story_id: Annotated[str, Field(min_length=3, max_length=80)]
    gate: Annotated[str, Field(min_length=1, max_length=60)]


class GateStory(Wire):
    """The story that waits."""

    story_id: str
    project_id: str
    title: str
    state: str
    rigor: str
    disposition: str
    version: int


class GateSubject(Wire):
    """Exactly what is decided about."""

    kind: str
    id: str
    digest: str


class GateVerdict(Wire):
    """Score and verdict of the tree."""

    score: str
    verdict: str
    limited_by: str | None
    rigor: str
    reasons: tuple[str, ...]


class GateCouncilView(Wire):
    """A council behind the subject, and its minority report."""

    council: CouncilSummary
    minority_report: Any


class GateCost(Wire):
    """What the story has used so far; `cost_microusd` covers the calls that have a price."""

    tokens: int
    calls: int
    gpu_ms: int
    cost_microusd: int
    unpriced_tokens: int


class GateDiff(Wire):
    """Trees to compare, at `/api/planner/stories/{story_id}/diff?from=&to=`."""

    old: str | None
    new: str | None
    files: tuple[PathChange, ...]


# Source: LC-79.
class ApprovalCard(Wire):
    """One approval with everything that its decider needs."""

    approval_id: str
    gate: str
    role: str
    actor: str
    status: Status
    risk: str
    attempt: int
    requested_at: str
    expires_at: str
    requested_by: str
    decided_by: str | None
    notes: str | None
    reason: str | None
    delegated: bool
    grant_expires_at: str | None
    story: GateStory
    task_title: str | None
    subject: GateSubject
    diff: GateDiff
    commit: str | None
    tests: WorkspaceSummary | None
    verdict: GateVerdict | None
    findings: tuple[Finding, ...]
    councils: tuple[GateCouncilView, ...]
    feedback: tuple[str, ...]
    cost: GateCost
    card: dict[str, Any]
    """What was recorded with the request; of a tool call, the call itself."""
    can_decide: bool
    """The caller holds the role that decides, and the request waits."""


class ApprovalList(Wire):
    """Approvals, those that end first at the front."""

    items: tuple[ApprovalCard, ...]
    next_cursor: str | None = None


@gates_router.get("/approvals", response_model=ApprovalList, operation_id="list_approvals_api_approvals_get")
async def list_approvals(
    request: Request,
    gates: Gates,
    who: Caller,
    story: NamedStory,
    status: Status = "requested",
    role: Annotated[str | None, Query(max_length=60)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(max_length=120)] = None,
) -> ApprovalList:
    """Gates of all stories, or of one, with everything needed to decide."""
    pending = [
        (state, approval)
        for state, approval in await gates.find(status=status, role=role, story_id=story)
        if (cursor is None or _place(approval) > cursor) and await _sees(request, who, state, approval)
    ]
    page = pending[:limit]
    cards = [await _card(request, gates, who, state, approval) for state, approval in page]
    return ApprovalList(items=tuple(cards), next_cursor=_place(page[-1][1]) if len(pending) > limit else None)


def _place(approval: Approval) -> str:
    return f"{approval.request.expires_at:015d}/{approval.request.approval_id}"


@gates_router.get(
    "/approvals/{approval_id}",
    response_model=ApprovalCard,
    operation_id="show_approval_api_approvals__approval_id__get",
)
async def show_approval(request: Request, gates: Gates, who: Caller, approval_id: str) -> ApprovalCard:
    """One approval."""
    state, approval = await _seen(request, gates, who, approval_id)
    return await _card(request, gates, who, state, approval)


async def _sees(request: Request, who: Principal, state: StoryState, approval: Approval) -> bool:
    """Whether the approval is shown: whoever decides it sees its subject, anybody else what its roles see."""
    sight, asked = sight_of(request), approval.request
    if not sight.sees_story(who, state):
        return False
    return asked.role in _roles(request, who) or asked.approval_id in (await sight.shown(who, state)).approvals


async def _card(
    request: Request, gates: GateDesk, who: Principal, state: StoryState, approval: Approval
) -> ApprovalCard:
    cut = None if approval.request.role in _roles(request, who) else await sight_of(request).cut(who, state)
    card = await gates.card(state if cut is None else cut.state(state), approval)
    view = card_view(card, roles=_roles(request, who))
    # What was recorded with a request about all of a story tells of all of it.
    is_own = cut is None or approval.request.subject.id in cut.rows.shown
    return view if is_own else view.model_copy(update={"card": {}})


@gates_router.post(
    "/approvals", status_code=201, response_model=StoryView, operation_id="ask_approval_api_approvals_post"
)
async def ask_approval(request: Request, desk: Desk, who: Caller, key: Key, body: AskRequest) -> Any:
    """Ask for the approval of a gate, also again after an expiry or a rejection."""
    sent = RequestApproval(gate=body.gate)
    return await answered(request, desk, body.story_id, sent, who=who, key=key, created=True)


@gates_router.post(
    "/approvals/{approval_id}/grant",
    response_model=StoryView,
    operation_id="grant_api_approvals__approval_id__grant_post",
)
async def grant(
    request: Request, desk: Desk, gates: Gates, who: Caller, key: Key, approval_id: str, body: GrantRequest
) -> Any:
    """Say yes; the story goes on at once when nothing else holds it."""
    state, _ = await _seen(request, gates, who, approval_id)
    sent = Approve(gate=approval_id, notes=body.notes)
    return await answered(request, desk, state.story_id, sent, who=who, key=key)


@gates_router.post(
    "/approvals/{approval_id}/reject",
    response_model=StoryView,
    operation_id="reject_api_approvals__approval_id__reject_post",
)
async def reject(
    request: Request, desk: Desk, gates: Gates, who: Caller, key: Key, approval_id: str, body: RejectRequest
) -> Any:
    """Say no with a reason; with `back` the story goes back at once."""
    state, _ = await _seen(request, gates, who, approval_id)
    sent = Reject(gate=approval_id, **body.model_dump(exclude_none=True))
    return await answered(request, desk, state.story_id, sent, who=who, key=key)


@gates_router.post(
    "/approvals/{approval_id}/revoke",
    response_model=StoryView,
    operation_id="revoke_api_approvals__approval_id__revoke_post",
)
async def revoke(
    request: Request, desk: Desk, gates: Gates, who: Caller, key: Key, approval_id: str, body: RevokeRequest
) -> Any:
    """Take back a yes to a tool call before it was used."""
    state, _ = await _seen(request, gates, who, approval_id)
    sent = Revoke(gate=approval_id, reason=body.reason)
    return await answered(request, desk, state.story_id, sent, who=who, key=key)


async def _seen(request: Request, gates: GateDesk, who: Principal, approval_id: str) -> tuple[StoryState, Approval]:
    state, approval = await gates.story_of(approval_id)
    if not await _sees(request, who, state, approval):
        await sight_of(request).refused(who, "read_approval", approval_id)
        raise NotFound(f"there is no approval {approval_id[:80]!r}", approval_id=approval_id[:80])
    return state, approval


def _roles(request: Request, who: Principal) -> frozenset[str]:
    return request.app.state.registry.roles_of(who)


def card_view(card: GateCard, *, roles: frozenset[str]) -> ApprovalCard:
    """The wire form of an approval."""
    approval, state, request = card.approval, card.state, card.approval.request
    grant, score = approval.grant, card.score
    return ApprovalCard(
        approval_id=request.approval_id,
        gate=request.gate,
        role=request.role,
        actor=request.actor,
        status=card.status,  # pyright: ignore[reportArgumentType]
        risk=request.risk,
        attempt=request.attempt,
        requested_at=at(card.requested_ms),
        expires_at=at(request.expires_at),
        requested_by=request.requested_by,
        decided_by=grant.principal if grant else None,
        notes=grant.notes if grant else None,
        reason=approval.reason,
        delegated=grant.delegated if grant else False,
        grant_expires_at=at_or_none(grant.expires_at_ms if grant else None),
        story=GateStory(
            story_id=state.story_id,
            project_id=state.project_id,
            title=state.content.title,
            state=state.state,
            rigor=state.rigor,
            disposition=state.disposition,
            version=state.version,
        ),
        task_title=card.task_title,
        subject=GateSubject(kind=request.subject.kind, id=request.subject.id, digest=request.subject.digest),
        diff=GateDiff(old=card.base if card.tree else None, new=card.tree, files=card.files),
        commit=card.commit,
        tests=card.report.summary if card.report else None,
        verdict=GateVerdict(
            score=score.score,
            verdict=score.verdict,
            limited_by=score.limited_by,
            rigor=score.rigor,
            reasons=score.reasons,
        )
        if score
        else None,
        findings=card.findings,
        councils=tuple(GateCouncilView(council=c.summary, minority_report=c.minority) for c in card.councils),
        feedback=card.feedback,
        cost=GateCost(
            tokens=card.cost.tokens,
            calls=card.cost.calls,
            gpu_ms=card.cost.gpu_ms,
            cost_microusd=card.cost.cost_microusd,
            unpriced_tokens=card.cost.unpriced_tokens,
        ),
        card=card.card,
        can_decide=card.status == "requested" and request.role in roles,
    )


@gates_router.post(
    "/planner/stories/{story_id}/approvals/{gate}/{decision}",
    response_model=StoryView,
    operation_id="decide_api_planner_stories__story_id__approvals__gate___decision__post",
)
async def decide(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    story_id: Story,
    gate: str,
    decision: str,
    body: DecisionRequest,
) -> Response:
    """Grant or reject a pending approval of this story, by gate or approval id."""
    if decision not in ("grant", "reject"):
        raise InvalidInput(f"{decision!r} is no decision", allowed=["grant", "reject"])
    sent = Approve(gate=gate, notes=body.notes) if decision == "grant" else Reject(gate=gate, reason=body.reason)
    return await answered(request, desk, story_id, sent, who=who, key=key)
