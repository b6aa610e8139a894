"""Decisions as people look them up: one with its history from the log, what hangs on it from the graph (AP-71)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.desk.planning import PlanningDesk
from fleet.events.codec import decode
from fleet.events.decision import DecisionAccepted, DecisionRejected, DecisionSuperseded
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.graph.port import DecisionGraph
from fleet.kernel.clock import Clock
from fleet.kernel.errors import NotFound, StoreUnavailable
from fleet.kernel.ids import StoryId, StreamId
from fleet.story.state import Decision, StoryState

MAX_WAIT_S = 2.0
"""How long an answer waits for the graph to hold what was asked for (CX-34)."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision, its story as of now, and what was said when it was settled or replaced."""

    state: StoryState
    decision: Decision
    settled: tuple[StoredEvent, DecisionAccepted | DecisionRejected] | None = None
    superseded: tuple[StoredEvent, DecisionSuperseded] | None = None
    supersedes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GraphRows:
    """Rows of a named query, and the version of the story that the graph held when it was asked."""

    rows: tuple[dict[str, Any], ...]
    as_of: int


class DecisionDesk:
    """Reads of decisions. What is about one decision alone comes from the log; the graph is asked for the rest."""

    def __init__(self, *, planning: PlanningDesk, graph: DecisionGraph, clock: Clock) -> None:
        self._planning, self._graph, self._clock = planning, graph, clock

    async def find(self, decision_id: str) -> tuple[StoryState, Decision]:
        """The decision and its story. NotFound when no story has it."""
        for state in await self._planning.states():
            decision = state.decisions.get(decision_id)
            if decision is not None:
                return state, decision
        raise NotFound(f"there is no decision {decision_id[:80]!r}", decision_id=decision_id[:80])

    async def record(self, state: StoryState, decision: Decision) -> DecisionRecord:
        """The decision with what its story says of it later."""
        id, record = decision.proposed.decision_id, DecisionRecord(state, decision)
        settled, superseded, supersedes = record.settled, record.superseded, list[str]()
        for event, payload in await self._later(state, decision):
            match payload:
                case DecisionAccepted() | DecisionRejected() if payload.decision_id == id:
                    settled = event, payload
                case DecisionSuperseded() if payload.decision_id == id:
                    superseded = event, payload
                case DecisionSuperseded() if payload.by_decision_id == id:
                    supersedes.append(payload.decision_id)
                case _:
                    pass
        return DecisionRecord(state, decision, settled, superseded, tuple(supersedes))

    async def _later(self, state: StoryState, decision: Decision) -> list[tuple[StoredEvent, Payload]]:
        events = await self._planning.events(state.story_id, after=decision.version - 1)
        return [(event, decode(event)) for event in events if event.type in _TYPES]

    async def impact(self, state: StoryState, decision: Decision, *, depth: int, min_version: int) -> GraphRows:
        """What hangs on the decision, by distance (GR-82)."""
        needed = max(decision.version, min_version)
        params = {"decision_id": decision.proposed.decision_id, "depth": depth}
        return await self._ask("decision_impact", params, state.story_id, needed)

    async def critical(self, story_id: StoryId, *, min_version: int) -> GraphRows:
        """The decisions of the adopted plan, those first that most hangs on (GR-81)."""
        return await self._ask("critical_decisions", {"story_id": str(story_id)}, story_id, max(1, min_version))

    async def cycles(self, story_id: StoryId, *, min_version: int) -> GraphRows:
        """Decisions that depend on each other in a circle (GR-83)."""
        return await self._ask("decision_cycles", {"story_id": str(story_id)}, story_id, max(1, min_version))

    async def _ask(self, name: str, params: dict[str, Any], story_id: StoryId, needed: int) -> GraphRows:
        as_of = await self._reached(StreamId.of_story(story_id), needed)
        return GraphRows(tuple(await self._graph.query(name, params)), as_of)

    async def _reached(self, stream: StreamId, needed: int) -> int:
        """The version of the stream that the graph holds; StoreUnavailable when it does not come to this one."""
        deadline_ms = self._clock.monotonic_ms() + int(MAX_WAIT_S * 1000)
        while True:
            version = (await self._graph.cursor(stream)).version
            if version >= needed:
                return version
            if self._clock.monotonic_ms() >= deadline_ms:
                raise StoreUnavailable(
                    f"the decision graph holds version {version} of {stream}, version {needed} did not come within "
                    f"{MAX_WAIT_S:g} s: ask again later",
                    version=version,
                    as_of=needed,
                )
            await self._clock.sleep(_POLL_S)


_TYPES = frozenset(cls.type for cls in (DecisionAccepted, DecisionRejected, DecisionSuperseded))
