"""Decisions over HTTP: one of them, what hangs on it, and making and settling them (AP-71, AP-72)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from fleet.context.row_cut import RowCut
from fleet.desk.decisions import DecisionDesk, GraphRows
from fleet.desk.planning import PlanningDesk
from fleet.kernel.errors import InvalidInput, NotFound, StoreUnavailable
from fleet.kernel.ids import Principal, StoryId, StreamId, derive_id
from fleet.kernel.types import ReasonRequest
from fleet.story.commands.command import StoryCommand
from fleet.story.commands.decisions import (
    AcceptDecision,
    DecisionAcceptRequest,
    ProposeDecision,
    ProposeRequest,
    RejectDecision,
    SupersedeDecision,
    SupersedeRequest,
)
from fleet.story.state import Decision, StoryState
from serve_apps.commanding import carried_out, tagged
from serve_apps.requests import Caller, Desk, Key, Story
from serve_apps.sight import sight_of
from serve_apps.wire.decision import (
    CriticalList,
    CycleList,
    DecisionPage,
    Impact,
    critical_list,
    cycle_list,
    decision_page,
    impact,
)

decision_router = APIRouter(prefix="/api")

_OF_STORY = "/planner/stories/{story_id}/decisions"
_ONE = "/decisions/{decision_id}"
MinVersion = Annotated[int, Query(ge=0, le=10**9, description="The version of the story that the answer holds.")]


def _decisions(request: Request, who: Caller) -> DecisionDesk:
    desk: DecisionDesk | None = request.app.state.decisions
    if desk is None:
        raise StoreUnavailable("this front has no decision graph wired")
    return desk


Decisions = Annotated[DecisionDesk, Depends(_decisions)]


async def _named(request: Request, decisions: Decisions, who: Caller, decision_id: str) -> tuple[StoryState, Decision]:
    state, decision = await decisions.find(decision_id)
    sight = sight_of(request)
    if not sight.sees_decision(who, state, decision):
        await sight.refused(who, "read_decision", decision_id)
        raise NotFound(f"there is no decision {decision_id[:80]!r}", decision_id=decision_id[:80])
    seen = await sight.shown(who, state)
    return seen, seen.decisions[decision_id]


Named = Annotated[tuple[StoryState, Decision], Depends(_named)]


@decision_router.get(
    _OF_STORY + "/critical",
    response_model=CriticalList,
    operation_id="critical_decisions_api_planner_stories__story_id__decisions_critical_get",
)
async def critical_decisions(
    request: Request, decisions: Decisions, who: Caller, desk: Desk, story_id: Story, min_version: MinVersion = 0
) -> CriticalList:
    """The decisions of the adopted plan, those first that most hangs on."""
    _require_recorded(await desk.state(story_id), min_version)
    found = await decisions.critical(story_id, min_version=min_version)
    return critical_list(await _seen(request, who, story_id, found))


@decision_router.get(
    _OF_STORY + "/cycles",
    response_model=CycleList,
    operation_id="decision_cycles_api_planner_stories__story_id__decisions_cycles_get",
)
async def decision_cycles(
    request: Request, decisions: Decisions, who: Caller, desk: Desk, story_id: Story, min_version: MinVersion = 0
) -> CycleList:
    """Proposed and accepted decisions that depend on each other in a circle."""
    _require_recorded(await desk.state(story_id), min_version)
    found = await decisions.cycles(story_id, min_version=min_version)
    return cycle_list(await _seen(request, who, story_id, found))


@decision_router.get(_ONE, response_model=DecisionPage, operation_id="show_decision_api_decisions__decision_id__get")
async def show_decision(request: Request, decisions: Decisions, who: Caller, named: Named) -> DecisionPage:
    """One decision: who proposed it, why, on what, and who settled it."""
    return await _page(request, decisions, who, *named)


async def _page(
    request: Request, decisions: DecisionDesk, who: Principal, state: StoryState, decision: Decision
) -> DecisionPage:
    found = await decisions.record(state, decision)
    supersedes = tuple(id for id in found.supersedes if id in state.decisions)
    by = found.superseded[1].by_decision_id if found.superseded else None
    superseded = found.superseded if by in state.decisions else None
    return decision_page(replace(found, supersedes=supersedes, superseded=superseded))


def _require_recorded(state: StoryState, min_version: int) -> None:
    """Returns when the story has come to this version: what is beyond its log nobody need wait for."""
    if min_version > state.version:
        raise InvalidInput(
            f"min_version is {min_version}, and the story is at version {state.version}: name one that an answer had",
            field="min_version",
            version=state.version,
        )


async def _seen(request: Request, who: Principal, story_id: StoryId, found: GraphRows) -> GraphRows:
    """The rows that name nothing hidden; how much hangs on a decision counts all of it."""
    cut = await sight_of(request).cut_again(who, story_id, None)
    return found if cut is None else replace(found, rows=tuple(row for row in found.rows if _is_shown(row, cut)))


def _is_shown(row: dict[str, Any], cut: RowCut) -> bool:
    return not cut.names(row) and all(
        str(row["id"]) in cut.rows.shown for kind in [row.get("kind")] if str(kind).lower() in ("task", "decision")
    )


@decision_router.get(
    _ONE + "/impact", response_model=Impact, operation_id="decision_impact_api_decisions__decision_id__impact_get"
)
async def decision_impact(
    request: Request,
    decisions: Decisions,
    who: Caller,
    named: Named,
    depth: Annotated[int, Query(ge=1, le=6)] = 3,
    min_version: MinVersion = 0,
) -> Impact:
    """Dependent decisions, tasks that they affect, and files, criteria and runs of those tasks."""
    state, decision = named
    _require_recorded(state, min_version)
    found = await decisions.impact(state, decision, depth=depth, min_version=min_version)
    return impact(decision.proposed.decision_id, await _seen(request, who, state.story_id, found))


@decision_router.post(
    _OF_STORY,
    status_code=201,
    response_model=DecisionPage,
    operation_id="propose_decision_api_planner_stories__story_id__decisions_post",
)
async def propose_decision(
    request: Request, decisions: Decisions, desk: Desk, who: Caller, key: Key, story_id: Story, body: ProposeRequest
) -> Any:
    """Put a choice on record with its reasons; it binds nobody until it is accepted."""
    decision_id = derive_id("de", StreamId.of_story(story_id), f"{who}/{key}")
    sent = ProposeDecision.model_validate(body.model_dump(mode="json"))
    return await _told(request, decisions, desk, story_id, sent, decision_id, who, key)


@decision_router.post(
    _ONE + "/accept",
    response_model=DecisionPage,
    operation_id="accept_decision_api_decisions__decision_id__accept_post",
)
async def accept_decision(
    request: Request, decisions: Decisions, desk: Desk, who: Caller, key: Key, named: Named, body: DecisionAcceptRequest
) -> Any:
    """Settle it with a yes: from then on it is told to those who work on the story as decided."""
    sent = AcceptDecision(decision_id=named[1].proposed.decision_id, **body.model_dump())
    return await _told(request, decisions, desk, named[0].story_id, sent, sent.decision_id, who, key)


@decision_router.post(
    _ONE + "/reject",
    response_model=DecisionPage,
    operation_id="reject_decision_api_decisions__decision_id__reject_post",
)
async def reject_decision(
    request: Request, decisions: Decisions, desk: Desk, who: Caller, key: Key, named: Named, body: ReasonRequest
) -> Any:
    """Settle it with a no; its author may take it back."""
    sent = RejectDecision(decision_id=named[1].proposed.decision_id, **body.model_dump())
    return await _told(request, decisions, desk, named[0].story_id, sent, sent.decision_id, who, key)


@decision_router.post(
    _ONE + "/supersede",
    response_model=DecisionPage,
    operation_id="supersede_decision_api_decisions__decision_id__supersede_post",
)
async def supersede_decision(
    request: Request, decisions: Decisions, desk: Desk, who: Caller, key: Key, named: Named, body: SupersedeRequest
) -> Any:
    """Put another accepted decision in its place; a plan that was made for the old one is asked about."""
    sent = SupersedeDecision(decision_id=named[1].proposed.decision_id, **body.model_dump())
    return await _told(request, decisions, desk, named[0].story_id, sent, sent.decision_id, who, key)


async def _told(
    request: Request,
    decisions: DecisionDesk,
    desk: PlanningDesk,
    story_id: str,
    sent: StoryCommand,
    decision_id: str,
    who: Principal,
    key: str,
) -> Response:
    """The decision as it is after the command, or where the outcome can be asked for (AP-4)."""
    created = isinstance(sent, ProposeDecision)
    pending = await carried_out(request, desk, story_id, sent, who=who, key=key, created=created)
    if pending is not None:
        return pending
    state = await desk.state(StoryId(story_id))
    seen = await sight_of(request).shown(who, state)
    page = await _page(request, decisions, who, seen, seen.decisions[decision_id])
    return tagged(page, state.version, status=201 if created else 200)
