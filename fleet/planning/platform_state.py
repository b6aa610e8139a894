"""The fleet as a whole, folded from the platform's stream: what is paused, and which gates are delegated, and pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.platform import (
    AgentRegistered,
    AgentUnregistered,
    CouncilPoolRemoved,
    CouncilPoolSet,
    DelegationGranted,
    DelegationRevoked,
    FleetPaused,
    FleetResumed,
)
from fleet.events.values import Json
from fleet.kernel.errors import ApprovalRequired
from fleet.kernel.ids import StreamId

PLATFORM = StreamId("platform:main")


@dataclass(frozen=True, slots=True)
class FleetPause:
    """A hold on all stories, or on those of one project (PL-50)."""

    by: str
    reason: str
    since_ms: int


@dataclass(frozen=True, slots=True)
class StandingDelegation:
    """A gate that a delegate may decide in stories that are started while it holds (LC-77)."""

    granted: DelegationGranted
    granted_ms: int
    revoked_by: str | None = None
    revoked_ms: int | None = None
    why_revoked: str = ""

    def holds(self, *, now_ms: int) -> bool:
        """Whether it was neither revoked nor is over."""
        return self.revoked_ms is None and self.granted.valid_until > now_ms

    def covers(self, project_id: str) -> bool:
        """Whether stories of this project are meant; without any named, those of all are."""
        return not self.granted.projects or project_id in self.granted.projects


@dataclass(frozen=True, slots=True)
class RecordedPool:
    """What an admin said last of the pool of a role; without `config` the role has none (CN-16)."""

    config: Mapping[str, Json] | None
    by: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    """A named agent (AP-79): councils that open while it is registered may seat it."""

    registered: AgentRegistered
    by: str
    at_ms: int
    command_id: str
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class PlatformState:
    """The fold of the platform's stream up to `version`."""

    version: int = 0
    pause: FleetPause | None = None
    project_pauses: Mapping[str, FleetPause] = field(default_factory=dict[str, FleetPause])
    delegations: Mapping[str, StandingDelegation] = field(default_factory=dict[str, StandingDelegation])
    """By id, in the order in which they were granted."""
    pools: Mapping[str, RecordedPool] = field(default_factory=dict[str, RecordedPool])
    """By role; a role that is not named has what the configuration says."""
    agents: Mapping[str, RegisteredAgent] = field(default_factory=dict[str, RegisteredAgent])
    """By id, in the order of registration, those that are gone too: no id is given twice."""

    def named_agents(self) -> dict[str, tuple[RegisteredAgent, ...]]:
        """Those that are not gone, by role in the order of registration."""
        agents: dict[str, tuple[RegisteredAgent, ...]] = {}
        for agent in self.agents.values():
            if not agent.is_gone:
                role = agent.registered.role
                agents[role] = (*agents.get(role, ()), agent)
        return agents

    def pause_of(self, project_id: str) -> FleetPause | None:
        """What holds stories of this project back: the pause of the whole fleet before that of the project."""
        return self.pause or self.project_pauses.get(project_id)

    def require_running(self, project_id: str) -> None:
        """Returns when a new step may start; ApprovalRequired while the fleet or the project is paused (PL-50)."""
        pause = self.pause_of(project_id)
        if pause is not None:
            what = "the fleet" if self.pause is not None else f"project {project_id}"
            raise ApprovalRequired(
                f"{what} is paused by {pause.by}: no step starts until an admin resumes it. Reason: {pause.reason}"
            )


def fold_platform(events: Iterable[StoredEvent], state: PlatformState | None = None) -> PlatformState:
    """The platform after these events, which follow those of `state`; what they do not concern is left as it is."""
    platform = state or PlatformState()
    for event in events:
        platform = replace(_evolved(platform, decode(event), event), version=event.version)
    return platform


def _evolved(state: PlatformState, payload: Payload, event: StoredEvent) -> PlatformState:
    match payload:
        case FleetPaused():
            return _paused(state, payload, FleetPause(payload.by, payload.reason, event.ts_ms))
        case FleetResumed():
            return _paused(state, payload, None)
        case DelegationGranted():
            granted = StandingDelegation(payload, event.ts_ms)
            return replace(state, delegations={**state.delegations, payload.delegation_id: granted})
        case DelegationRevoked() if payload.delegation_id in state.delegations:
            delegation = state.delegations[payload.delegation_id]
            revoked = replace(delegation, revoked_by=event.actor, revoked_ms=event.ts_ms, why_revoked=payload.reason)
            return replace(state, delegations={**state.delegations, payload.delegation_id: revoked})
        case CouncilPoolSet():
            recorded = RecordedPool(payload.config, event.actor, event.ts_ms)
            return replace(state, pools={**state.pools, payload.role: recorded})
        case CouncilPoolRemoved():
            removed = RecordedPool(None, event.actor, event.ts_ms)
            return replace(state, pools={**state.pools, payload.role: removed})
        case AgentRegistered():
            agent = RegisteredAgent(payload, event.actor, event.ts_ms, event.command_id)
            return replace(state, agents={**state.agents, payload.agent_id: agent})
        case AgentUnregistered() if payload.agent_id in state.agents:
            gone = replace(state.agents[payload.agent_id], is_gone=True)
            return replace(state, agents={**state.agents, payload.agent_id: gone})
        case _:
            return state


def _paused(state: PlatformState, payload: FleetPaused | FleetResumed, pause: FleetPause | None) -> PlatformState:
    if payload.scope == "fleet":
        return replace(state, pause=pause)
    held = {name: one for name, one in state.project_pauses.items() if name != payload.id}
    if pause is not None and payload.id is not None:
        held[payload.id] = pause
    return replace(state, project_pauses=held)
