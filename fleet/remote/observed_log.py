"""An event log that tells what goes through it: figures of appends and events, the trunk of each story's trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from fleet.events.codec import decode
from fleet.events.envelope import Head, StoredEvent
from fleet.events.payload import Payload
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import StoryParked
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import CommandId, RunKey, StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog
from fleet.owner.journal.step_records import run_attempts
from fleet.redaction.redact_counts import redacted_kinds
from fleet.telemetry.event_figures import StepStart, figures_of
from fleet.telemetry.log_line import Cause
from fleet.telemetry.open_stories import OpenStory
from fleet.telemetry.otlp import TraceContext
from fleet.telemetry.port import Meter
from fleet.telemetry.service import Tracer, on_behalf_of
from fleet.telemetry.story_trace import StoryTrace

_LOG = logging.getLogger("fleet.stories")
_AT_ONCE = 100


def recorded_trace(first: StoredEvent) -> str:
    """The trace that the first event of a story carries; empty when it carries none."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(first.body)["meta"]["trace_id"])
    return ""


async def root_of(log: EventLog, story_id: StoryId) -> TraceContext | None:
    """The span of a story, as its first event tells it; None for a story without events. StoreUnavailable."""
    events = await log.read(StreamId.of_story(story_id), limit=1)
    return StoryTrace(story_id, recorded=recorded_trace(events[0])).root if events else None


@dataclass(slots=True)
class _Watched:
    trace: StoryTrace
    open: OpenStory = field(default_factory=OpenStory)
    keys: dict[RunKey, str] = field(default_factory=dict[RunKey, str])
    """Steps by the keys under which their runs and calls may be asked for."""


class ObservedLog:
    """Port EventLog over another one. Nothing that goes wrong with the telling reaches who appends.

    A story is known here from its first append on: who takes it over appends that it does, and then all that is on
    record is read, and its spans are told again, the same as they were told before.
    """

    def __init__(self, log: EventLog, *, meter: Meter, clock: Clock, tracer: Tracer | None = None) -> None:
        self._log, self._meter, self._tracer, self._clock = log, meter, tracer, clock
        self._watched: dict[str, _Watched] = {}
        """By the id of the story."""

    def stories(self, among: Collection[str]) -> list[OpenStory]:
        """What is known of these stories (by id)."""
        return [self._watched[story_id].open for story_id in among if story_id in self._watched]

    def keep(self, among: Collection[str]) -> None:
        """Everything but these stories is forgotten: others own the rest, or nobody has to."""
        for story_id in [story_id for story_id in self._watched if story_id not in among]:
            del self._watched[story_id]

    def cause(self, story_id: str, step: str = "", *, key: RunKey | None = None) -> Cause:
        """What work for this story, and its step, hangs on. A step may be named by the key of its run or call."""
        watched = self._watched.get(story_id)
        if watched is None:
            return Cause(story=story_id, step=step)
        step = step or (watched.keys.get(key, "") if key is not None else "")
        return Cause(story=story_id, step=step, traceparent=watched.trace.step(step).traceparent)

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """See `EventLog.append`."""
        since_ms = self._clock.monotonic_ms()
        try:
            outcome = await self._log.append(request)
        except FleetError as error:
            self._meter.add("fleet_log_appends_total", labels={"outcome": error.code})
            raise
        self._meter.observe("fleet_log_append_seconds", (self._clock.monotonic_ms() - since_ms) / 1000)
        is_new = isinstance(outcome, Appended)
        self._meter.add("fleet_log_appends_total", labels={"outcome": "stored" if is_new else "duplicate"})
        # What is stored is stored: a log that cannot be read again, or an event that is newer than this code, is not
        # the business of who appended.
        with contextlib.suppress(FleetError):
            events = outcome.events if isinstance(outcome, Appended) else ()
            if request.stream.startswith("story:"):
                await self._told(request.stream, events)
            else:
                for event in events:
                    self._count(decode(event), event, None)
        return outcome

    async def _told(self, stream: StreamId, events: Sequence[StoredEvent]) -> None:
        watched = self._watched.get(stream.entity)
        after = watched.open.version if watched is not None else 0
        fresh = {event.version for event in events}
        if not events or events[0].version != after + 1:
            events = await self._log.read(stream, after=after)
        for number, event in enumerate(events, start=1):
            is_fresh = event.version in fresh or watched is not None
            self._take(stream.entity, event, is_fresh=is_fresh)
            if number % _AT_ONCE == 0:
                # Other stories live in this loop; see StoryStream.
                await asyncio.sleep(0)

    def _take(self, story_id: str, event: StoredEvent, *, is_fresh: bool) -> None:
        payload = decode(event)
        if event.version == 1:
            trace = StoryTrace(story_id, recorded=recorded_trace(event), created_by=event.command_id)
            self._watched[story_id] = _Watched(trace)
        watched = self._watched.get(story_id)
        if watched is None:
            return  # it was forgotten meanwhile, and is read from its beginning if it comes back
        _note_keys(watched, payload)
        cause = self.cause(story_id, _step_of(payload))
        spans, started = watched.trace.take(event, payload), watched.open.take(event, payload)
        if self._tracer is not None:
            self._tracer.emit(*spans)
        if is_fresh:
            self._count(payload, event, started)
            with on_behalf_of(cause):
                _write(payload)

    def _count(self, payload: Payload, event: StoredEvent, started: StepStart | None) -> None:
        for figure in figures_of(payload, at_ms=event.ts_ms, started=started):
            if figure.name in _OBSERVED:
                self._meter.observe(figure.name, figure.value, figure.labels)
            else:
                self._meter.add(figure.name, figure.value, figure.labels)
        for kind, number in redacted_kinds(event.body).items():
            self._meter.add("fleet_redactions_total", number, {"class": kind})

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """See `EventLog.read`."""
        return await self._log.read(stream, after=after, limit=limit)

    async def head(self, stream: StreamId) -> Head:
        """See `EventLog.head`."""
        return await self._log.head(stream)

    async def open_streams(self) -> list[StreamId]:
        """See `EventLog.open_streams`."""
        return await self._log.open_streams()

    async def streams(self) -> list[StreamId]:
        """See `EventLog.streams`."""
        return await self._log.streams()

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """See `EventLog.refuse`."""
        _LOG.error("stream %s takes no appends any more: %s", stream, reason)
        await self._log.refuse(stream, reason=reason)

    async def refused(self) -> dict[StreamId, str]:
        """See `EventLog.refused`."""
        return await self._log.refused()

    async def accept_loss(self, stream: StreamId) -> None:
        """See `EventLog.accept_loss`."""
        await self._log.accept_loss(stream)

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """See `EventLog.commands`."""
        return await self._log.commands(stream)

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """See `EventLog.erase`."""
        await self._log.erase(stream, expected=expected)


_OBSERVED = frozenset({"fleet_step_seconds"})
"""Figures of events that are observations of a histogram."""


def _note_keys(watched: _Watched, payload: Payload) -> None:
    match payload:
        case StepStarted():
            keys = {payload.key}
            if payload.kind == "run":
                keys.update(run_attempts(watched.trace.story_id, payload.step_id, payload.request_digest))
            watched.keys.update(dict.fromkeys(keys, payload.step_id))
        case StepFinished():
            for key in [key for key, step in watched.keys.items() if step == payload.step_id]:
                del watched.keys[key]
        case _:
            return


def _step_of(payload: Payload) -> str:
    return payload.step_id if isinstance(payload, StepStarted | StepFinished) else ""


def _write(payload: Payload) -> None:
    match payload:
        case StepStarted():
            _LOG.info("step started: %s for %s", payload.kind, payload.as_role)
        case StepFinished():
            level = logging.INFO if payload.outcome == "succeeded" else logging.WARNING
            why = f" ({payload.error_code})" if payload.error_code else ""
            _LOG.log(level, "step finished: %s%s", payload.outcome, why)
        case StoryParked():
            _LOG.warning("story parked: %s", payload.cause)
        case _:
            _LOG.info("%s", payload.type)
