"""Wire types of tools and runs. No request has a field for a consent (RT-32)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet.desk.tools.records import Invocation
from fleet.desk.tools.tasks import CopiedArtifact, TaskTicket
from fleet.kernel.ids import EntityId, StoryId
from fleet.policy.capabilities import Capability
from fleet.policy.rules.config import Policy
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.outcome import ToolOutcome
from fleet.sandbox.port import LogPage, SandboxHealth
from fleet.tools.port import SESSION_IDLE_S, ToolSession


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


# Source: RT-68.
class SessionRequest(_Wire):
    """Open a tool session."""

    story_id: StoryId
    role: Annotated[str, Field(min_length=1, max_length=60)]
    """One that the caller holds."""
    task_id: EntityId | None = None
    """Operations that write need a task that the caller has claimed."""
    read_only: bool = False


class SessionView(_Wire):
    """A tool session."""

    session_id: str
    story_id: str
    task_id: str | None
    role: str
    phase: str
    epoch: int
    read_only: bool
    idle_s: int = SESSION_IDLE_S
    tools: tuple[str, ...]
    """Operations that it was told about; each call is decided anew."""


# Source: RT-20.
class ToolView(_Wire):
    """One declared operation."""

    name: str
    tool: str
    op: str
    args: dict[str, Any]
    """Name -> type and limits."""
    access: str
    scope: str
    side_effects: str
    effect: str
    risk: str
    approval: str
    approver_role: str
    timeout_s: int
    output_limit_kb: int


# Source: AP-93.
class ToolList(_Wire):
    """Operations, and the digest of the policy that declares them."""

    policy_digest: str
    items: tuple[ToolView, ...]


class InvocationView(_Wire):
    """A tool call and where it is."""

    invocation_id: str
    story_id: str
    status: Literal["queued", "running", "finished", "unknown"]
    """`unknown`: nobody knows whether it happened; a person has to say."""
    outcome: ToolOutcome | None = None
    problem: dict[str, Any] | None = None
    """Code, message and details of a call that could not be carried out."""


# Source: RC-20.
class TicketView(_Wire):
    """A run that was asked for."""

    task_id: Annotated[str, Field(alias="taskId")]
    status: str


# Source: RC-24.
class CancelRequest(_Wire):
    """End a run."""

    reason: Annotated[str, Field(max_length=2000)] = ""


# Source: RC-23.
class CopyRequest(_Wire):
    """Where declared outputs are; all of them when none is named."""

    paths: Annotated[tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...], Field(max_length=64)] = ()


class ArtifactView(_Wire):
    """One declared output."""

    path: str
    ref: str | None
    size_bytes: Annotated[int, Field(alias="sizeBytes")] = 0
    truncated: bool = False
    missing: bool = False


class ArtifactList(_Wire):
    """Declared outputs."""

    items: tuple[ArtifactView, ...]


# Source: RC-22.
class LogLineView(_Wire):
    """One line of a run."""

    n: int
    ts: str
    """RFC 3339, UTC."""
    stream: str
    level: str
    line: str


# Source: AP-82.
class JobLine(_Wire):
    """One line of a run, in the short form."""

    ts: str
    line: str
    level: str


class LogList(_Wire):
    """Lines in their order."""

    items: tuple[LogLineView, ...]
    next_line: int
    """`fromLine` of the page behind this one."""
    is_over: bool
    """The run ended, and these are its last lines."""


class HealthView(_Wire):
    """What the sandbox enforces (RC-25)."""

    status: str
    runtime: str
    backends: tuple[str, ...]
    active_tasks: int
    total_tasks: int
    capacity: int
    enforced: tuple[str, ...]
    unmet: tuple[str, ...]
    mend: tuple[str, ...]


def session_view(session: ToolSession) -> SessionView:
    """The wire form of a session."""
    return SessionView(
        session_id=session.session_id,
        story_id=session.story_id,
        task_id=session.task_id,
        role=session.role,
        phase=session.phase,
        epoch=session.epoch,
        read_only=session.is_read_only,
        tools=session.offered,
    )


def tool_list(policy: Policy, capabilities: tuple[Capability, ...]) -> ToolList:
    """The wire form of declared operations."""
    return ToolList(policy_digest=policy.digest, items=tuple(map(_tool, capabilities)))


def _tool(capability: Capability) -> ToolView:
    declared = capability.declared
    return ToolView(
        name=capability.name,
        tool=capability.tool,
        op=capability.op,
        args={name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in capability.args.items()},
        access=declared.access,
        scope=declared.scope,
        side_effects=declared.side_effects,
        effect=declared.effect,
        risk=declared.risk,
        approval=declared.approval,
        approver_role=capability.approver_role,
        timeout_s=declared.timeout_s,
        output_limit_kb=declared.output_limit_kb,
    )


def invocation_view(invocation: Invocation) -> InvocationView:
    """The wire form of a call."""
    return InvocationView(
        invocation_id=invocation.invocation_id,
        story_id=invocation.story_id,
        status=invocation.status,
        outcome=invocation.outcome,
        problem=invocation.error.to_wire() if invocation.error else None,
    )


def ticket_view(ticket: TaskTicket) -> TicketView:
    """The wire form of a ticket."""
    return TicketView(task_id=ticket.task_id, status=ticket.status)


def artifact_list(artifacts: tuple[CopiedArtifact, ...]) -> ArtifactList:
    """The wire form of outputs."""
    return ArtifactList(
        items=tuple(
            ArtifactView(path=a.path, ref=a.ref, size_bytes=a.size_bytes, truncated=a.truncated, missing=a.missing)
            for a in artifacts
        )
    )


def line_view(line: LogLine) -> LogLineView:
    """The wire form of a line."""
    moment = datetime.fromtimestamp(line.ts_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return LogLineView(n=line.n, ts=moment.replace("+00:00", "Z"), stream=line.stream, level=line.level, line=line.line)


def log_list(page: LogPage, *, after: int) -> LogList:
    """The wire form of a page of lines that begins behind line `after`."""
    last = page.lines[-1].n if page.lines else after
    return LogList(items=tuple(map(line_view, page.lines)), next_line=last + 1, is_over=page.is_over)


def health_view(health: SandboxHealth) -> HealthView:
    """The wire form of a sandbox's health."""
    return HealthView(
        status=health.status,
        runtime=health.backend,
        backends=(health.backend,),
        active_tasks=health.active,
        total_tasks=health.total,
        capacity=health.capacity,
        enforced=tuple(f"{name}: {how}" for name, how in health.enforced.items()),
        unmet=health.unmet,
        mend=health.mend,
    )
