"""TaskSpec and TaskResult: the form in which the outside asks for a run and is told how it ended (RC-1..RC-19)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import EffectClass
from fleet.policy.runs.spec import RunReason, RunStatus, ServiceReady

DEFAULT_COMMAND = ("agent-task",)
"""The shim, which every image has."""

_Size = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,6}(Ki|Mi|Gi)$")]
_Argument = Annotated[str, Field(min_length=1, max_length=131_072)]
_Absolute = Annotated[str, Field(pattern=r"^/[^\x00]{0,4095}$")]


class _Wire(BaseModel):
    """Names as in the contract on the wire, this language's inside; an unknown field is refused (GL-7)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


# Source: RC-4.
class TaskMount(_Wire):
    """What is seen beside the workspace."""

    type: Literal["bind", "tmpfs", "blob"]
    source: Annotated[str, Field(max_length=4096)] = ""
    """`blob`: a digest; `bind`: a folder below the workspace root; `tmpfs`: nothing."""
    target: _Absolute
    read_only: Annotated[bool, Field(alias="readOnly")] = True


# Source: RC-5.
class TaskTimeouts(_Wire):
    """Seconds."""

    overall_s: Annotated[int, Field(alias="overallSec", ge=1, le=14_400)] = 2_400
    idle_s: Annotated[int, Field(alias="idleSec", ge=1, le=14_400)] = 600
    """Without any output."""
    grace_s: Annotated[int, Field(alias="graceSec", ge=0, le=300)] = 10
    """Between SIGTERM and SIGKILL of a cancelled run."""


# Source: RC-6.
class TaskResources(_Wire):
    """What the run may use. One that is not named is the smaller of its default and the cap."""

    cpu: Annotated[str, Field(pattern=r"^[0-9]{1,2}(\.[0-9]{1,3})?$")] = "2"
    memory: _Size = "4Gi"
    pids: Annotated[int, Field(ge=1, le=4096)] = 512
    disk: _Size = "10Gi"
    gpu: Annotated[int, Field(ge=0, le=0)] = 0
    """No backend hands out GPUs yet."""


# Source: RC-7.
class TaskNetwork(_Wire):
    """What the run may reach."""

    mode: Literal["none", "allow"] = "none"
    hosts: Annotated[tuple[Annotated[str, Field(max_length=255)], ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _names_hosts(self) -> TaskNetwork:
        if (self.mode == "allow") != bool(self.hosts):
            raise ValueError("mode allow needs hosts, and mode none has none")
        return self


# Source: RC-8.
class TaskArtifacts(_Wire):
    """Files and folders that are kept, as absolute paths below /workspace."""

    paths: Annotated[tuple[_Absolute, ...], Field(max_length=64)] = ()


# Source: RC-9.
class TaskInput(_Wire):
    """The files that the run starts from."""

    tree: Annotated[Digest | None, Field(alias="treeDigest")] = None
    patch: Annotated[Digest | None, Field(alias="patchDigest")] = None


# Source: RC-10.
class TaskContext(_Wire):
    """For which story and task the run is, and in which role."""

    story_id: Annotated[
        StoryId, Field(validation_alias=AliasChoices("case_id", "story_id"), serialization_alias="case_id")
    ]
    task_id: EntityId | None = None
    role: Annotated[str, Field(max_length=60)]
    scope: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    hydration_refs: Annotated[tuple[dict[Literal["redis_key", "neo4j_query"], str], ...], Field(max_length=64)] = ()


# Source: RC-101.
class TaskService(_Wire):
    """A program beside the command."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    version: Annotated[str, Field(max_length=32)] | None = None
    env_prefix: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,31}$")]
    argv: Annotated[tuple[_Argument, ...], Field(max_length=64)] = ()
    ready: ServiceReady | None = None


class TaskSpec(_Wire):
    """One run as the outside asks for it."""

    image: Annotated[str, Field(min_length=1, max_length=255)]
    """Allow-listed name of a toolchain or image."""
    cmd: Annotated[tuple[_Argument, ...], Field(min_length=1, max_length=64)] = DEFAULT_COMMAND
    env: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")], Annotated[str, Field(max_length=8192)]],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    mounts: Annotated[tuple[TaskMount, ...], Field(max_length=64)] = ()
    timeouts: TaskTimeouts = TaskTimeouts()
    resources: TaskResources = TaskResources()
    network: TaskNetwork = TaskNetwork()
    artifacts: TaskArtifacts = TaskArtifacts()
    input: TaskInput = TaskInput()
    context: TaskContext
    services: Annotated[tuple[TaskService, ...], Field(max_length=4)] = ()
    effect: EffectClass | None = None
    """Set by the fleet; a value that differs is refused (RC-11)."""
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class CapturedArtifact(_Wire):
    """One declared output."""

    path: str
    ref: Digest | None
    """None when the run left none, or it is over the cap."""
    size_bytes: Annotated[int, Field(alias="sizeBytes")] = 0
    truncated: bool = False


class TaskCaptured(_Wire):
    """What was kept of a run."""

    logs_ref: Annotated[Digest | None, Field(alias="logsRef")] = None
    """The log as NDJSON."""
    artifacts: tuple[CapturedArtifact, ...] = ()
    truncated: bool = False


class TaskMetadata(_Wire):
    """What is known about a run beside its end."""

    run_id: Annotated[EntityId, Field(alias="runId")]
    story_id: Annotated[StoryId, Field(alias="case_id")]
    task_id: EntityId | None = None
    image_digest: Annotated[Digest | None, Field(alias="imageDigest")] = None
    started_at: Annotated[str | None, Field(alias="startedAt")] = None
    """RFC 3339, UTC."""
    finished_at: Annotated[str | None, Field(alias="finishedAt")] = None
    duration: int = 0
    """Whole seconds, rounded up."""
    key: str | None = None
    tree_in: Annotated[Digest | None, Field(alias="treeIn")] = None
    tree_out: Annotated[Digest | None, Field(alias="treeOut")] = None
    backend: str = ""
    limits: dict[str, Any] = Field(default_factory=dict)
    """Limit -> what enforced it; `unmet` lists what was waived."""
    usage: dict[str, int] = Field(default_factory=dict)


class TaskResult(_Wire):
    """How a run ended, or where it is."""

    status: RunStatus
    exit_code: Annotated[int | None, Field(alias="exitCode")] = None
    """The real one; 128 + signal number when killed; None when no process was started."""
    reason: RunReason | None = None
    """None while the status is not final."""
    problem: dict[str, Any] | None = None
    """Code, message and details of a run that ended without a result."""
    captured: TaskCaptured = TaskCaptured()
    metadata: TaskMetadata
