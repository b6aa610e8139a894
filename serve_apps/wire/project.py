"""Wire types of projects, epics and discoveries (AP-50, AP-51, PL-54)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from fleet.desk.projects import EpicLine
from fleet.planning.discovery import DiscoveryProposal
from fleet.planning.project_state import Discovery, ProjectState
from fleet.planning.project_text import EpicChanges
from serve_apps.wire.story import Wire
from serve_apps.wire.times import at


# Source: PL-2.
class ProjectView(Wire):
    """One project."""

    project_id: str
    version: int
    title: str
    description: str
    status: str
    author: str
    repo: dict[str, Any] | None
    default_rigor: str
    default_lifecycle: str
    languages: tuple[str, ...]
    constraints: dict[str, Any]
    inbox: str | None
    """Its built-in epic."""
    epics: int
    created_at: str | None


class ProjectList(Wire):
    """Projects by id."""

    items: tuple[ProjectView, ...]
    next_cursor: str | None = None


def project_view(state: ProjectState) -> ProjectView:
    """The wire form of a project."""
    return ProjectView(
        project_id=state.project_id,
        version=state.version,
        title=state.title,
        description=state.description,
        status=state.status,
        author=state.author,
        repo=dict(state.repo) if state.repo else None,
        default_rigor=state.default_rigor,
        default_lifecycle=state.default_lifecycle,
        languages=state.languages,
        constraints=dict(state.constraints),
        inbox=state.inbox,
        epics=len(state.epics),
        created_at=at(state.created_ms) if state.created_ms else None,
    )


# Source: PL-4.
class EpicView(Wire):
    """One epic, with the status that follows from its stories."""

    epic_id: str
    project_id: str
    title: str
    description: str
    goal: str
    priority: int
    status: str
    author: str
    is_inbox: bool
    stories: tuple[str, ...]
    created_at: str | None


class EpicList(Wire):
    """Epics in the order of creation."""

    items: tuple[EpicView, ...]


class EpicPatch(EpicChanges):
    """What shall be otherwise; archiving and cancelling need a reason."""

    reason: Annotated[str, Field(max_length=4000)] = ""


def epic_view(line: EpicLine) -> EpicView:
    """The wire form of an epic."""
    epic = line.epic
    return EpicView(
        epic_id=epic.epic_id,
        project_id=line.project_id,
        title=epic.title,
        description=epic.description,
        goal=epic.goal,
        priority=epic.priority,
        status=line.status,
        author=epic.author,
        is_inbox=epic.is_inbox,
        stories=line.stories,
        created_at=at(epic.created_ms) if epic.created_ms else None,
    )


class ProposalRejectRequest(Wire):
    """Why."""

    reason: Annotated[str, Field(max_length=4000)]


class DiscoveryView(Wire):
    """A goal, what was proposed for it, and what came of that."""

    discovery_id: str
    project_id: str
    goal: str
    status: str
    """requested, proposed, accepted or rejected."""
    source: str
    note: str | None
    """Why the rules' proposal stands where a model was asked."""
    reason: str | None
    requested_by: str
    requested_at: str
    proposal: DiscoveryProposal
    epic_id: str | None
    story_ids: tuple[str, ...]


class DiscoveryList(Wire):
    """Discoveries of a project in the order of asking."""

    items: tuple[DiscoveryView, ...]


def discovery_view(project_id: str, discovery: Discovery, proposal: DiscoveryProposal) -> DiscoveryView:
    """The wire form of a discovery."""
    return DiscoveryView(
        discovery_id=discovery.discovery_id,
        project_id=project_id,
        goal=discovery.goal,
        status=discovery.status,
        source=discovery.source,
        note=discovery.note,
        reason=discovery.reason,
        requested_by=discovery.requested_by,
        requested_at=at(discovery.requested_ms),
        proposal=proposal,
        epic_id=discovery.epic_id,
        story_ids=discovery.story_ids,
    )
