"""Task events (EV-135..EV-141, EV-144, EV-145), and the request for a restoration (PL-47)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value, is_absent
from fleet.events.plan import Task
from fleet.events.story import Topic
from fleet.events.values import ActorType, Count, DecimalText, EventGroup, Json, Millis, Origin, TaskAction, TaskState
from fleet.kernel.ids import Digest, EntityId, Principal, StepId
from fleet.kernel.types import ChangeKind, CommitId, RoleName


class FileChange(Value):
    """What a merge did to one path of the story tree."""

    path: Annotated[str, Field(min_length=1)]
    change: ChangeKind


class _TaskEvent(Payload):
    group: ClassVar[EventGroup] = "task"
    origin: ClassVar[Origin] = "tasks"


class TaskAdded(_TaskEvent):
    """The story has this task."""

    type = "TaskAdded"
    origin = "planning"
    plan_id: EntityId
    task: Task


class TaskUpdated(_TaskEvent):
    """Fields of the task have new values."""

    type = "TaskUpdated"
    origin = "planning"
    task_id: EntityId
    changes: dict[str, Json]


# Source: LC-121.
class TaskTransitioned(_TaskEvent):
    """The task is in state `to`."""

    type = "TaskTransitioned"
    task_id: EntityId
    from_: Annotated[TaskState, Field(alias="from")]
    action: TaskAction
    to: TaskState
    actor_type: ActorType
    principal: Principal
    as_role: RoleName
    feedback: str | None = None
    evidence: tuple[str, ...] = ()
    skipped_by_config: bool | None = None
    """True when the system passed a review that this kind of task does not need (LC-119)."""


# Source: LC-130.
class TaskClaimed(_TaskEvent):
    """One principal alone may work on, or review, the task until `expires_at`."""

    type = "TaskClaimed"
    task_id: EntityId
    state: TaskState
    principal: Principal
    expires_at: Millis


class TaskClaimReleased(_TaskEvent):
    """The claim is gone."""

    type = "TaskClaimReleased"
    task_id: EntityId
    principal: Principal
    reason: Literal["released", "expired", "finished"]


# Source: PL-81, PL-82.
class TaskEstimated(_TaskEvent):
    """The task has an estimate; `converged` false is listed for the po."""

    type = "TaskEstimated"
    origin = "council"
    task_id: EntityId
    points: Count
    hours: Count | None = None
    method: Literal["delphi", "planner"]
    median: Count
    iqr: DecimalText
    rounds: Count
    converged: bool
    values: tuple[Count, ...] = ()
    """Anonymous values of the last round."""
    council_id: EntityId | None = None


# Source: LC-131.
class SlaBreached(_TaskEvent):
    """A time limit passed; nothing is decided by that."""

    type = "SlaBreached"
    subject: Topic
    state: str
    limit_s: Count
    elapsed_s: Count
    notified: tuple[Principal, ...] = ()


# Source: RC-36.
class TreeMerged(_TaskEvent):
    """The story tree is `result_digest`; without a task it is the pinned base or a restored checkpoint."""

    type = "TreeMerged"
    task_id: EntityId | None = None
    base_digest: Digest
    task_tree_digest: Digest | None = None
    result_digest: Digest
    commit: CommitId
    files: tuple[FileChange, ...] = ()
    restored_from: EntityId | None = None
    step_id: StepId | None = None
    """The run that made the commit; histories from before do not name it."""
    toolchain: Annotated[str | None, Field(exclude_if=is_absent)] = None
    """Of the base: the programs with the packages that its lockfile asks for, where any were fetched."""


# Source: PL-47.
class RestoreRequested(_TaskEvent):
    """A person wants the story tree as the checkpoint has it; the story does that before anything else."""

    type = "RestoreRequested"
    origin = "planning"
    checkpoint_id: EntityId
    tree_digest: Digest
    by: Principal
    reason: str


# Source: PL-42.
class MergeConflicted(_TaskEvent):
    """The task's tree does not fit the story tree, or the merge failed its run."""

    type = "MergeConflicted"
    task_id: EntityId
    base_digest: Digest
    paths: tuple[str, ...]
    run_id: EntityId | None = None
    output_digest: Digest | None = None
