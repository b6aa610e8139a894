"""A new projection is built beside the active one and takes its place (GR-7)."""

from __future__ import annotations

import asyncio

from fleet.audit.service.whole_log import WholeLog
from fleet.graph.port import DecisionGraph
from fleet.graph.projection import Comparison, ProjectionState, Spare
from fleet.graph.schema import PROJECTION_VERSION
from fleet.graph.service.project_event import Poisoned, StreamProjection, report_failure
from fleet.kernel.errors import LogRegressed
from fleet.kernel.ids import StreamId
from fleet.log.port import DeadLetters, EventLog

_DROP = 1000
_TRIES = 3


async def ask_for_rebuild(log: EventLog | WholeLog, graph: DecisionGraph) -> ProjectionState:
    """A rebuild is wanted, and whoever projects will do it; a second request joins the first.

    Raises:
        LogRegressed: the graph holds what the log lost, and nobody has accepted that loss: it would be gone for good.
    """
    refused = await log.refused()
    if only_here := sorted(set(await graph.held()) & set(refused)):
        raise LogRegressed(
            f"the graph holds events of {', '.join(only_here)} that the log lost: restore the log, or give them up "
            "with `fleet accept-loss STREAM`; then the graph is rebuilt by itself",
            streams=[str(stream) for stream in only_here],
        )
    while True:
        state = await graph.projection()
        if state.is_rebuild_wanted or await graph.move_projection(state, state.asked()):
            return await graph.projection()


class Rebuild:
    """Does what the graph's state says is wanted, piece by piece. A crash at any point is mended by going on.

    Args:
        quiet: held while this process applies something to the active projection.
        version: of the rules by which this process projects.
    """

    def __init__(
        self,
        log: WholeLog,
        graph: DecisionGraph,
        *,
        letters: DeadLetters,
        quiet: asyncio.Lock,
        version: int = PROJECTION_VERSION,
    ) -> None:
        self._log, self._graph, self._letters = log, graph, letters
        self._streams = StreamProjection(log, graph)
        self._quiet = quiet
        self._version = version

    async def step(self) -> bool:
        """The next piece of work is done; False when there is none. StoreUnavailable."""
        state = await self._graph.projection()
        match state.spare:
            case Spare.DIRTY:
                if await self._graph.clear_spare(limit=_DROP) == 0:
                    await self._graph.move_projection(state, state.cleared())
            case Spare.EMPTY:
                if not state.is_rebuild_wanted:
                    return False
                await self._graph.move_projection(state, state.begun(self._version))
            case Spare.BUILDING:
                return await self._build(state)
        return True

    async def _build(self, state: ProjectionState) -> bool:
        if state.spare_version != self._version:
            return await self._graph.move_projection(state, state.abandoned())
        if not await self._catch_up_all(state, state.wanted):
            return False
        # Nothing moves in the active one meanwhile, so that readers never see the graph go back at the switch.
        async with self._quiet:
            if not await self._catch_up_all(state, state.wanted):
                return False
            comparison = await self._compared(state)
            return await self._graph.move_projection(state, state.switched(comparison))

    async def _catch_up_all(self, state: ProjectionState, number: int) -> bool:
        """Whether every stream reached its head, or the version before the one that it is parked at."""
        parked = await self._letters.parked("projector")
        is_whole = True
        for stream in await self._log.streams():
            until = parked[stream].failure.version - 1 if stream in parked else None
            try:
                await self._streams.catch_up(stream, projection=number, until=until)
            except Poisoned as poisoned:
                is_whole = await report_failure(self._letters, poisoned) is not None and is_whole
            except LogRegressed as error:
                await self._log.refuse(stream, reason=error.message)
                await self._graph.move_projection(state, state.abandoned())
                return False
        return is_whole

    async def _compared(self, state: ProjectionState) -> Comparison:
        """What the digests say of the two projections while both stand at the same versions."""
        for _ in range(_TRIES):
            before = await self._same_cursors(state)
            if before is not None:
                active = await self._graph.digest(projection=state.active)
                built = await self._graph.digest(projection=state.wanted)
                # Another projector may have gone on in between.
                if before == await self._same_cursors(state):
                    return Comparison.EQUAL if active == built else Comparison.DIFFERENT
            for stream in await self._log.streams():
                await self._follow(stream, state)
        return Comparison.IMPOSSIBLE

    async def _same_cursors(self, state: ProjectionState) -> object | None:
        active = await self._graph.cursors(projection=state.active)
        return active if active == await self._graph.cursors(projection=state.wanted) else None

    async def _follow(self, stream: StreamId, state: ProjectionState) -> None:
        """Both projections hold the stream up to the same version, if that can be had."""
        until = (await self._log.head(stream)).version
        for number in (state.active, state.wanted):
            try:
                await self._streams.catch_up(stream, projection=number, until=until)
            except (Poisoned, LogRegressed):
                # A stream that stands still for a cause: the two cannot be compared, and its own handler says why.
                return
