"""Backlog reviews over HTTP: councils look at stories, a product owner decides (AP-80, PL-60..PL-69)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import Field

from fleet.desk.projects import ProjectDesk
from fleet.kernel.errors import NotFound
from fleet.kernel.ids import EntityId, Principal, StoryId
from fleet.kernel.types import PriorityChange
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.project_state import Ceremony
from fleet.projects.ceremonies import (
    ApproveCeremonyStory,
    CancelCeremony,
    CeremonyCommand,
    ChooseCeremonyStories,
    CompleteCeremony,
    Ids,
    OpenCeremony,
    RejectCeremonyStory,
    StartCeremony,
    StoriesRequest,
)
from serve_apps.requests import Caller, Key
from serve_apps.routes.projects import Projects, project_command, versioned
from serve_apps.sight import sees_project, sight_of
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at

ceremony_router = APIRouter(prefix="/api")
_ONE = "/ceremonies/{ceremony_id}"
Words = Annotated[str, Field(max_length=4000)]


class OpenRequest(Wire):
    """Stories that are to be reviewed together."""

    project_id: Annotated[str, Field(max_length=80)] = "pr-default"
    story_ids: Ids


# Source: PL-68.
class ApproveRequest(Wire):
    """Yes to one story: why, and what is to be minded."""

    po_notes: Words
    po_concerns: Words | None = None
    priority_adjustment: PriorityChange | None = None
    priority_reason: Words | None = None
    plan_of: Annotated[str, Field(max_length=40)] | None = None
    """The council whose outline becomes a proposed plan of the story; the first that has a usable one by default."""


class CeremonyReason(Wire):
    """Why not."""

    reason: Words


class Nothing(Wire):
    """Nothing is to be said."""


class ReviewView(Wire):
    """What one council said of one story; `failed` says why it said nothing."""

    role: str
    review: BacklogReview | None
    failed: str | None


class EstimateView(Wire):
    """The Delphi estimate; no points where too few councils gave one."""

    points: int | None
    converged: bool
    iqr: int
    rounds: int
    values: tuple[int, ...]


class ReviewedStory(Wire):
    """One story of the review: what was said, what it takes, and what was decided."""

    story_id: str
    result: Literal["PENDING", "APPROVED", "REJECTED"]
    reviews: tuple[ReviewView, ...]
    estimate: EstimateView | None
    po_notes: str | None
    po_concerns: str | None
    priority_adjustment: str | None
    priority_reason: str | None
    reason: str | None
    plan_id: str | None
    """The proposed plan version that an approval made of an outline."""


class CeremonyView(Wire):
    """One backlog review."""

    ceremony_id: str
    project_id: str
    status: str
    councils: tuple[str, ...]
    opened_at: str
    reason: str | None
    stories: tuple[ReviewedStory, ...]


def _view(project: str, ceremony: Ceremony, said: dict[tuple[str, str], BacklogReview]) -> CeremonyView:
    return CeremonyView(
        ceremony_id=ceremony.ceremony_id,
        project_id=project,
        status=ceremony.status,
        councils=ceremony.councils,
        opened_at=at(ceremony.opened_ms),
        reason=ceremony.reason,
        stories=tuple(_story(ceremony, story_id, said) for story_id in ceremony.story_ids),
    )


def _story(ceremony: Ceremony, story_id: str, said: dict[tuple[str, str], BacklogReview]) -> ReviewedStory:
    decided, estimate = ceremony.decisions.get(story_id), ceremony.estimates.get(story_id)
    return ReviewedStory(
        story_id=story_id,
        result=decided.result if decided else "PENDING",
        reviews=tuple(
            ReviewView(role=role, review=said.get((story_id, role)), failed=ceremony.reviews[story_id, role].failed)
            for role in ceremony.councils
            if (story_id, role) in ceremony.reviews
        ),
        estimate=EstimateView(
            points=estimate.points,
            converged=estimate.converged,
            iqr=estimate.iqr,
            rounds=estimate.rounds,
            values=estimate.values,
        )
        if estimate
        else None,
        po_notes=decided.po_notes if decided else None,
        po_concerns=decided.po_concerns if decided else None,
        priority_adjustment=decided.priority_adjustment if decided else None,
        priority_reason=decided.priority_reason if decided else None,
        reason=decided.reason if decided else None,
        plan_id=decided.plan_id if decided else None,
    )


async def _seen(request: Request, who: Caller, desk: Projects, ceremony_id: str) -> CeremonyView:
    view = _view(*await desk.ceremony(ceremony_id))
    if not sees_project(request, who, view.project_id):
        raise NotFound(f"there is no ceremony {view.ceremony_id}", ceremony_id=view.ceremony_id)
    return view


Seen = Annotated[CeremonyView, Depends(_seen)]


async def _sent(
    request: Request, desk: ProjectDesk, who: Principal, key: str, seen: CeremonyView, sent: CeremonyCommand
) -> Any:
    answer = await project_command(request, desk, EntityId(seen.project_id), sent, who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(_view(*await desk.ceremony(seen.ceremony_id)), answer["version"])


@ceremony_router.post(
    "/ceremonies", status_code=201, response_model=CeremonyView, operation_id="open_ceremony_api_ceremonies_post"
)
async def open_ceremony(request: Request, desk: Projects, who: Caller, key: Key, body: OpenRequest) -> Any:
    """Prepare a review of stories that nobody works on yet; the councils begin when it is started."""
    project = EntityId(body.project_id)
    if not project.startswith("pr-") or not sees_project(request, who, project):
        raise NotFound(f"there is no project {project}", project_id=project)
    answer = await project_command(request, desk, project, OpenCeremony(story_ids=body.story_ids), who, key)
    if isinstance(answer, Response):
        return answer
    return versioned(_view(*await desk.ceremony(answer["ceremony_id"])), answer["version"], status=201)


@ceremony_router.get(_ONE, response_model=CeremonyView, operation_id="show_ceremony_api_ceremonies__ceremony_id__get")
async def show_ceremony(request: Request, who: Caller, seen: Seen) -> CeremonyView:
    """One review: what each council said of each story that the caller sees, the estimates, and what was decided."""
    sight = sight_of(request)
    shown = [one for one in seen.stories if await sight.takes(who, StoryId(one.story_id))]
    return seen.model_copy(update={"stories": tuple(shown)})


@ceremony_router.post(
    _ONE + "/stories",
    response_model=CeremonyView,
    operation_id="choose_stories_api_ceremonies__ceremony_id__stories_post",
)
async def choose_stories(
    request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, body: StoriesRequest
) -> Any:
    """Give a review that has not begun other stories."""
    sent = ChooseCeremonyStories(ceremony_id=seen.ceremony_id, story_ids=body.story_ids)
    return await _sent(request, desk, who, key, seen, sent)


@ceremony_router.post(
    _ONE + "/start", response_model=CeremonyView, operation_id="start_ceremony_api_ceremonies__ceremony_id__start_post"
)
async def start_ceremony(request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, body: Nothing) -> Any:
    """Have the councils review each story and estimate it."""
    return await _sent(request, desk, who, key, seen, StartCeremony(ceremony_id=seen.ceremony_id))


@ceremony_router.post(
    _ONE + "/stories/{story_id}/approve",
    response_model=CeremonyView,
    operation_id="approve_story_api_ceremonies__ceremony_id__stories__story_id__approve_post",
)
async def approve_story(
    request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, story_id: str, body: ApproveRequest
) -> Any:
    """Say yes to a story; to one that is ready this is the consent to its scope."""
    sent = ApproveCeremonyStory(
        ceremony_id=seen.ceremony_id, story_id=StoryId(story_id), approve=True, **body.model_dump(exclude_none=True)
    )
    return await _sent(request, desk, who, key, seen, sent)


@ceremony_router.post(
    _ONE + "/stories/{story_id}/reject",
    response_model=CeremonyView,
    operation_id="reject_story_api_ceremonies__ceremony_id__stories__story_id__reject_post",
)
async def reject_story(
    request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, story_id: str, body: CeremonyReason
) -> Any:
    """Say no to a story, with a reason; its reviews stay."""
    sent = RejectCeremonyStory(
        ceremony_id=seen.ceremony_id, story_id=StoryId(story_id), approve=False, reason=body.reason
    )
    return await _sent(request, desk, who, key, seen, sent)


@ceremony_router.post(
    _ONE + "/complete",
    response_model=CeremonyView,
    operation_id="complete_ceremony_api_ceremonies__ceremony_id__complete_post",
)
async def complete_ceremony(request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, body: Nothing) -> Any:
    """End a review whose stories are all decided."""
    return await _sent(request, desk, who, key, seen, CompleteCeremony(ceremony_id=seen.ceremony_id))


@ceremony_router.post(
    _ONE + "/cancel",
    response_model=CeremonyView,
    operation_id="cancel_ceremony_api_ceremonies__ceremony_id__cancel_post",
)
async def cancel_ceremony(
    request: Request, desk: Projects, who: Caller, key: Key, seen: Seen, body: CeremonyReason
) -> Any:
    """Give a review up, with a reason; what was said in it stays on record."""
    sent = CancelCeremony(ceremony_id=seen.ceremony_id, reason=body.reason)
    return await _sent(request, desk, who, key, seen, sent)
