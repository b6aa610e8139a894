"""One stream of the log into one projection of the graph (GR-4, GR-6)."""

from __future__ import annotations

import asyncio

from fleet.audit.service.whole_log import WholeLog
from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.graph.changes import Cursor, GraphChange
from fleet.graph.effects.table import effects
from fleet.graph.port import DecisionGraph
from fleet.kernel.errors import FleetError, LogCorrupted, LogRegressed, Retry, StoreError
from fleet.kernel.ids import StreamId
from fleet.log.port import DeadLetter, DeadLetters, Failure

BATCH = 200
"""Events of one transaction (GR-4)."""

_REASON, _RAW = 1000, 4000


class Poisoned(Exception):
    """An event cannot be read, understood or applied, whenever it is tried; those before it are in the graph.

    Only between the services of this package: it leaves them as a `Failure`.
    """

    def __init__(self, stream: StreamId, version: int, cause: Exception, *, raw: str = "") -> None:
        super().__init__(f"event {version} of {stream} cannot be projected: {type(cause).__name__}: {cause}")
        self.stream, self.version, self.cause, self.raw = stream, version, cause, raw

    @property
    def code(self) -> str:
        """The code of the cause, `internal_error` when it is none of ours."""
        return self.cause.code if isinstance(self.cause, FleetError) else FleetError.code


def is_outage(error: BaseException) -> bool:
    """Whether a store was out of reach, which is never the fault of an event (EV-23)."""
    return isinstance(error, StoreError) and error.retry is Retry.LATER


def stop_if_cancelled() -> None:
    """CancelledError when this task was told to end: whoever loops for ever has to look for itself.

    A driver that was cancelled while it got a connection may answer as if nothing had been.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def report_failure(letters: DeadLetters, poisoned: Poisoned) -> DeadLetter | None:
    """The attempt is counted; the letter when the stream is parked by now (EV-22)."""
    failure = Failure(
        source="projector",
        stream=poisoned.stream,
        version=poisoned.version,
        code=poisoned.code,
        reason=str(poisoned)[:_REASON],
        raw=poisoned.raw[:_RAW],
    )
    return await letters.failed(failure)


class StreamProjection:
    """Brings single streams up to their heads. Progress lives in the graph's cursors alone."""

    def __init__(self, log: WholeLog, graph: DecisionGraph) -> None:
        self._log, self._graph = log, graph

    async def catch_up(self, stream: StreamId, *, projection: int, until: int | None = None) -> Cursor:
        """The projection holds the stream up to its head, or to version `until` when that comes first.

        Returns early, with what was reached, when the projection is no longer written to.

        Raises:
            LogRegressed: the graph is ahead of the log, or holds another history (GR-6).
            Poisoned: an event fails each time; everything before it is projected (EV-22, EV-30).
            StoreUnavailable: log or graph do not answer; what was applied stays applied.
        """
        cursor = await self._first_cursor(stream, projection)
        size = BATCH
        while (limit := _limit(cursor, size, until)) > 0:
            events: list[StoredEvent] = []
            try:
                events = await self._log.read(stream, after=cursor.version, limit=limit)
                if not events:
                    break
                reached = await self._apply(stream, cursor, events, projection)
            except Exception as error:
                if is_outage(error) or isinstance(error, LogRegressed | Poisoned):
                    raise
                if limit == 1 or len(events) == 1:
                    raw = events[0].body.decode(errors="replace") if events else ""
                    raise Poisoned(stream, cursor.version + 1, error, raw=raw) from error
                # Alone, each event shows whether it is the one.
                size = 1
                continue
            if reached == cursor:
                break
            cursor = reached
        return cursor

    async def _apply(self, stream: StreamId, cursor: Cursor, events: list[StoredEvent], projection: int) -> Cursor:
        """The cursor after these events were applied, by this projector or by another one that was first."""
        changes: list[GraphChange] = [change for event in events for change in effects(event, decode(event))]
        reached = Cursor(events[-1].version, events[-1].hash)
        if await self._graph.apply(stream, changes, expected=cursor, reached=reached, projection=projection):
            return reached
        verified = await self._verified_cursor(stream, projection)
        # A cursor that went back belongs to a projection that was dropped.
        return verified if verified.version > cursor.version else cursor

    async def _first_cursor(self, stream: StreamId, projection: int) -> Cursor:
        try:
            return await self._verified_cursor(stream, projection)
        except Exception as error:
            if is_outage(error) or isinstance(error, LogRegressed | Poisoned):
                raise
            raise Poisoned(stream, 1, error) from error

    async def _verified_cursor(self, stream: StreamId, projection: int) -> Cursor:
        """The stream's cursor; the log holds the version that it names, with the same hash."""
        cursor = await self._graph.cursor(stream, projection=projection)
        if cursor.version == 0:
            return cursor
        head = await self._log.head(stream)
        if cursor == Cursor(head.version, head.hash):
            return cursor
        try:
            stored = await self._log.read(stream, after=cursor.version - 1, limit=1)
        except LogCorrupted as error:
            raise Poisoned(stream, cursor.version, error) from error
        actual = stored[0].hash if stored else None
        if actual != cursor.hash:
            raise LogRegressed(
                f"the graph holds {stream} up to version {cursor.version}, but the log "
                f"{'has another event there' if actual else f'ends at {head.version}'}: the log went back in time; "
                f"restore it, or give up what is missing with `fleet accept-loss {stream}`",
                stream=str(stream),
                projected=cursor.version,
                head=head.version,
            )
        return cursor


def _limit(cursor: Cursor, size: int, until: int | None) -> int:
    return size if until is None else min(size, until - cursor.version)
