"""What people read of councils over all stories: where each stands, and who sits in the pools. From the log alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fleet.council import rounds
from fleet.council.config import CouncilPool
from fleet.council.rounds import Progress
from fleet.desk.planning import PlanningDesk
from fleet.kernel.errors import NotFound
from fleet.owner.council_pools import PoolInForce
from fleet.planning.platform_state import RecordedPool, RegisteredAgent
from fleet.story.state import CouncilRecord, StoryState

CouncilStatus = Literal["PENDING", "IN_PROGRESS", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"]


@dataclass(frozen=True, slots=True)
class CouncilLine:
    """One council in a list, and the story that it is about."""

    state: StoryState
    record: CouncilRecord
    status: CouncilStatus
    progress: Progress | None
    """None once it is over."""


@dataclass(frozen=True, slots=True)
class AgentLine:
    """A seat of a pool."""

    agent_id: str
    status: Literal["ready", "busy"]


@dataclass(frozen=True, slots=True)
class NamedAgentLine:
    """A named agent, and what it does now."""

    agent: RegisteredAgent
    status: Literal["ready", "busy"]


# Source: CN-16.
@dataclass(frozen=True, slots=True)
class PoolLine:
    """A pool as it is in force, and what its seats do now."""

    role: str
    pool: CouncilPool
    recorded: RecordedPool | None
    """Who set it while the fleet ran; None for a pool of the configuration."""
    status: Literal["active", "idle", "busy"]
    """Idle: no seat is waited for; busy: every one is; active: some are."""
    agents: tuple[AgentLine, ...]


class CouncilDesk:
    """Reads of councils for people."""

    def __init__(self, planning: PlanningDesk) -> None:
        self.planning = planning

    async def lines(self) -> list[CouncilLine]:
        """Every council of every story, those of one story in the order of opening."""
        states = sorted(await self.planning.states(), key=lambda state: state.story_id)
        return [_line(state, record) for state in states for record in state.councils.values()]

    async def story_of(self, council_id: str) -> StoryState:
        """The story of the council. NotFound when no story has it."""
        for state in await self.planning.states():
            if council_id in state.councils:
                return state
        raise NotFound(f"there is no council {council_id[:80]!r}", council_id=council_id[:80])


def _line(state: StoryState, record: CouncilRecord) -> CouncilLine:
    is_open = record.status == "IN_PROGRESS"
    return CouncilLine(
        state, record, status_of(state, record), rounds.progress(record.deliberation) if is_open else None
    )


def status_of(state: StoryState, record: CouncilRecord) -> CouncilStatus:
    """Where the council stands, in the words of CN-15."""
    match record.status:
        case "IN_PROGRESS" if state.park is not None and state.park.cause == "internal_error":
            return "FAILED"
        case "IN_PROGRESS":
            begun = any(step.started.council_id == record.opened.council_id for step in state.steps.values())
            return "IN_PROGRESS" if begun or record.said else "PENDING"
        case "UNDECIDED" if record.reason == "deadline":
            return "TIMEOUT"
        case "DECIDED" | "UNDECIDED":
            return "COMPLETED"
        case "CANCELLED":
            return "CANCELLED"


def pool_lines(pools: Mapping[str, PoolInForce], lines: Iterable[CouncilLine]) -> tuple[PoolLine, ...]:
    """Each pool in force by role, with the seats that councils at work wait for now."""
    awaited = _all_awaited(lines)
    return tuple(_pool(role, pool, awaited) for role, pool in sorted(pools.items()))


def agent_lines(agents: Iterable[RegisteredAgent], lines: Iterable[CouncilLine]) -> tuple[NamedAgentLine, ...]:
    """Each named agent with whether a council at work waits for it now."""
    awaited = _all_awaited(lines)
    return tuple(
        NamedAgentLine(one, "busy" if one.registered.agent_id.removeprefix("agent-") in awaited else "ready")
        for one in agents
    )


def _all_awaited(lines: Iterable[CouncilLine]) -> set[str]:
    """The members that councils at work wait for now."""
    return {name for line in lines if line.status == "IN_PROGRESS" and _works(line.state) for name in _awaited(line)}


def _works(state: StoryState) -> bool:
    return state.disposition == "active" and not state.is_paused and not state.closed


def _awaited(line: CouncilLine) -> tuple[str, ...]:
    return line.progress.members if line.progress is not None else ()


def _pool(role: str, in_force: PoolInForce, awaited: set[str]) -> PoolLine:
    pool = in_force.pool
    names = [f"{role}-{number:03d}" for number in range(1, pool.num_agents + 1)]
    agents = tuple(AgentLine(f"agent-{name}", "busy" if name in awaited else "ready") for name in names)
    busy = sum(agent.status == "busy" for agent in agents)
    status = "idle" if not busy else "busy" if busy == len(agents) else "active"
    return PoolLine(role, pool, in_force.recorded, status, agents)
