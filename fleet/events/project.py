"""Events of a project's stream: projects, epics, ceremonies, tombstones (EV-146..EV-149, EV-255)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import EventGroup, Json, Origin, PriorityValue, Rigor, RoleName, Version
from fleet.ids import Digest, EntityId, Principal, StoryId

__all__ = [
    "CeremonyCancelled",
    "CeremonyCompleted",
    "CeremonyOpened",
    "CeremonyStarted",
    "CeremonyStoryDecided",
    "CeremonyStoryReviewed",
    "EpicCreated",
    "EpicUpdated",
    "ProjectCreated",
    "ProjectRepo",
    "ProjectUpdated",
    "StoryTombstoned",
]


class ProjectRepo(Value):
    """The repository that the stories of a project work on."""

    provider: str
    url: str
    default_branch: str


class _ProjectEvent(Payload):
    group: ClassVar[EventGroup] = "plan"
    origin: ClassVar[Origin] = "planning"


class ProjectCreated(_ProjectEvent):
    """A project exists (PL-2)."""

    project_id: EntityId
    title: str
    description: str
    author: Principal
    status: Literal["active", "archived"] = "active"
    repo: ProjectRepo | None = None
    default_rigor: Rigor
    default_lifecycle: str
    languages: tuple[str, ...] = ()
    constraints: dict[str, Json] = {}


class ProjectUpdated(_ProjectEvent):
    """Fields of the project have new values."""

    project_id: EntityId
    changes: dict[str, Json]


class EpicCreated(_ProjectEvent):
    """An epic exists (PL-2)."""

    epic_id: EntityId
    project_id: EntityId
    title: str
    description: str
    author: Principal
    status: Literal["active", "planning", "in_progress", "completed", "archived", "cancelled"] = "active"
    goal: str
    priority: PriorityValue


class EpicUpdated(_ProjectEvent):
    """Fields of the epic have new values."""

    epic_id: EntityId
    changes: dict[str, Json]


class _CeremonyEvent(_ProjectEvent):
    ceremony_id: EntityId


class CeremonyOpened(_CeremonyEvent):
    """A backlog review is being prepared (PL-60)."""

    story_ids: tuple[StoryId, ...] = ()
    councils: tuple[RoleName, ...] = ()


class CeremonyStarted(_CeremonyEvent):
    """The councils review these stories (PL-62)."""

    story_ids: Annotated[tuple[StoryId, ...], Field(min_length=1, max_length=50)]
    councils: tuple[RoleName, ...] = ()


class CeremonyCompleted(_CeremonyEvent):
    """Every story is decided (PL-65)."""

    story_ids: tuple[StoryId, ...] = ()


class CeremonyCancelled(_CeremonyEvent):
    """The ceremony was given up (PL-66)."""

    reason: str


class CeremonyStoryReviewed(_CeremonyEvent):
    """One council reviewed one story, or says why it could not (PL-63, PL-67)."""

    origin = "council"
    story_id: StoryId
    role: RoleName
    review_unit: str
    review_digest: Digest
    council_id: EntityId | None = None
    failed: str | None = None


class CeremonyStoryDecided(_CeremonyEvent):
    """The po decided on one story: `po_notes` when approved, `reason` when rejected (PL-68)."""

    story_id: StoryId
    result: Literal["APPROVED", "REJECTED"]
    po_notes: str | None = None
    reason: str | None = None
    po_concerns: str | None = None
    priority_adjustment: Literal["HIGH", "MEDIUM", "LOW"] | None = None
    priority_reason: str | None = None
    plan_id: EntityId | None = None


class StoryTombstoned(_ProjectEvent):
    """The story's stream was exported and deleted; this is what proves where it ended (EV-25)."""

    group = "platform"
    origin = "owner"
    story_id: StoryId
    export_digest: Digest
    last_version: Version
    last_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
