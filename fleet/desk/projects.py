"""What people ask of projects, epics and discoveries; reads need no actor (AP-50, AP-51, AP-98)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.desk.planning import Pending, PlanningDesk, StoryLine, asked, result_of, settled
from fleet.events.project import CeremonyStoryDecided
from fleet.kernel.errors import NotFound, StoreUnavailable, StoryNotFound
from fleet.kernel.ids import CommandId, EntityId, Principal, StoryId, StreamId, derive_id
from fleet.log.port import Command, EventLog, Inbox
from fleet.planning.backlog_review import BacklogReview
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import DEFAULT_PROJECT, Ceremony, Discovery, Epic, ProjectState
from fleet.projects.documents import read_discovery, read_review
from fleet.projects.project_commands import ProjectCommand
from fleet.projects.project_owner import project_state
from fleet.redaction.redact_json import redact_json
from fleet.story.commands.plan_versions import takes_outline
from fleet.trees.port import BlobStore

_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class EpicLine:
    """One epic with the status that follows from its stories (PL-4)."""

    epic: Epic
    project_id: EntityId
    status: str
    stories: tuple[str, ...]


def epic_status(epic: Epic, stories: Sequence[StoryLine]) -> str:
    """What a person made of the epic, else what its stories say (PL-4)."""
    if not epic.is_open:
        return epic.status
    open_ones = [s for s in stories if s.disposition not in ("closed", "cancelled", "archived")]
    if not stories:
        return "active"
    if not open_ones:
        return "completed" if any(s.disposition == "closed" for s in stories) else "active"
    in_build = any(s.phase != "DESIGN" for s in stories)
    return "in_progress" if in_build else "planning"


class ProjectDesk:
    """Commands on projects go to a shard; reads come from the log."""

    def __init__(self, *, log: EventLog, inbox: Inbox, blobs: BlobStore, planning: PlanningDesk) -> None:
        self._log, self._inbox, self._blobs, self.planning = log, inbox, blobs, planning

    async def command(
        self,
        project_id: EntityId,
        sent: ProjectCommand,
        *,
        principal: Principal,
        key: str,
        timeout_s: float = 5.0,
        trace_id: str = "",
    ) -> dict[str, Any] | Pending:
        """As `PlanningDesk.command`, for the stream of a project (AP-4)."""
        command_id = CommandId(f"{principal}/{key}")
        command = Command(
            command_id=command_id,
            stream=StreamId(f"project:{project_id}"),
            name=sent.command,
            principal=principal,
            body=redact_json(sent.body()),
            trace_id=trace_id,
        )
        return await asked(self._inbox, command, timeout_s=timeout_s)

    async def require(
        self, project_id: EntityId, sent: ProjectCommand, *, principal: Principal, key: str
    ) -> dict[str, Any]:
        """As `command`, waiting up to a minute; StoreUnavailable when no shard answered."""
        answer = await self.command(project_id, sent, principal=principal, key=key, timeout_s=_PATIENCE_S)
        return settled(answer, sent.command)

    async def require_story(self, principal: Principal, story_id: StoryId, *, timeout_s: float = _PATIENCE_S) -> None:
        """The story that an accepted discovery named is there; raises what its creation was refused with."""
        command_id = CommandId(f"{principal}/{story_id}/create")
        answer = await self._inbox.answer(command_id, timeout_s=timeout_s)
        if answer is None:
            raise StoreUnavailable(f"story {story_id} is still to be created; its command stays queued")
        result_of(answer)

    async def project(self, project_id: str) -> ProjectState:
        """The project as recorded now; NotFound when there is none."""
        state = await project_state(self._log, EntityId(project_id))
        if not state.exists:
            raise NotFound(f"there is no project {project_id}", project_id=project_id)
        return state

    async def projects(self) -> list[ProjectState]:
        """Every project by id, the built-in one too."""
        ids = {s.entity for s in await self._log.streams() if s.startswith("project:")} | {str(DEFAULT_PROJECT)}
        states = [await project_state(self._log, name) for name in sorted(ids)]
        return [state for state in states if state.exists]

    async def epics(self, project_id: str) -> list[EpicLine]:
        """The epics of the project in the order of creation, with their stories."""
        state = await self.project(project_id)
        stories = [s for s in await self.planning.stories() if s.project_id == state.project_id]
        return [self._line(state, epic, stories) for epic in state.epics.values()]

    async def epic(self, epic_id: str) -> EpicLine:
        """The epic, in whichever project it stands; NotFound when there is none."""
        name = EntityId(epic_id)
        for state in await self.projects():
            epic = state.epics.get(name)
            if epic is not None:
                stories = [s for s in await self.planning.stories() if s.project_id == state.project_id]
                return self._line(state, epic, stories)
        raise NotFound(f"there is no epic {epic_id}", epic_id=epic_id)

    @staticmethod
    def _line(state: ProjectState, epic: Epic, stories: Sequence[StoryLine]) -> EpicLine:
        own = [s for s in stories if s.epic_id == epic.epic_id]
        return EpicLine(epic, state.project_id, epic_status(epic, own), tuple(s.story_id for s in own))

    async def discovery(self, project_id: str, discovery_id: str) -> tuple[Discovery, DiscoveryProposal]:
        """A goal and its proposal as it is now; NotFound when the project has no such discovery."""
        discovery = (await self.project(project_id)).discoveries.get(EntityId(discovery_id))
        if discovery is None:
            raise NotFound(f"project {project_id} has no discovery {discovery_id}", discovery_id=discovery_id)
        return discovery, await read_discovery(self._blobs, discovery)

    async def ceremony(self, ceremony_id: str) -> tuple[EntityId, Ceremony, dict[tuple[str, str], BacklogReview]]:
        """A backlog review, its project, and what each council said; NotFound when there is none."""
        name = EntityId(ceremony_id)
        for state in await self.projects():
            ceremony = state.ceremonies.get(name)
            if ceremony is not None:
                said = {unit: await read_review(self._blobs, event) for unit, event in ceremony.reviews.items()}
                shown = replace(ceremony, decisions={s: await self._decided(d) for s, d in ceremony.decisions.items()})
                return state.project_id, shown, {unit: r for unit, r in said.items() if r is not None}
        raise NotFound(f"there is no ceremony {ceremony_id}", ceremony_id=ceremony_id)

    async def _decided(self, decision: CeremonyStoryDecided) -> CeremonyStoryDecided:
        """The decision, without a plan that never came to be: the story may go on before the outline reaches it."""
        if decision.plan_id is None:
            return decision
        try:
            story = await self.planning.state(decision.story_id)
        except StoryNotFound:
            story = None
        if story is not None and (
            decision.plan_id in story.plans or takes_outline(story, self.planning.fsm_of(story).lifecycles)
        ):
            return decision
        return decision.model_copy(update={"plan_id": None})


def new_project_id(principal: Principal, key: str) -> EntityId:
    """The id of the project that this request creates, the same each time (GL-9)."""
    return derive_id("pr", "platform:main", f"{principal}/{key}")
