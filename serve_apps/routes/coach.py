"""The story coach over HTTP: stateless, and deterministic without any model (AP-67, SC-32)."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.desk.planning import PlanningDesk
from fleet.kernel.ids import StoryId
from fleet.planning.coach import StoryScore
from fleet.planning.refine import RefinedStory
from fleet.planning.suggest import StorySuggestion
from fleet.story.commands.text import ApplyAdvice, ApplyRequest
from serve_apps.commanding import answered
from serve_apps.requests import Caller, Coach, Desk, Key, Story
from serve_apps.wire.story import StoryView

coach_router = APIRouter(prefix="/api")

_Criteria = Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=50)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TextRequest(_Wire):
    """The text of a story that need not exist."""

    title: Annotated[str, Field(max_length=200)]
    description: Annotated[str, Field(alias="brief", max_length=20_000)] = ""
    acceptance_criteria: Annotated[_Criteria, Field(alias="ac")] = ()
    language: Annotated[str, Field(max_length=20)] = "en"


class ScoreRequest(TextRequest):
    """A text, and the rigor whose minimum it is measured against."""

    rigor: Annotated[str, Field(max_length=20)] = "L1"


class GoalRequest(_Wire):
    """A one-line goal."""

    goal: Annotated[str, Field(max_length=2000)]
    language: Annotated[str, Field(max_length=20)] = "en"


class Proposal(_Wire):
    """One change that the coach offers: a wrapped title, markers at vague words, or a template to fill in."""

    key: str
    """What it is applied by."""
    kind: str
    field: str
    texts: tuple[str, ...]
    """What is added, or the whole new title."""


class StoryAdvice(_Wire):
    """What the coach says of a story as it is: its score with findings, what it offers, and what it asks."""

    version: int
    score: StoryScore
    refined: RefinedStory
    """The text with every proposal."""
    proposals: tuple[Proposal, ...]
    questions: tuple[str, ...]


@coach_router.post("/stories/score", response_model=StoryScore, operation_id="score_api_stories_score_post")
async def score(coach: Coach, who: Caller, body: ScoreRequest) -> StoryScore:
    """How ready a text is: the score, and a finding for every lost point. Nothing is recorded."""
    return coach.score(body.title, body.description, body.acceptance_criteria, language=body.language, rigor=body.rigor)


@coach_router.post("/stories/refine", response_model=RefinedStory, operation_id="refine_api_stories_refine_post")
async def refine(coach: Coach, who: Caller, body: TextRequest) -> RefinedStory:
    """The text with proposals; every character of the author's stays, in order. Nothing is recorded."""
    return coach.refine(body.title, body.description, body.acceptance_criteria, language=body.language)


@coach_router.post("/stories/suggest", response_model=StorySuggestion, operation_id="suggest_api_stories_suggest_post")
async def suggest(coach: Coach, who: Caller, body: GoalRequest) -> StorySuggestion:
    """A story from a one-line goal, with placeholders and a question for each. Nothing is recorded."""
    return coach.suggest(body.goal, language=body.language)


@coach_router.get(
    "/planner/stories/{story_id}/advice",
    response_model=StoryAdvice,
    operation_id="advice_api_planner_stories__story_id__advice_get",
)
async def advice(coach: Coach, desk: Desk, who: Caller, story_id: Story) -> StoryAdvice:
    """The score, the findings and the proposals for a story as it is."""
    return await _advice(desk, coach, story_id)


@coach_router.post(
    "/planner/stories/{story_id}/coach",
    response_model=StoryView,
    operation_id="apply_api_planner_stories__story_id__coach_post",
)
async def apply(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: ApplyRequest) -> Any:
    """Take proposals of the coach into the story; every character of its author stays, in order."""
    sent = ApplyAdvice(proposals=body.proposals)
    return await answered(request, desk, story_id, sent, who=who, key=key)


async def _advice(desk: PlanningDesk, coach: Coach, story_id: StoryId) -> StoryAdvice:
    state = await desk.state(story_id)
    text = (state.content.title, state.content.description, [c.text for c in state.content.acceptance_criteria])
    refined = coach.refine(*text, language=state.language)
    return StoryAdvice(
        version=state.version,
        score=coach.score(*text, language=state.language, rigor=state.rigor),
        refined=refined,
        proposals=_proposals(refined),
        questions=tuple(dict.fromkeys(c.text for c in refined.changes if c.kind == "question")),
    )


def _proposals(refined: RefinedStory) -> tuple[Proposal, ...]:
    offered = [change for change in refined.changes if change.kind != "question"]
    return tuple(
        Proposal(
            key=key,
            kind=next(c.kind for c in offered if c.proposal == key),
            field=next(c.field for c in offered if c.proposal == key),
            texts=tuple(c.text for c in offered if c.proposal == key),
        )
        for key in dict.fromkeys(change.proposal for change in offered)
    )
