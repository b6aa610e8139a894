"""Events of a project's stream: projects, epics, ceremonies, tombstones (EV-146..EV-149, EV-255)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.values import EventGroup, Json, Origin, PriorityValue, Version
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.kernel.types import PriorityChange, Rigor, RoleName


class ProjectRepo(Value):
    """The repository that the stories of a project work on."""

    provider: str
    url: str
    default_branch: str


class _ProjectEvent(Payload):
    group: ClassVar[EventGroup] = "plan"
    origin: ClassVar[Origin] = "planning"


# Source: PL-2.
class ProjectCreated(_ProjectEvent):
    """A project exists."""

    type = "ProjectCreated"
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

    type = "ProjectUpdated"
    project_id: EntityId
    changes: dict[str, Json]


# Source: PL-2.
class EpicCreated(_ProjectEvent):
    """An epic exists."""

    type = "EpicCreated"
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

    type = "EpicUpdated"
    epic_id: EntityId
    changes: dict[str, Json]


class _CeremonyEvent(_ProjectEvent):
    ceremony_id: EntityId


# Source: PL-60.
class CeremonyOpened(_CeremonyEvent):
    """A backlog review is being prepared."""

    type = "CeremonyOpened"
    story_ids: tuple[StoryId, ...] = ()
    councils: tuple[RoleName, ...] = ()


# Source: PL-62.
class CeremonyStarted(_CeremonyEvent):
    """The councils review these stories."""

    type = "CeremonyStarted"
    story_ids: Annotated[tuple[StoryId, ...], Field(min_length=1, max_length=50)]
    councils: tuple[RoleName, ...] = ()


# Source: PL-65.
class CeremonyCompleted(_CeremonyEvent):
    """Every story is decided."""

    type = "CeremonyCompleted"
    story_ids: tuple[StoryId, ...] = ()


# Source: PL-66.
class CeremonyCancelled(_CeremonyEvent):
    """The ceremony was given up."""

    type = "CeremonyCancelled"
    reason: str


# Source: PL-63, PL-67.
class CeremonyStoryReviewed(_CeremonyEvent):
    """One council reviewed one story, or says why it could not."""

    type = "CeremonyStoryReviewed"
    origin = "council"
    story_id: StoryId
    role: RoleName
    review_unit: str
    review_digest: Digest
    council_id: EntityId | None = None
    failed: str | None = None


# Source: PL-80..PL-83.
class CeremonyStoryEstimated(_CeremonyEvent):
    """What the councils think that the story takes, in points; none where too few of them said so."""

    type = "CeremonyStoryEstimated"
    origin = "council"
    story_id: StoryId
    points: Annotated[int, Field(ge=1)] | None = None
    iqr: int = 0
    rounds: Annotated[int, Field(ge=1)]
    converged: bool = False
    values: tuple[int, ...] = ()
    """Of the last round, rising, without names."""


# Source: PL-68.
class CeremonyStoryDecided(_CeremonyEvent):
    """The po decided on one story: `po_notes` when approved, `reason` when rejected."""

    type = "CeremonyStoryDecided"
    story_id: StoryId
    result: Literal["APPROVED", "REJECTED"]
    po_notes: str | None = None
    reason: str | None = None
    po_concerns: str | None = None
    priority_adjustment: PriorityChange | None = None
    priority_reason: str | None = None
    plan_id: EntityId | None = None


class _DiscoveryEvent(_ProjectEvent):
    discovery_id: EntityId


# Source: PL-54.
class DiscoveryRequested(_DiscoveryEvent):
    """A goal is to become stories; the proposal of the rules alone is stored already."""

    type = "DiscoveryRequested"
    goal: str
    language: str
    is_empty: bool
    model: str | None = None
    proposal_digest: Digest


# Source: PL-54.
class DiscoveryProposed(_DiscoveryEvent):
    """There is a proposal to decide on. `note` says why it is that of the rules where a model was asked."""

    type = "DiscoveryProposed"
    proposal_digest: Digest
    source: Literal["template", "model"]
    note: str | None = None
    engine: str | None = None
    prompt_digest: Digest | None = None
    reply_digest: Digest | None = None
    tokens_in: int = 0
    tokens_out: int = 0


class DiscoveryAnswered(_DiscoveryEvent):
    """Questions of the proposal have their answers, which are in its text now."""

    type = "DiscoveryAnswered"
    question_ids: tuple[EntityId, ...]
    proposal_digest: Digest


class DiscoveryAccepted(_DiscoveryEvent):
    """The po took the proposal: its epic stands, and its stories are created under these ids, in this order."""

    type = "DiscoveryAccepted"
    epic_id: EntityId
    story_ids: Annotated[tuple[StoryId, ...], Field(min_length=1, max_length=12)]
    proposal_digest: Digest
    note: str | None = None


class DiscoveryRejected(_DiscoveryEvent):
    """The po did not take the proposal."""

    type = "DiscoveryRejected"
    reason: str


# Source: EV-25.
class StoryTombstoned(_ProjectEvent):
    """The story's stream was exported and deleted; this is what proves where it ended."""

    type = "StoryTombstoned"
    group = "platform"
    origin = "owner"
    story_id: StoryId
    export_digest: Digest
    last_version: Version
    last_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
