"""The one writer of the decision graph: streams of the log become nodes and relationships (GR-4, GR-6, EV-20)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import NamedTuple

from fleet.errors import FleetError, LogCorrupted, LogRegressed, StoreUnavailable, UnsupportedSchema
from fleet.events import StoredEvent, decode
from fleet.graph import Cursor, GraphChange, effects
from fleet.ids import StreamId
from fleet.ports import Clock, DecisionGraph, EventLog, Feed

__all__ = ["Projector"]

_BATCH = 200
_MAX_FAILURES = 5
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0


class _Projected(NamedTuple):
    """What the events up to `reached` change; `problem` is why the next one could not be read."""

    changes: list[GraphChange]
    reached: Cursor | None
    problem: FleetError | None


class Projector:
    """Follows every stream of the log and brings the graph up to its head.

    Progress lives in the graph's cursors alone, so a restart, a second projector, and lost, repeated or reordered
    hints change nothing. A stream that cannot go on is set aside; the others go on.

    Args:
        sweep_s: how often every stream is looked at, hints or not.
        seed: of the jitter of the pauses while a store is down.
    """

    def __init__(
        self,
        log: EventLog,
        feed: Feed,
        graph: DecisionGraph,
        clock: Clock,
        *,
        sweep_s: float = 30.0,
        seed: int | None = None,
    ) -> None:
        self._log, self._feed, self._graph, self._clock = log, feed, graph, clock
        self._sweep_s = sweep_s
        self._random = random.Random(seed)
        self._set_aside: dict[StreamId, Exception] = {}
        self._failed: dict[StreamId, int] = {}
        self._pauses = 0

    @property
    def set_aside(self) -> dict[StreamId, Exception]:
        """Streams that are not projected any further, and why: regressed, unreadable, or failed five times in a row.

        `resume` takes one up again.
        """
        return dict(self._set_aside)

    async def run(self) -> None:
        """Never returns: sweep at the start and every `sweep_s`, and follow the feed's hints in between.

        A store that is down is waited for without limit and is never the fault of a stream (GR-6, EV-23).
        """
        while True:
            try:
                await self._sweep_and_follow()
            except StoreUnavailable:
                await self._clock.sleep(self._pause_s())

    async def _sweep_and_follow(self) -> None:
        """One period: every stream is caught up, then those that hints name."""
        cursor = await self._feed.position()
        await self.sweep()
        self._pauses = 0
        until_ms = self._clock.monotonic_ms() + int(self._sweep_s * 1000)
        while (left_ms := until_ms - self._clock.monotonic_ms()) > 0:
            hints, cursor = await self._feed.wait(cursor, timeout_s=left_ms / 1000)
            await self._catch_up_each({hint.stream for hint in hints})

    async def sweep(self) -> None:
        """Every stream that is not set aside is projected up to its head. StoreUnavailable."""
        await self._catch_up_each(await self._log.streams())

    async def _catch_up_each(self, streams: Iterable[StreamId]) -> None:
        for stream in sorted(streams):
            if stream not in self._set_aside:
                await self._attempt(stream)

    async def _attempt(self, stream: StreamId) -> None:
        try:
            await self.catch_up(stream)
        except StoreUnavailable:
            raise
        except (LogRegressed, UnsupportedSchema, LogCorrupted) as error:
            self._set_aside[stream] = error
        except Exception as error:
            # Poison: what fails each time must not stop the other streams (EV-22).
            self._failed[stream] = self._failed.get(stream, 0) + 1
            if self._failed[stream] >= _MAX_FAILURES:
                self._set_aside[stream] = error
        else:
            self._failed.pop(stream, None)

    async def catch_up(self, stream: StreamId) -> int:
        """The graph holds the stream up to its head; returns the version reached.

        Raises:
            LogRegressed: the graph is ahead of the log, or holds another history (GR-6).
            UnsupportedSchema: an event is newer than this reader; everything before it is projected (EV-30).
            LogCorrupted: an event's body is not of its type.
            StoreUnavailable: log or graph do not answer; what was applied stays applied.
        """
        cursor = await self._verified_cursor(stream)
        while events := await self._log.read(stream, after=cursor.version, limit=_BATCH):
            cursor = await self._apply(stream, cursor, events)
        return cursor.version

    async def _verified_cursor(self, stream: StreamId) -> Cursor:
        """The stream's cursor; the log holds the version that it names, with the same hash."""
        cursor = await self._graph.cursor(stream)
        if cursor.version == 0:
            return cursor
        found = await self._log.read(stream, after=cursor.version - 1, limit=1)
        actual = found[0].hash if found else None
        if actual != cursor.hash:
            head = await self._log.head(stream)
            raise LogRegressed(
                f"the graph holds {stream} up to version {cursor.version}, but the log "
                f"{'has another event there' if actual else f'ends at {head.version}'}: the log went back in time; "
                "accept the loss, then rebuild the graph",
                stream=str(stream),
                projected=cursor.version,
                head=head.version,
            )
        return cursor

    async def _apply(self, stream: StreamId, cursor: Cursor, events: list[StoredEvent]) -> Cursor:
        """The cursor after these events were applied, by this projector or by another one that was first."""
        done = _project(events)
        if done.reached is not None:
            if not await self._graph.apply(stream, done.changes, expected=cursor, reached=done.reached):
                return await self._verified_cursor(stream)
            cursor = done.reached
        if done.problem is not None:
            raise done.problem
        return cursor

    async def lag(self) -> dict[str, int]:
        """Stream -> how many events the log is ahead of the graph; below 0 when the log went back. StoreUnavailable."""
        found: dict[str, int] = {}
        for stream in await self._log.streams():
            head, cursor = await asyncio.gather(self._log.head(stream), self._graph.cursor(stream))
            found[str(stream)] = head.version - cursor.version
        return found

    def resume(self, stream: StreamId) -> None:
        """The next sweep takes the stream up again: the cause of its being set aside was mended."""
        self._set_aside.pop(stream, None)
        self._failed.pop(stream, None)

    def _pause_s(self) -> float:
        """0.25 s * 2^n, at most 30 s, the upper half of it at random (GR-6)."""
        longest = min(_FIRST_PAUSE_S * 2 ** min(self._pauses, 10), _LONGEST_PAUSE_S)
        self._pauses += 1
        return longest * self._random.uniform(0.5, 1.0)


def _project(events: list[StoredEvent]) -> _Projected:
    changes: list[GraphChange] = []
    reached: Cursor | None = None
    for event in events:
        try:
            changes += effects(event, decode(event))
        except (UnsupportedSchema, LogCorrupted) as problem:
            return _Projected(changes, reached, problem)
        reached = Cursor(event.version, event.hash)
    return _Projected(changes, reached, None)
