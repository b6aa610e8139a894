"""What people do to a story beside its gates: edit, pause, unpark, cancel, restore, rigor, questions, steps."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from fleet.kernel.errors import InvalidInput, PreconditionRequired
from fleet.kernel.ids import Principal, StoryId, derive_id
from fleet.kernel.types import NoteRequest, ReasonRequest, WaivableDimension
from fleet.story.commands.catalogue import parse_command
from fleet.story.commands.gates import FireEvent, TransitionRequest, WaiveCriterion
from fleet.story.commands.interventions import (
    ArchiveStory,
    Cancel,
    PauseStory,
    ResolveRequest,
    ResolveStep,
    RestoreRequest,
    RestoreStory,
    ResumeStory,
    StartRequest,
    StartStory,
    Unpark,
)
from fleet.story.commands.text import (
    AnswerQuestion,
    AnswerRequest,
    CreateStory,
    EditStory,
    QuestionRequest,
    RigorRequest,
    SetRigor,
)
from fleet.story.commands.waivers import WaiveDimension, WaiveRequest
from serve_apps.commanding import answered, send, shown, view_of
from serve_apps.requests import Caller, Desk, Json, Key, SelectedRole, Story, check_role
from serve_apps.sessions.routes import session_router
from serve_apps.sight import require_project, sight_of
from serve_apps.wire.intervention import EditRequest
from serve_apps.wire.story import StartedView, StoryView, beside_view

intervention_router = APIRouter(prefix="/api")
intervention_router.include_router(session_router)

_STORY = "/planner/stories/{story_id}"


@intervention_router.post(
    "/planner/stories",
    status_code=201,
    response_model=StoryView,
    operation_id="create_story_api_planner_stories_post",
)
async def create_story(request: Request, desk: Desk, who: Caller, key: Key, body: Json) -> Response:
    """Create a story; the same Idempotency-Key creates it once."""
    story_id = StoryId(derive_id("st", "platform:main", f"{who}/{key}"))
    _require_project(request, who, body)
    return await answered(request, desk, story_id, CreateStory(story=body), who=who, key=key, created=True)


def _require_project(request: Request, who: Principal, body: Any) -> None:
    """Returns when the story is to be in a project that the caller sees."""
    project: Any = body.get("project_id", "pr-default") if isinstance(body, dict) else "pr-default"  # pyright: ignore[reportUnknownMemberType]
    require_project(request, who, str(project))


@intervention_router.patch(
    _STORY, response_model=StoryView, operation_id="edit_story_api_planner_stories__story_id__patch"
)
async def edit_story(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    story_id: Story,
    body: EditRequest,
    if_match: Annotated[str | None, Header(description='The version that was edited, as `"v12"`.')] = None,
) -> Any:
    """Give fields of a story new values: it is scored again, and consents to the old text end."""
    if if_match is None:
        raise PreconditionRequired('send If-Match with the version that you edited, such as "v12"')
    changes = {name: value for name, value in body.model_dump(mode="json").items() if value is not None}
    reason = changes.pop("reason", None)
    if not changes:
        raise InvalidInput("the edit changes no field", field="/", problems=[])
    return await answered(request, desk, story_id, EditStory(changes=changes, reason=reason), who=who, key=key)


@intervention_router.put(
    _STORY + "/rigor", response_model=StoryView, operation_id="set_rigor_api_planner_stories__story_id__rigor_put"
)
async def set_rigor(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: RigorRequest) -> Any:
    """Work at another rigor level; a lower one needs a person in role po."""
    return await answered(request, desk, story_id, SetRigor.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/cancel", response_model=StoryView, operation_id="cancel_story_api_planner_stories__story_id__cancel_post"
)
async def cancel_story(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: ReasonRequest
) -> Any:
    """Give the story up; its running steps are ended."""
    return await answered(request, desk, story_id, Cancel.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/archive",
    response_model=StoryView,
    operation_id="archive_story_api_planner_stories__story_id__archive_post",
)
async def archive_story(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: ReasonRequest
) -> Any:
    """Lay a story aside that is closed or cancelled: its bytes are kept, and nothing is done with it any more."""
    return await answered(request, desk, story_id, ArchiveStory.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/pause", response_model=StoryView, operation_id="pause_story_api_planner_stories__story_id__pause_post"
)
async def pause_story(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: ReasonRequest) -> Any:
    """Hold the story back: no step of it starts from here on; what runs may end."""
    return await answered(request, desk, story_id, PauseStory.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/resume", response_model=StoryView, operation_id="resume_story_api_planner_stories__story_id__resume_post"
)
async def resume_story(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: NoteRequest) -> Any:
    """Let a paused story go on."""
    return await answered(request, desk, story_id, ResumeStory.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/unpark", response_model=StoryView, operation_id="unpark_story_api_planner_stories__story_id__unpark_post"
)
async def unpark_story(request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: NoteRequest) -> Any:
    """Let a parked story go on; the note says what was done about the cause."""
    return await answered(request, desk, story_id, Unpark.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/criteria/{ac_id}/waive",
    response_model=StoryView,
    operation_id="waive_criterion_api_planner_stories__story_id__criteria__ac_id__waive_post",
)
async def waive_criterion(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, ac_id: str, body: ReasonRequest
) -> Any:
    """Let a criterion pass although no test shows it: a person in role po or qa, by the criterion's id."""
    sent = WaiveCriterion(ac_id=ac_id, reason=body.reason)
    return await answered(request, desk, story_id, sent, who=who, key=key)


@intervention_router.post(
    _STORY + "/dimensions/{dimension}/waive",
    response_model=StoryView,
    operation_id="waive_dimension_api_planner_stories__story_id__dimensions__dimension__waive_post",
)
async def waive_dimension(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    story_id: Story,
    dimension: WaivableDimension,
    body: WaiveRequest,
) -> Any:
    """Take one dimension out of the story's score until the waiver expires: a person in role qa."""
    sent = WaiveDimension(dimension=dimension, **body.model_dump(exclude_unset=True))
    return await answered(request, desk, story_id, sent, who=who, key=key)


@intervention_router.post(
    _STORY + "/restore",
    response_model=StoryView,
    operation_id="restore_story_api_planner_stories__story_id__restore_post",
)
async def restore_story(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: RestoreRequest
) -> Any:
    """Set the story tree back to a checkpoint: a new merge undoes what came after, and its tasks are open again."""
    return await answered(request, desk, story_id, RestoreStory.model_validate(body.model_dump()), who=who, key=key)


@intervention_router.post(
    _STORY + "/questions",
    status_code=201,
    response_model=StoryView,
    operation_id="ask_question_api_planner_stories__story_id__questions_post",
)
async def ask_question(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: QuestionRequest
) -> Any:
    """Ask something about the story; a blocking question holds its design gate."""
    fields = body.model_dump(mode="json")
    return await answered(
        request, desk, story_id, parse_command("ask_question", fields), who=who, key=key, created=True
    )


@intervention_router.post(
    _STORY + "/questions/{question_id}/answer",
    response_model=StoryView,
    operation_id="answer_question_api_planner_stories__story_id__questions__question_id__answer_post",
)
async def answer_question(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, question_id: str, body: AnswerRequest
) -> Any:
    """Answer a question of the story."""
    sent = AnswerQuestion(question_id=question_id, answer=body.answer)
    return await answered(request, desk, story_id, sent, who=who, key=key)


@intervention_router.post(
    _STORY + "/steps/{step_id:path}/resolve",
    response_model=StoryView,
    operation_id="resolve_step_api_planner_stories__story_id__steps__step_id__resolve_post",
)
async def resolve_step(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, step_id: str, body: ResolveRequest
) -> Any:
    """Say whether a step happened that nobody knows the end of; the story is still to be unparked."""
    sent = ResolveStep(step_id=step_id, **body.model_dump())
    return await answered(request, desk, story_id, sent, who=who, key=key)


@intervention_router.post(
    "/planner/stories/{story_id}/start",
    response_model=StartedView,
    operation_id="start_story_api_planner_stories__story_id__start_post",
)
async def start_story(
    request: Request, desk: Desk, who: Caller, key: Key, story_id: Story, body: StartRequest
) -> Response:
    """Start the work on a story (the HTTP form of `fleet run`).

    `beside` names the other stories at work on the same repository, and what each of them holds.
    """
    came = await send(request, desk, story_id, StartStory(**body.model_dump()), who=who, key=key)
    if came.is_pending:
        return came.pending()
    view, sight = await view_of(request, desk, came.story_id, who=who), sight_of(request)
    beside = [other for other in await desk.beside(came.story_id) if sight.sees_story(who, other.state)]
    told = {"redactions": came.redactions, "beside": tuple(beside_view(other) for other in beside)}
    return shown(StartedView(**(dict(view) | told)))


@intervention_router.post(
    "/planner/stories/{story_id}/transition",
    response_model=StoryView,
    operation_id="transition_api_planner_stories__story_id__transition_post",
)
async def transition(
    request: Request,
    desk: Desk,
    who: Caller,
    key: Key,
    selected: SelectedRole,
    story_id: Story,
    body: TransitionRequest,
) -> Response:
    """Fire an event of the story's lifecycle, in one of the caller's roles when `actor` names it."""
    if body.actor is not None:
        check_role(selected, body.actor)
    fields = body.model_copy(update={"actor": body.actor or selected}).model_dump(exclude_none=True)
    return await answered(request, desk, story_id, FireEvent(**fields), who=who, key=key)
