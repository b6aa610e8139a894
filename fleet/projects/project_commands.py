"""Commands on a project: the project itself, its epics, and what is discovered for it (PL-1, PL-2, PL-4, PL-54)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from fleet.events.project import (
    DiscoveryAccepted,
    DiscoveryAnswered,
    DiscoveryProposed,
    DiscoveryRejected,
    DiscoveryRequested,
    EpicCreated,
    EpicUpdated,
    ProjectCreated,
    ProjectRepo,
    ProjectUpdated,
)
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import CommandId, EntityId, StoryId, StreamId, derive_id
from fleet.kernel.types import Frozen, Reason, Rigor
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import DiscoveryProposal, discover, with_answers
from fleet.planning.planning_config import CeremonyConfig
from fleet.planning.project_state import Discovery, Epic, ProjectState
from fleet.planning.project_text import EpicChanges, EpicText, ProjectChanges, ProjectText
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Attachment, Caller, Outcome, StoryCommand, TypedCommand
from fleet.story.commands.interventions import Cancel
from fleet.story.commands.text import CreateStory
from fleet.story.lifecycle import Lifecycle
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class ProjectRules:
    """What this fleet was started with that commands on projects are decided on."""

    coach: CoachConfig
    ceremony: CeremonyConfig
    lifecycles: Mapping[str, Lifecycle]
    """By name."""
    has_model: Callable[[str | None], bool]
    """Whether a model may be asked, when a request names this profile or none."""
    assignable_roles: tuple[str, ...]
    """Roles that tasks may go to."""


@dataclass(frozen=True, slots=True)
class ProjectFacts:
    """What a command is decided on beside the state of its project. The owner gathers it."""

    caller: Caller
    stream: StreamId
    command_id: CommandId
    rules: ProjectRules
    proposal: DiscoveryProposal | None = None
    """That of the discovery which the command names."""
    stories: Mapping[StoryId, StoryState | None] = field(default_factory=dict[StoryId, StoryState | None])
    """The stories that the command is about; None for one that does not exist."""
    reviews: Mapping[str, BacklogReview] = field(default_factory=dict[str, BacklogReview])
    """By council, what was said of the one story that the command decides on."""

    def new_id(self, prefix: str, ordinal: int = 0) -> EntityId:
        """The id of what the command makes, the same each time (GL-9)."""
        return derive_id(prefix, self.stream, self.command_id, ordinal)


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A command on a story that follows from one on its project."""

    story_id: StoryId
    key: str
    """What its id ends with, after the principal and the story."""
    sent: StoryCommand


class ProjectCommand(TypedCommand):
    """A command on a project."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    @abstractmethod
    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """What the command records on the project's stream, by rules alone. Raises what the domain refuses."""

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """What the command made or was about, as its sender is told."""
        return {}

    def follow(self, state: ProjectState, facts: ProjectFacts) -> tuple[FollowUp, ...]:
        """What the recorded command brings to stories; the same, however often it is asked for."""
        return ()


def require_open(state: ProjectState) -> None:
    """Returns when something may be added to the project (PL-1)."""
    if not state.exists:
        raise NotFound(f"there is no project {state.project_id}", project_id=state.project_id)
    if not state.is_open:
        raise InvalidTransition(
            f"project {state.project_id} is {state.status}", state=state.status, event="add", allowed=[]
        )


# Projects and epics.


class CreateProject(ProjectCommand):
    """A project begins, with its built-in epic."""

    command = "create_project"
    project: ProjectText

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The project and its epic; InvalidTransition for one that exists."""
        facts.caller.require("po")
        if state.exists:
            raise InvalidTransition(
                f"project {state.project_id} exists already", state=state.status, event=self.command, allowed=[]
            )
        text = self.project
        _check_project(facts.rules, text.default_lifecycle, text.constraints)
        created = ProjectCreated(
            project_id=state.project_id,
            title=text.title,
            description=text.description,
            author=facts.caller.principal,
            repo=ProjectRepo(**text.repo.model_dump()) if text.repo else None,
            default_rigor=text.default_rigor,
            default_lifecycle=text.default_lifecycle,
            languages=text.languages,
            constraints=text.constraints,
        )
        inbox = EpicText(title="inbox", description="Stories that name no epic.")
        return (created, _epic(inbox, state, facts))


class UpdateProject(ProjectCommand):
    """Fields of the project get new values; an archived one may be opened again."""

    command = "update_project"
    changes: ProjectChanges

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The changes. NotFound, InvalidInput for none."""
        facts.caller.require("po")
        if not state.exists:
            raise NotFound(f"there is no project {state.project_id}", project_id=state.project_id)
        _check_project(facts.rules, self.changes.default_lifecycle, self.changes.constraints)
        return (ProjectUpdated(project_id=state.project_id, changes=_given(self.changes)),)


class CreateEpic(ProjectCommand):
    """An epic stands under its project."""

    command = "create_epic"
    epic: EpicText

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The epic. NotFound, InvalidTransition for a project that is archived."""
        facts.caller.require("po")
        require_open(state)
        return (_epic(self.epic, state, facts),)

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The id of the epic."""
        return {"epic_id": facts.new_id("ep")}


class UpdateEpic(ProjectCommand):
    """Fields of the epic get new values; cancelling it cancels its open stories, with the same reason (PL-4)."""

    command = "update_epic"
    epic_id: str
    changes: EpicChanges
    reason: str | None = None
    """Why it is archived or cancelled."""

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The changes.

        Raises:
            NotFound: the project has no such epic.
            InvalidInput: nothing is to be otherwise, or the end of the epic has no reason.
            InvalidTransition: the epic is over, or it is the built-in one, which stays open.
        """
        facts.caller.require("po")
        epic = state.epics.get(self.epic_id)
        if epic is None:
            raise NotFound(f"project {state.project_id} has no epic {self.epic_id[:80]!r}", epic_id=self.epic_id[:80])
        changes = _given(self.changes)
        if self.changes.status is not None:
            if epic.is_inbox:
                raise self._not_now(epic, "the built-in epic of its project, which stays open")
            changes["reason"] = check_notes(self.reason or "", "reason")
        if not epic.is_open:
            raise self._not_now(epic, epic.status)
        return (EpicUpdated(epic_id=epic.epic_id, changes=changes),)

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The epic, and what a person made of it."""
        return {"epic_id": self.epic_id, "status": state.epics[self.epic_id].status}

    def follow(self, state: ProjectState, facts: ProjectFacts) -> tuple[FollowUp, ...]:
        """With an epic its open stories are cancelled, one by one."""
        if self.changes.status != "cancelled":
            return ()
        sent = Cancel(reason=self.reason or "")
        return tuple(
            FollowUp(story_id, "cancel-with-epic", sent)
            for story_id, story in facts.stories.items()
            if story is not None and story.epic_id == self.epic_id and not story.is_over
        )

    def _not_now(self, epic: Epic, is_now: str) -> InvalidTransition:
        return InvalidTransition(f"epic {epic.epic_id} is {is_now}", state=epic.status, event=self.command, allowed=[])


def _check_project(rules: ProjectRules, lifecycle: str | None, constraints: Mapping[str, Any] | None) -> None:
    if lifecycle is not None and lifecycle not in rules.lifecycles:
        allowed = sorted(rules.lifecycles)
        raise InvalidInput(f"there is no lifecycle {lifecycle!r}; allowed: {', '.join(allowed)}", allowed=allowed)
    try:
        digest_of_json(dict(constraints or {}))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"/constraints: {error}", field="constraints") from error


def _given(changes: ProjectChanges | EpicChanges) -> dict[str, Any]:
    given = changes.model_dump(mode="json", exclude_none=True)
    if not given:
        raise InvalidInput("name at least one field that shall be otherwise", field="changes")
    return given


def _epic(text: EpicText, state: ProjectState, facts: ProjectFacts) -> EpicCreated:
    return EpicCreated(
        epic_id=facts.new_id("ep"),
        project_id=state.project_id,
        title=text.title,
        description=text.description,
        author=facts.caller.principal,
        goal=text.goal,
        priority=text.priority,
    )


# Discovery.


class DiscoverRequest(Frozen):
    """A one-line goal."""

    goal: Annotated[str, Field(max_length=2000)]
    language: Annotated[str, Field(max_length=20)] = "en"
    is_empty: bool = False
    """There is no code yet, so that a scaffold comes first."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Model profile that may help."""


class AnswersRequest(Frozen):
    """Answers by question."""

    answers: Annotated[dict[str, Annotated[str, Field(max_length=300)]], Field(min_length=1, max_length=100)]


class ProposalAcceptRequest(Frozen):
    """The proposal is taken."""

    note: Annotated[str, Field(max_length=4000)] = ""


class Discover(DiscoverRequest, ProjectCommand):
    """A goal is recorded with the proposal of the rules; a model, where there is one, is asked for better."""

    command = "discover"

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The goal and its proposal; InvalidInput for a goal that names nothing to build."""
        facts.caller.require("po")
        require_open(state)
        proposal = discover(self.goal, language=self.language, is_empty=self.is_empty, config=facts.rules.coach)
        kept = Attachment(proposal.to_bytes())
        discovery_id = facts.new_id("di")
        requested = DiscoveryRequested(
            discovery_id=discovery_id,
            goal=proposal.goal,
            language=self.language,
            is_empty=self.is_empty,
            model=self.model,
            proposal_digest=kept.digest,
        )
        if facts.rules.has_model(self.model):
            return (kept, requested)
        note = "no model is configured"
        proposed = DiscoveryProposed(
            discovery_id=discovery_id, proposal_digest=kept.digest, source="template", note=note
        )
        return (kept, requested, proposed)

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The discovery."""
        return _told(state.discoveries[facts.new_id("di")])


class DiscoveryCommand(ProjectCommand):
    """A decision on a proposal."""

    discovery_id: str

    def made(self, state: ProjectState, facts: ProjectFacts) -> dict[str, Any]:
        """The discovery, and what became of it."""
        return _told(state.discoveries[self.discovery_id])

    def proposed(self, state: ProjectState) -> Discovery:
        """The discovery; NotFound, InvalidTransition for one that is no proposal, or none any more."""
        name = self.discovery_id[:80]
        discovery = state.discoveries.get(self.discovery_id)
        if discovery is None:
            raise NotFound(f"project {state.project_id} has no discovery {name!r}", discovery_id=name)
        if discovery.status != "proposed":
            raise InvalidTransition(
                f"discovery {name} is {discovery.status}: only a proposed one is decided on",
                state=discovery.status,
                event=self.command,
                allowed=[],
            )
        return discovery


class AnswerDiscovery(AnswersRequest, DiscoveryCommand):
    """Answers stand in the proposal in place of their placeholders."""

    command = "answer_discovery"
    sentences: ClassVar[Mapping[str, str]] = {"answers": "answers is a mapping of question ids to texts"}

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The proposal with the answers. InvalidInput for a question that is not open."""
        facts.caller.require("po")
        discovery = self.proposed(state)
        kept = Attachment(with_answers(_gathered(facts), self.answers).to_bytes())
        answered = DiscoveryAnswered(
            discovery_id=discovery.discovery_id,
            question_ids=tuple(EntityId(name) for name in sorted(self.answers)),
            proposal_digest=kept.digest,
        )
        return (kept, answered)


class AcceptDiscovery(ProposalAcceptRequest, DiscoveryCommand):
    """The proposal's epic stands, and its stories are named; they are created right after."""

    command = "accept_discovery"
    rigor: Rigor | None = None
    """Of the stories; that of the project by default."""

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The epic, and the ids of the stories. InvalidTransition for a project that is archived."""
        facts.caller.require("po")
        require_open(state)
        discovery, proposal = self.proposed(state), _gathered(facts)
        epic = EpicText(title=proposal.epic.title, description=proposal.epic.description, goal=proposal.epic.goal)
        accepted = DiscoveryAccepted(
            discovery_id=discovery.discovery_id,
            epic_id=facts.new_id("ep"),
            story_ids=tuple(StoryId(facts.new_id("st", n)) for n in range(len(proposal.stories))),
            proposal_digest=discovery.proposal_digest,
            note=self.note or None,
        )
        return (_epic(epic, state, facts), accepted)

    def follow(self, state: ProjectState, facts: ProjectFacts) -> tuple[FollowUp, ...]:
        """The creation of each story, in order; who accepted may ask for its outcome (AP-92)."""
        discovery, proposal = state.discoveries[self.discovery_id], _gathered(facts)
        common = {"project_id": state.project_id, "epic_id": discovery.epic_id, "language": proposal.language}
        common |= {"rigor": self.rigor or state.default_rigor, "lifecycle": state.default_lifecycle}
        creations: list[FollowUp] = []
        for story_id, story in zip(discovery.story_ids, proposal.stories, strict=True):
            needs = [discovery.story_ids[n] for n in story.depends_on]
            text = {
                "title": story.title,
                "description": story.description,
                "acceptance_criteria": list(story.acceptance_criteria),
                "tags": ["scaffold"] if story.is_scaffold else [],
                "constraints": {"after_stories": needs} if needs else {},
                **common,
            }
            creations.append(FollowUp(StoryId(story_id), "create", CreateStory(story=text)))
        return tuple(creations)


class RejectDiscovery(DiscoveryCommand):
    """The proposal is not taken."""

    command = "reject_discovery"
    reason: Reason

    def decide(self, state: ProjectState, facts: ProjectFacts) -> Outcome:
        """The end of the proposal."""
        facts.caller.require("po")
        return (DiscoveryRejected(discovery_id=self.proposed(state).discovery_id, reason=self.reason),)


def _gathered(facts: ProjectFacts) -> DiscoveryProposal:
    assert facts.proposal is not None, "the owner gathers the proposal of a discovery that there is"
    return facts.proposal


def _told(discovery: Discovery) -> dict[str, Any]:
    return {
        "discovery_id": discovery.discovery_id,
        "status": discovery.status,
        "epic_id": discovery.epic_id,
        "story_ids": list(discovery.story_ids),
    }
