"""What commands on a project record: projects, epics, discoveries (PL-1, PL-2, PL-4, PL-54)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.events.payload import Payload
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
from fleet.kernel.digest import canonical_json, digest_of_json
from fleet.kernel.errors import InvalidInput, InvalidTransition, NotFound
from fleet.kernel.ids import CommandId, Digest, EntityId, StoryId, StreamId, derive_id
from fleet.log.port import Command, EventLog
from fleet.planning.coach_config import CoachConfig
from fleet.planning.discovery import DiscoveryProposal, discover, with_answers
from fleet.planning.planning_config import CeremonyConfig
from fleet.planning.project_state import Discovery, Epic, ProjectState
from fleet.planning.project_text import EpicChanges, EpicText, ProjectChanges, ProjectText, read_text
from fleet.story.approvals import check_notes
from fleet.story.commands.command import Caller
from fleet.trees.port import BlobStore


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decisions on projects need beside the project itself."""

    coach: CoachConfig
    ceremony: CeremonyConfig
    log: EventLog
    blobs: BlobStore
    lifecycles: frozenset[str]
    has_model: Callable[[str | None], bool]
    """Whether a model may be asked, when a request names this profile or none."""
    assignable_roles: tuple[str, ...]
    """Roles that tasks may go to."""


Decide = Callable[[Deciding, ProjectState, Command, Caller], Awaitable[tuple[Payload, ...]]]


def require_open(state: ProjectState) -> None:
    """Returns when something may be added to the project (PL-1)."""
    if not state.exists:
        raise NotFound(f"there is no project {state.project_id}", project_id=state.project_id)
    if not state.is_open:
        raise InvalidTransition(
            f"project {state.project_id} is {state.status}", state=state.status, event="add", allowed=[]
        )


def read_reason(command: Command) -> str:
    """The reason of the command; InvalidInput for one that says too little."""
    return check_notes(str(command.body.get("reason") or ""), "reason")


def made_id(prefix: str, command: Command, ordinal: int = 0) -> EntityId:
    """The id of what the command makes, the same each time (GL-9)."""
    return derive_id(prefix, command.stream, command.command_id, ordinal)


# Projects and epics.


async def _create_project(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The project exists, with its built-in epic."""
    caller.require("po")
    if state.exists:
        raise InvalidTransition(
            f"project {state.project_id} exists already", state=state.status, event="create_project", allowed=[]
        )
    text = read_text(ProjectText, command.body.get("project"), what="the project")
    _check_project(at, text.default_lifecycle, text.constraints)
    created = ProjectCreated(
        project_id=state.project_id,
        title=text.title,
        description=text.description,
        author=caller.principal,
        repo=ProjectRepo(**text.repo.model_dump()) if text.repo else None,
        default_rigor=text.default_rigor,
        default_lifecycle=text.default_lifecycle,
        languages=text.languages,
        constraints=text.constraints,
    )
    inbox = EpicText(title="inbox", description="Stories that name no epic.")
    return (created, _epic(inbox, made_id("ep", command), state, caller))


def _check_project(at: Deciding, lifecycle: str | None, constraints: Mapping[str, Any] | None) -> None:
    if lifecycle is not None and lifecycle not in at.lifecycles:
        allowed = sorted(at.lifecycles)
        raise InvalidInput(f"there is no lifecycle {lifecycle!r}; allowed: {', '.join(allowed)}", allowed=allowed)
    try:
        digest_of_json(dict(constraints or {}))
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"/constraints: {error}", field="constraints") from error


async def _update_project(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Fields of the project have new values; an archived one may be opened again."""
    caller.require("po")
    if not state.exists:
        raise NotFound(f"there is no project {state.project_id}", project_id=state.project_id)
    text = read_text(ProjectChanges, command.body.get("changes"), what="the change")
    changes = text.model_dump(mode="json", exclude_none=True)
    _check_project(at, text.default_lifecycle, text.constraints)
    if not changes:
        raise InvalidInput("name at least one field that shall be otherwise", field="changes")
    return (ProjectUpdated(project_id=state.project_id, changes=changes),)


async def _create_epic(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The epic stands under its project."""
    caller.require("po")
    require_open(state)
    text = read_text(EpicText, command.body.get("epic"), what="the epic")
    return (_epic(text, made_id("ep", command), state, caller),)


def _epic(text: EpicText, epic_id: EntityId, state: ProjectState, caller: Caller) -> EpicCreated:
    return EpicCreated(
        epic_id=epic_id,
        project_id=state.project_id,
        title=text.title,
        description=text.description,
        author=caller.principal,
        goal=text.goal,
        priority=text.priority,
    )


async def _update_epic(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Fields of the epic have new values; cancelling it cancels its open stories, with the same reason (PL-4)."""
    caller.require("po")
    epic = _epic_of(state, str(command.body.get("epic_id") or ""))
    text = read_text(EpicChanges, command.body.get("changes"), what="the change")
    changes = text.model_dump(mode="json", exclude_none=True)
    if not changes:
        raise InvalidInput("name at least one field that shall be otherwise", field="changes")
    if "status" in changes:
        if epic.is_inbox:
            raise InvalidTransition(
                f"{epic.epic_id} is the built-in epic of its project, which stays open",
                state=epic.status,
                event="update_epic",
                allowed=[],
            )
        changes["reason"] = read_reason(command)
    if not epic.is_open:
        raise InvalidTransition(f"epic {epic.epic_id} is {epic.status}", state=epic.status, event="update", allowed=[])
    return (EpicUpdated(epic_id=epic.epic_id, changes=changes),)


def _epic_of(state: ProjectState, epic_id: str) -> Epic:
    epic = state.epics.get(epic_id)
    if epic is None:
        raise NotFound(f"project {state.project_id} has no epic {epic_id[:80]!r}", epic_id=epic_id[:80])
    return epic


# Discovery.


async def stored_proposal(blobs: BlobStore, proposal: DiscoveryProposal) -> Digest:
    """The digest under which the proposal is kept."""
    return await blobs.put(canonical_json(proposal.model_dump(mode="json")))


async def read_discovery(blobs: BlobStore, discovery: Discovery) -> DiscoveryProposal:
    """The proposal as it is now."""
    return DiscoveryProposal.model_validate(json.loads(await blobs.get(discovery.proposal_digest)))


async def _discover(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """A goal is on record with the proposal of the rules; a model is asked for a better one where there is one."""
    caller.require("po")
    require_open(state)
    body = command.body
    goal, language = str(body.get("goal") or ""), str(body.get("language") or "en")
    is_empty, model = bool(body.get("is_empty")), body.get("model")
    proposal = discover(goal, language=language, is_empty=is_empty, config=at.coach)
    has_model = at.has_model(None if model is None else str(model))
    digest = await stored_proposal(at.blobs, proposal)
    discovery_id = made_id("di", command)
    requested = DiscoveryRequested(
        discovery_id=discovery_id,
        goal=proposal.goal,
        language=language,
        is_empty=is_empty,
        model=None if model is None else str(model),
        proposal_digest=digest,
    )
    if has_model:
        return (requested,)
    note = "no model is configured"
    return (
        requested,
        DiscoveryProposed(discovery_id=discovery_id, proposal_digest=digest, source="template", note=note),
    )


def _proposed(state: ProjectState, command: Command, event: str) -> Discovery:
    discovery_id = str(command.body.get("discovery_id") or "")
    found = state.discoveries.get(discovery_id)
    if found is None:
        raise NotFound(
            f"project {state.project_id} has no discovery {discovery_id[:80]!r}", discovery_id=discovery_id[:80]
        )
    if found.status != "proposed":
        raise InvalidTransition(
            f"discovery {found.discovery_id} is {found.status}: only a proposed one is decided on",
            state=found.status,
            event=event,
            allowed=[],
        )
    return found


async def _answer(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """Answers stand in the proposal in place of their placeholders."""
    caller.require("po")
    found = _proposed(state, command, "answer_discovery")
    answers = command.body.get("answers")
    if not isinstance(answers, dict):
        raise InvalidInput("answers is a mapping of question ids to texts", field="answers")
    texts = {str(k): str(v) for k, v in answers.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    proposal = with_answers(await read_discovery(at.blobs, found), texts)
    return (
        DiscoveryAnswered(
            discovery_id=found.discovery_id,
            question_ids=tuple(EntityId(name) for name in sorted(texts)),
            proposal_digest=await stored_proposal(at.blobs, proposal),
        ),
    )


async def _accept(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The proposal's epic stands, and its stories are named; they are created right after."""
    caller.require("po")
    require_open(state)
    found = _proposed(state, command, "accept_discovery")
    proposal = await read_discovery(at.blobs, found)
    epic = EpicText(title=proposal.epic.title, description=proposal.epic.description, goal=proposal.epic.goal)
    epic_id, note = made_id("ep", command), str(command.body.get("note") or "").strip()
    accepted = DiscoveryAccepted(
        discovery_id=found.discovery_id,
        epic_id=epic_id,
        story_ids=tuple(StoryId(made_id("st", command, n)) for n in range(len(proposal.stories))),
        proposal_digest=found.proposal_digest,
        note=note or None,
    )
    return (_epic(epic, epic_id, state, caller), accepted)


async def _reject(at: Deciding, state: ProjectState, command: Command, caller: Caller) -> tuple[Payload, ...]:
    """The proposal is not taken."""
    caller.require("po")
    found = _proposed(state, command, "reject_discovery")
    return (DiscoveryRejected(discovery_id=found.discovery_id, reason=read_reason(command)),)


PROJECT_COMMANDS: Mapping[str, Decide] = {
    "create_project": _create_project,
    "update_project": _update_project,
    "create_epic": _create_epic,
    "update_epic": _update_epic,
    "discover": _discover,
    "answer_discovery": _answer,
    "accept_discovery": _accept,
    "reject_discovery": _reject,
}


def project_result(state: ProjectState, command: Command) -> dict[str, Any]:
    """What the command answers with: the project, and the ids of what the command made or was about."""
    result: dict[str, Any] = {"project_id": state.project_id, "version": state.version, "status": state.status}
    match command.name:
        case "create_epic":
            result["epic_id"] = made_id("ep", command)
        case "update_epic":
            result["epic_id"] = str(command.body.get("epic_id"))
        case "open_ceremony":
            result["ceremony_id"] = made_id("ce", command)
        case "discover":
            result["discovery_id"] = made_id("di", command)
        case "answer_discovery" | "accept_discovery" | "reject_discovery":
            result["discovery_id"] = str(command.body.get("discovery_id"))
        case _:
            pass
    if "ceremony_id" in command.body:
        result["ceremony_id"] = str(command.body["ceremony_id"])
    found = state.discoveries.get(result.get("discovery_id", ""))
    if found is not None:
        result |= {"status": found.status, "epic_id": found.epic_id, "story_ids": list(found.story_ids)}
    return result


async def follow_ups(at: Deciding, state: ProjectState, command: Command) -> tuple[Command, ...]:
    """Commands on stories that follow from one on their project; the same ones, however often it is asked for."""
    if command.name != "accept_discovery":
        return ()
    found = state.discoveries[str(command.body["discovery_id"])]
    proposal = await read_discovery(at.blobs, found)
    common = {"project_id": state.project_id, "epic_id": found.epic_id, "language": proposal.language}
    common |= {"rigor": str(command.body.get("rigor") or state.default_rigor), "lifecycle": state.default_lifecycle}
    commands: list[Command] = []
    for story_id, story in zip(found.story_ids, proposal.stories, strict=True):
        needs = [found.story_ids[n] for n in story.depends_on]
        text = {
            "title": story.title,
            "description": story.description,
            "acceptance_criteria": list(story.acceptance_criteria),
            "tags": ["scaffold"] if story.is_scaffold else [],
            "constraints": {"after_stories": needs} if needs else {},
            **common,
        }
        commands.append(_creation(command, StoryId(story_id), text))
    return tuple(commands)


def _creation(command: Command, story_id: StoryId, text: dict[str, Any]) -> Command:
    return Command(
        # Scoped by who accepted, so that the outcome of each can be asked for by that principal (AP-92).
        command_id=CommandId(f"{command.principal}/{story_id}/create"),
        stream=StreamId.of_story(story_id),
        name="create_story",
        principal=command.principal,
        body={"story": text},
        trace_id=command.trace_id,
    )
