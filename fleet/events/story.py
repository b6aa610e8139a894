"""Story and lifecycle events (EV-100..EV-115, and StoryStarted)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value, is_absent
from fleet.events.values import (
    Count,
    DecimalText,
    EventGroup,
    EventName,
    GateName,
    Json,
    Millis,
    Origin,
    ParkCause,
    PriorityValue,
    StateName,
)
from fleet.kernel.ids import Digest, EntityId, Principal
from fleet.kernel.types import QuestionKind, Rigor, RoleName


class AcceptanceCriterion(Value):
    """A numbered, testable statement of a story."""

    ac_id: EntityId
    text: Annotated[str, Field(min_length=1, max_length=2000)]


# Source: SC-2.
class Finding(Value):
    """Why points were lost: each lost point is explained by exactly one finding."""

    code: str
    dimension: str
    points_lost: Count
    field: str
    span: tuple[int, int] | None = None
    """Start and end in code points of the field's text."""
    matched: str = ""
    message: str
    suggestion: str = ""


# Source: LC-4.
class GuardResult(Value):
    """Value of one guard; `evidence` names the events that it was computed from."""

    name: EventName
    ok: bool
    message: str | None = None
    evidence: tuple[str, ...] = ()


class Topic(Value):
    """What a question, a breach or a blocker is about."""

    kind: Annotated[str, Field(min_length=1)]
    id: Annotated[str, Field(min_length=1)]


class RepoSource(Value):
    """Where the story's code comes from; `ref` None is the current branch."""

    provider: Literal["local", "git"]
    """`local`: a folder of the sandbox's node; `git`: an address on another machine."""
    url: Annotated[str, Field(min_length=1)]
    ref: str | None = None


# Source: LC-77.
class RunDelegation(Value):
    """A gate delegated for this run."""

    delegation_id: EntityId
    gate: GateName
    delegate: Principal
    granted_by: Principal
    max_rigor: Rigor
    valid_until: Millis
    reason: str
    council: RoleName | None = None
    """The gate is delegated to a council of this role; the delegate records what it decides."""


class _StoryEvent(Payload):
    group: ClassVar[EventGroup] = "story"
    origin: ClassVar[Origin] = "planning"


# Source: GL-23.
class StoryCreated(_StoryEvent):
    """A story exists. `config` holds the digest of every config file it starts with."""

    type = "StoryCreated"
    project_id: EntityId
    epic_id: EntityId
    title: Annotated[str, Field(max_length=200)]
    description: Annotated[str, Field(max_length=20_000)]
    acceptance_criteria: Annotated[tuple[AcceptanceCriterion, ...], Field(max_length=50)]
    constraints: dict[str, Json]
    tags: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=20)]
    rigor: Rigor
    lifecycle: str
    language: str
    priority: PriorityValue
    requester: Principal
    content_digest: Digest
    config: dict[str, Digest]
    environment: str | None = None
    """Where it is deployed (LC-46); None for a story that is not."""
    initial: Annotated[str | None, Field(exclude_if=is_absent)] = None
    """First state of its lifecycle; None is BACKLOG for `agile` and NEW for every other."""

    @property
    def first_state(self) -> str:
        """The state in which the story began."""
        return self.initial or ("BACKLOG" if self.lifecycle == "agile" else "NEW")


class StoryStarted(_StoryEvent):
    """Work on the story was asked for: on which code, with which model, toolchain and delegated gates."""

    type = "StoryStarted"
    repo: RepoSource
    model: str | None = None
    """Model profile that stands first in every chain that is not pinned (MB-2)."""
    toolchain: str
    delegations: tuple[RunDelegation, ...] = ()
    record: bool
    """Replies of models are kept for later replay."""
    evidence_rules: Annotated[Count | None, Field(exclude_if=is_absent)] = None
    """Version of the rules by which a criterion is shown; None is of before, when a finished task was enough."""
    fetches: Annotated[bool | None, Field(exclude_if=is_absent)] = None
    """False: no packages of the repository are fetched; None: those that its lockfile asks for."""


# Source: PL-5.
class StoryEdited(_StoryEvent):
    """Fields of the story have new values; its content digest changed."""

    type = "StoryEdited"
    changes: dict[str, Json]
    reason: str | None = None
    content_digest: Digest
    previous_content_digest: Digest


# Source: SC-1, SC-31.
class StoryScored(_StoryEvent):
    """The readiness of this content was scored."""

    type = "StoryScored"
    origin = "coach"
    content_digest: Digest
    score: DecimalText
    threshold: DecimalText
    dor_ok: bool
    findings: tuple[Finding, ...] = ()
    scorer_version: str


# Source: LC-8.
class StoryTransitioned(_StoryEvent):
    """The story is in state `to`; all guards were true."""

    type = "StoryTransitioned"
    from_: Annotated[StateName, Field(alias="from")]
    event: EventName
    to: StateName
    guards: tuple[GuardResult, ...] = ()
    loopback: bool = False
    skipped: tuple[StateName, ...] = ()
    """States that this story's lifecycle leaves out (LC-46)."""
    reason: str | None = None


# Source: LC-4.
class TransitionRefused(_StoryEvent):
    """A legal event was refused, because guards were false."""

    type = "TransitionRefused"
    state: StateName
    event: EventName
    guards: tuple[GuardResult, ...]
    principal: Principal


# Source: LC-96.
class RigorChanged(_StoryEvent):
    """The story is worked on at another rigor level from here on."""

    type = "RigorChanged"
    from_: Annotated[Rigor, Field(alias="from")]
    to: Rigor
    reason: str
    approval_id: EntityId | None = None


# Source: GL-23.
class ConfigMigrated(_StoryEvent):
    """The story follows another version of a config file than it began with, whose content is not to be had."""

    type = "ConfigMigrated"
    origin = "owner"
    other_origins = ("admin",)
    file: str
    from_digest: Digest
    to_digest: Digest
    by: Principal


# Source: LC-93, LC-94.
class StoryParked(_StoryEvent):
    """The story waits for a person; everything is kept."""

    type = "StoryParked"
    origin = "owner"
    cause: ParkCause
    code: str | None = None
    """Error code, where an error was the cause."""
    detail: str
    ref: str | None = None
    """Id of what to look at, e.g. a step or an approval."""


# Source: LC-95.
class StoryUnparked(_StoryEvent):
    """A person lets the story go on; no guard is skipped."""

    type = "StoryUnparked"
    origin = "owner"
    by: Principal
    note: str
    cause: ParkCause


class StoryCancelled(_StoryEvent):
    """The story was given up for good."""

    type = "StoryCancelled"
    reason: str


# Source: EV-25.
class StoryArchived(_StoryEvent):
    """The story's bytes were exported."""

    type = "StoryArchived"
    origin = "owner"
    export_digest: Digest
    reason: str | None = None


class StoryClosed(_StoryEvent):
    """The story reached a terminal state."""

    type = "StoryClosed"
    final_state: StateName
    report_id: EntityId | None = None


# Source: LC-98.
class CriterionWaived(_StoryEvent):
    """A person lets a criterion with this text pass although nothing shows it."""

    type = "CriterionWaived"
    origin = "approvals"
    ac_id: EntityId
    text: Annotated[str, Field(min_length=1, max_length=2000)]
    by: Principal
    as_role: RoleName
    reason: str


class QuestionRaised(_StoryEvent):
    """Somebody needs an answer; a blocking one closes gates until it comes."""

    type = "QuestionRaised"
    origin = "tasks"
    question_id: EntityId
    kind: QuestionKind
    text: str
    severity: Literal["normal", "blocking"]
    about: Topic
    asked_by: Principal


class QuestionAnswered(_StoryEvent):
    """The question has its answer."""

    type = "QuestionAnswered"
    origin = "tasks"
    question_id: EntityId
    answer: str
    answered_by: Principal


class MilestoneReached(_StoryEvent):
    """Something worth remembering happened; `ref` is the id of what it was."""

    type = "MilestoneReached"
    milestone_id: EntityId
    name: str
    ref: str


class _Pause(_StoryEvent):
    scope: Literal["task", "story"]
    task_id: EntityId | None = None
    by: Principal
    reason: str | None = None


# Source: PL-50.
class StoryPaused(_Pause):
    """No step of the scope starts from here on."""

    type = "StoryPaused"


class StoryResumed(_Pause):
    """Steps of the scope may start again."""

    type = "StoryResumed"
