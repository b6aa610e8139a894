"""The one writer of the decision graph: streams of the log become nodes and relationships (GR-4, GR-6, EV-20)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.audit.service.whole_log import WholeLog
from fleet.graph.changes import Cursor
from fleet.graph.port import DecisionGraph
from fleet.graph.projection import ProjectionState
from fleet.graph.schema import PROJECTION_VERSION
from fleet.graph.service.project_event import Poisoned, StreamProjection, is_outage, report_failure, stop_if_cancelled
from fleet.graph.service.rebuild import Rebuild, ask_for_rebuild
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ConfigError, LogCorrupted, LogRegressed, StoreError
from fleet.kernel.ids import StreamId
from fleet.log.port import DeadLetter, DeadLetters, EventLog, FeedGroup, HintDelivery
from fleet.trees.port import BlobStore

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class SetAside:
    """Why a stream is not projected any further. `version` is the first one that is not in the graph, 0 if unknown."""

    code: str
    reason: str
    version: int = 0
    letter_id: str | None = None
    """What `fleet dlq retry` takes."""


@dataclass(frozen=True, slots=True)
class GraphStatus:
    """How far the graph is. `lag` is in events for each stream, below 0 where the log went back.

    `events` are in the log, `rebuilt` of them in the projection that is being built.
    """

    state: ProjectionState
    lag: dict[str, int]
    set_aside: dict[str, SetAside]
    events: int
    rebuilt: int

    @property
    def lag_total(self) -> int:
        """Events that are in the log and not in the graph."""
        return sum(max(0, behind) for behind in self.lag.values())

    @property
    def streams_behind(self) -> int:
        """Streams whose last events are not in the graph."""
        return sum(behind > 0 for behind in self.lag.values())


@dataclass(frozen=True, slots=True)
class _View:
    """What decides which streams are worked on: the active projection, and who stands still."""

    active: int
    parked: dict[StreamId, DeadLetter]
    held: dict[StreamId, str]

    def may_go_on(self, stream: StreamId) -> bool:
        return stream not in self.parked and stream not in self.held


class Projector:
    """Follows every stream of the log and brings the graph up to its head.

    Progress lives in the graph's cursors alone, so a restart, a second projector, and lost, repeated or reordered
    hints change nothing. A stream that cannot go on is set aside durably; the others go on.

    Args:
        blobs: where archived streams are, which a rebuild needs.
        consumer: name of this process among those that share the feed.
        sweep_s: how often every stream is looked at, hints or not.
        poll_s: how often failed streams are tried again, retried letters and a wanted rebuild noticed.
        seed: of the jitter of the pauses while a store is down.
        version: of the rules by which this process projects.
    """

    def __init__(
        self,
        log: EventLog,
        graph: DecisionGraph,
        *,
        feed: FeedGroup,
        letters: DeadLetters,
        clock: Clock,
        blobs: BlobStore | None = None,
        consumer: str = "projector",
        sweep_s: float = 30.0,
        poll_s: float = 2.0,
        seed: int | None = None,
        version: int = PROJECTION_VERSION,
    ) -> None:
        self._log, self._graph, self._feed, self._letters, self._clock = (
            WholeLog(log, blobs),
            graph,
            feed,
            letters,
            clock,
        )
        self._consumer, self._version = consumer, version
        self._sweep_s, self._poll_s = sweep_s, poll_s
        self._random = random.Random(seed)
        self._streams = StreamProjection(self._log, graph)
        # Held while this process applies something to the active projection; the switch needs it to stand still.
        self._quiet = asyncio.Lock()
        self._rebuild = Rebuild(self._log, graph, letters=letters, quiet=self._quiet, version=version)
        self._failing: set[StreamId] = set()
        self._were_parked: frozenset[StreamId] = frozenset()
        self.rebuild_problem: str | None = None
        """Why the last piece of a rebuild failed in this process; None when it did not."""

    async def run(self) -> None:
        """Never returns: sweep at the start and every `sweep_s`, follow hints in between, and rebuild when asked to.

        A store that is down is waited for without limit and is never the fault of a stream (GR-6, EV-23).
        ConfigError: the graph was built by newer rules than those of this process.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_forever())
            group.create_task(self._rebuild_forever())

    async def _follow_forever(self) -> None:
        pauses = 0
        while True:
            try:
                await self.sweep()
                pauses = 0
                until_ms = self._clock.monotonic_ms() + int(self._sweep_s * 1000)
                while (left_ms := until_ms - self._clock.monotonic_ms()) > 0:
                    taken = await self._feed.take(self._consumer, timeout_s=min(left_ms / 1000, self._poll_s))
                    stop_if_cancelled()
                    await self.handle(taken)
            except Exception as error:
                if not is_outage(error):
                    raise
                stop_if_cancelled()
                await self._clock.sleep(self._pause_s(pauses))
                pauses += 1

    async def _rebuild_forever(self) -> None:
        pauses = 0
        while True:
            try:
                await self._ask_if_owed()
                is_busy = await self._rebuild.step()
                pauses, self.rebuild_problem = 0, None
                stop_if_cancelled()
            except ConfigError:
                raise
            except Exception as error:
                # A rebuild that fails must not stop the live graph; it goes on where it stood.
                self.rebuild_problem = f"{type(error).__name__}: {error}"
                stop_if_cancelled()
                await self._clock.sleep(self._pause_s(pauses))
                pauses += 1
                continue
            if not is_busy:
                await self._clock.sleep(self._poll_s)

    async def rebuild_step(self) -> bool:
        """One piece of an owed rebuild is done; False when there is nothing to do. StoreUnavailable."""
        await self._ask_if_owed()
        return await self._rebuild.step()

    async def _ask_if_owed(self) -> None:
        """A rebuild is wanted when the rules are newer than the graph, or when a loss was accepted (GR-6)."""
        state = await self._graph.projection()
        self._require_known(state)
        held, refused = await self._graph.held(), await self._log.refused()
        if state.is_rebuild_wanted or held.keys() & refused.keys():
            return
        if held or state.version < self._version:
            await ask_for_rebuild(self._log, self._graph)

    def _require_known(self, state: ProjectionState) -> None:
        if state.version > self._version:
            raise ConfigError(
                f"the graph was built by rules of version {state.version}, this process knows {self._version}: "
                "start the newer release, or give this one another database",
                graph=state.version,
                known=self._version,
            )

    async def _view(self) -> _View:
        state = await self._graph.projection()
        self._require_known(state)
        return _View(state.active, await self._letters.parked("projector"), await self._graph.held())

    async def sweep(self) -> None:
        """Every stream that is not set aside is projected up to its head. StoreUnavailable."""
        async with self._quiet:
            view = await self._view()
            cursors = await self._graph.cursors(projection=view.active)
            for stream in await self._log.streams():
                if view.may_go_on(stream) and not await self._is_at_head(stream, cursors.get(stream)):
                    await self._attempt(stream, view)
            for stream in await self._log.lost(set(cursors)):
                await self._attempt(stream, view)
            self._were_parked = frozenset(view.parked)

    async def _is_at_head(self, stream: StreamId, cursor: Cursor | None) -> bool:
        try:
            head = await self._log.head(stream)
        except LogCorrupted:
            return False
        return cursor == Cursor(head.version, head.hash)

    async def handle(self, taken: Sequence[HintDelivery]) -> None:
        """The streams that were hinted at, that failed, or whose letter was retried are caught up. StoreUnavailable.

        Hints are acknowledged once they were looked at, whatever came of it: none is needed for correctness (EV-20).
        """
        async with self._quiet:
            view = await self._view()
            streams = {delivery.hint.stream for delivery in taken} | self._failing
            streams |= self._were_parked - view.parked.keys()
            for stream in sorted(streams):
                await self._attempt(stream, view)
            self._were_parked = frozenset(view.parked)
        if taken:
            await self._feed.acknowledge(taken)

    async def _attempt(self, stream: StreamId, view: _View) -> None:
        """The stream is caught up, or its failure is counted where it outlives this process."""
        self._failing.discard(stream)
        if not view.may_go_on(stream):
            return
        try:
            await self._streams.catch_up(stream, projection=view.active)
        except LogRegressed as error:
            # Refused first: a stream that is held and not refused counts as accepted.
            await self._log.refuse(stream, reason=error.message)
            await self._graph.hold(stream, reason=error.message)
        except Poisoned as poisoned:
            if await report_failure(self._letters, poisoned) is None:
                self._failing.add(stream)
        except StoreError as error:
            if not is_outage(error):
                raise
            # One stream whose batch the store cannot take must not keep the others back.
            await self._graph.projection()
            await self._log.head(stream)
            self._failing.add(stream)

    async def catch_up(self, stream: StreamId) -> int:
        """The graph holds the stream up to its head, or up to where it is parked; returns the version reached.

        Raises:
            LogRegressed: the graph is ahead of the log, or holds another history (GR-6).
            UnsupportedSchema: an event is newer than this reader; everything before it is projected (EV-30).
            LogCorrupted: an event's body is not of its type.
            StoreUnavailable: log or graph do not answer; what was applied stays applied.
        """
        view = await self._view()
        until = view.parked[stream].failure.version - 1 if stream in view.parked else None
        try:
            return (await self._streams.catch_up(stream, projection=view.active, until=until)).version
        except Poisoned as poisoned:
            raise poisoned.cause from poisoned

    async def lag(self) -> dict[str, int]:
        """Stream -> how many events the log is ahead of the graph; below 0 when the log went back. StoreUnavailable."""
        cursors = await self._graph.cursors()
        return await self._behind(cursors)

    async def _behind(self, cursors: dict[StreamId, Cursor]) -> dict[str, int]:
        heads = {stream: await self._log.head(stream) for stream in await self._log.streams()}
        return {
            str(stream): head.version - (cursors[stream].version if stream in cursors else 0)
            for stream, head in heads.items()
        }

    async def set_aside(self) -> dict[StreamId, SetAside]:
        """Streams that are not projected any further, and why; the same after a restart. StoreUnavailable.

        A parked one goes on after `retry` of its letter, one that regressed after its loss was accepted.
        """
        parked = await self._letters.parked("projector")
        held = await self._graph.held()
        letters = {
            stream: SetAside(letter.failure.code, letter.failure.reason, letter.failure.version, letter.letter_id)
            for stream, letter in parked.items()
        }
        return letters | {stream: SetAside(LogRegressed.code, reason) for stream, reason in held.items()}

    async def status(self) -> GraphStatus:
        """Active projection, lag, streams that are set aside, and how far a rebuild is. StoreUnavailable."""
        state = await self._graph.projection()
        cursors = await self._graph.cursors(projection=state.active)
        rebuilt = await self._graph.cursors(projection=state.wanted) if state.is_rebuild_wanted else cursors
        lag = await self._behind(cursors)
        reached = sum(cursors[stream].version for stream in cursors if stream in lag)
        return GraphStatus(
            state=state,
            lag=lag,
            set_aside={str(stream): why for stream, why in (await self.set_aside()).items()},
            events=reached + sum(lag.values()),
            rebuilt=sum(cursor.version for cursor in rebuilt.values()),
        )

    async def ask_for_rebuild(self) -> ProjectionState:
        """A rebuild is wanted. LogRegressed: it would lose what the log has lost already; see `ask_for_rebuild`."""
        return await ask_for_rebuild(self._log, self._graph)

    def _pause_s(self, pauses: int) -> float:
        """0.25 s * 2^n, at most 30 s, the upper half of it at random (GR-6)."""
        longest = min(_FIRST_PAUSE_S * 2 ** min(pauses, 10), _LONGEST_PAUSE_S)
        return longest * self._random.uniform(0.5, 1.0)
