"""Plan events (EV-130..EV-134, EV-142, EV-143), and the task as plans hold it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from fleet.events.payload import Payload, Value
from fleet.events.story import Topic
from fleet.events.values import Count, EventGroup, Millis, Origin, PriorityValue, TaskState
from fleet.kernel.ids import Digest, EntityId, Principal, StoryId
from fleet.kernel.types import Complexity, Risk, RoleName, TaskKind

PlanVersion = Annotated[int, Field(ge=1)]


# Source: PL-2.
class Task(Value):
    """One task of a plan."""

    task_id: EntityId
    story_id: StoryId
    plan_id: EntityId
    title: str
    description: str
    role: RoleName
    kind: TaskKind
    estimated_hours: Count
    points: Count | None = None
    priority: PriorityValue
    keywords: tuple[str, ...] = ()
    depends_on: tuple[EntityId, ...] = ()
    acceptance_refs: tuple[EntityId, ...] = ()
    """Acceptance criteria or decisions that the task serves (PL-13)."""
    paths: tuple[str, ...] = ()
    """Repository-relative globs that the task may change; none counts as all (PL-41)."""
    risk: Risk
    suggested_tech: tuple[str, ...] = ()
    notes: str = ""
    author: Principal | None = None


# Source: PL-22.
class Dependency(Value):
    """Task `from` needs task `to` to be done first; `inferred` when no one declared it."""

    from_: Annotated[EntityId, Field(alias="from")]
    to: EntityId
    inferred: bool = False


class TaskDecision(Value):
    """Who decided on one task of the plan, and why."""

    task_index: Count
    task_description: str
    decided_by: Principal
    decision_reason: str
    council_feedback: str | None = None
    decided_at: Millis


# Source: PL-21, PL-20.
class PlanProblem(Value):
    """One thing wrong with a derived plan; `code` names the bound that it passes."""

    code: str
    message: str
    task_index: Count | None = None
    attempt: Count | None = None


class Blocker(Value):
    """A task that cannot go on, and what it waits for."""

    task_id: EntityId
    waits_for: Topic
    reason: str


class _PlanEvent(Payload):
    group: ClassVar[EventGroup] = "plan"
    origin: ClassVar[Origin] = "planning"
    plan_id: EntityId


# Source: PL-24.
class TaskDerivationRequested(_PlanEvent):
    """A planner is asked for the tasks of this content."""

    type = "TaskDerivationRequested"
    content_digest: Digest
    attempt: Count


# Source: PL-23.
class TaskDerivationFailed(_PlanEvent):
    """No attempt gave a valid plan; a person has to write one."""

    type = "TaskDerivationFailed"
    attempts: Count
    problems: tuple[PlanProblem, ...]
    requires_manual_review: bool


# Source: PL-12.
class PlanProposed(_PlanEvent):
    """A plan version exists; it is immutable."""

    type = "PlanProposed"
    version: PlanVersion
    previous_plan_id: EntityId | None = None
    author: Principal
    rationale: str
    tasks: tuple[Task, ...]
    dependencies: tuple[Dependency, ...] = ()
    estimated_complexity: Complexity
    task_decisions: tuple[TaskDecision, ...] = ()
    content_digest: Digest
    plan_digest: Digest


# Source: PL-10, PL-11.
class PlanAdopted(_PlanEvent):
    """The story follows this plan; an earlier one is superseded."""

    type = "PlanAdopted"
    version: PlanVersion
    decision_id: EntityId
    supersedes: EntityId | None = None


class PlanRejected(_PlanEvent):
    """The proposed plan will not be followed."""

    type = "PlanRejected"
    by: Principal
    reason: str


# Source: PL-45.
class PlanStalled(_PlanEvent):
    """Nothing runs and nothing is ready, but tasks are left."""

    type = "PlanStalled"
    blockers: tuple[Blocker, ...]


# Source: PL-47.
class CheckpointSaved(_PlanEvent):
    """The story tree can be restored to this point."""

    type = "CheckpointSaved"
    checkpoint_id: EntityId
    tree_digest: Digest
    task_states: dict[EntityId, TaskState]
    note: str
