"""Wire types of councils over all stories: the request, lists, what was opened, pools (AP-77..AP-79)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fleet.desk.councils import CouncilLine, CouncilStatus, PoolLine
from fleet.kernel.errors import InvalidInput
from fleet.projects.platform_commands import SetCouncilPool
from serve_apps.wire.story import RedactionView, Wire
from serve_apps.wire.times import at


class CouncilAccepted(Wire):
    """A council that is open; `pending` while the owner of its story has not taken the command yet."""

    council_id: str
    story_id: str
    status: Literal["pending", "accepted"]
    status_url: str
    """Where it can be read; of a pending one, where the outcome of the command can be asked for."""
    redactions: tuple[RedactionView, ...] = ()


class CouncilLineView(Wire):
    """One council in a list."""

    council_id: str
    story_id: str
    project_id: str
    task_id: str | None
    kind: str
    output_kind: str
    status: CouncilStatus
    outcome: Literal["decided", "no_decision"] | None
    winner: str | None
    reason: str | None
    requested_by: str | None
    retry_of: str | None
    phase: str | None
    percent: int | None
    waits_for: tuple[str, ...]
    """Members whose answer is waited for."""


class CouncilLineList(Wire):
    """Councils, those of one story in the order of opening."""

    items: tuple[CouncilLineView, ...]
    next_cursor: str | None = None


def line_view(line: CouncilLine) -> CouncilLineView:
    """The wire form of a council in a list."""
    opened, record, progress = line.record.opened, line.record, line.progress
    outcome = {"DECIDED": "decided", "UNDECIDED": "no_decision"}.get(record.status)
    return CouncilLineView(
        council_id=opened.council_id,
        story_id=line.state.story_id,
        project_id=line.state.project_id,
        task_id=opened.task_id,
        kind=opened.kind,
        output_kind=opened.output_kind,
        status=line.status,
        outcome=outcome,  # pyright: ignore[reportArgumentType]
        winner=record.winner,
        reason=record.reason,
        requested_by=opened.requested_by,
        retry_of=opened.retry_of,
        phase=progress.phase if progress else None,
        percent=progress.percent if progress else None,
        waits_for=progress.members if progress else (),
    )


class AgentView(Wire):
    """A seat of a pool; `busy` while a council waits for its answer."""

    agent_id: str
    status: Literal["ready", "busy"]


# Source: CN-16.
class PoolView(Wire):
    """A pool as it is in force, and what its seats do now."""

    role: str
    num_agents: int
    kind: str
    model_policy: str | None
    """Null: the one of the role."""
    modes: tuple[str, ...]
    status: Literal["active", "idle", "busy"]
    agents: tuple[AgentView, ...]
    set_by: str | None
    """Who set it while the fleet ran; null for a pool of config/council.yaml."""
    set_at: str | None


# Source: CN-16.
class PoolRequest(Wire):
    """How councils of a role are staffed from here on."""

    num_agents: Annotated[int, Field(ge=1, le=99)] = 3
    """Voters of each council that opens from here on and asks for no number: 3, 5, 7 or 9."""
    kind: Annotated[str, Field(min_length=1, max_length=20)] | None = None
    """Kind of engine that answers for the seats; the policy has to name one of it."""
    agent_type: Literal["MOCK", "VLLM", "RAY_VLLM"] | None = None
    """Another name of kind; give one of them."""
    model_policy: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    """Policy of config/models.yaml that the seats answer with; without one that of the role."""
    modes: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=20)] = ()
    """Decides nothing: a mock seat answers in the mode of its engine. For kind mock alone."""

    def to_command(self, role: str) -> SetCouncilPool:
        """What the owner of the platform's stream is sent. InvalidInput unless one of kind and agent_type is given."""
        if (self.kind is None) == (self.agent_type is None):
            raise InvalidInput("give kind, or agent_type, and not both", field="kind", allowed=list(_KINDS))
        kind = self.kind or _KIND_OF[self.agent_type or "MOCK"]
        fields = self.model_dump(mode="json", exclude={"agent_type"})
        return SetCouncilPool.model_validate({**fields, "kind": kind, "role": role})


_KIND_OF = {"MOCK": "mock", "VLLM": "vllm", "RAY_VLLM": "vllm"}
_KINDS = ("vllm", "openai", "anthropic", "local", "recorded", "mock")


class PoolRemoved(Wire):
    """The role has no pool any more: councils that open from here on have the defaults."""

    role: str
    version: int
    """Of the platform's stream."""


class PoolList(Wire):
    """The pools in force, by role."""

    items: tuple[PoolView, ...]


def pool_view(line: PoolLine) -> PoolView:
    """The wire form of a pool."""
    return PoolView(
        role=line.role,
        num_agents=line.pool.num_agents,
        kind=line.pool.kind,
        model_policy=line.pool.model_policy,
        modes=line.pool.modes,
        status=line.status,
        set_by=line.recorded.by if line.recorded else None,
        set_at=at(line.recorded.at_ms) if line.recorded else None,
        agents=tuple(AgentView(agent_id=agent.agent_id, status=agent.status) for agent in line.agents),
    )
