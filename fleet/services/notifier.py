"""Follows the log for one notification target and tells it what it wants to hear, at least once (LC-80, EV-22)."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterable

from fleet.errors import FleetError, StoreError, StoryNotFound
from fleet.events import decode
from fleet.ids import StoryId, StreamId
from fleet.ports import (
    Clock,
    DeadLetters,
    EventLog,
    Failure,
    Feed,
    Meter,
    NotificationBook,
    NotificationTarget,
    OwedNotice,
)
from fleet.services.notices import Wanted, notification_of
from fleet.services.projecting import is_outage, stop_if_cancelled
from fleet.story import StoryState

__all__ = ["WAITS_S", "Notifier", "StateOf"]

_LOG = logging.getLogger(__name__)
WAITS_S = (5.0, 60.0, 600.0, 3_600.0)
"""Before the second, third, fourth and last attempt at one notification; then it becomes a dead letter."""
_BATCH = 200
_REASON = 1000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0

StateOf = Callable[[StoryId], Awaitable[StoryState]]
"""The story as it is now; StoryNotFound."""


class Notifier:
    """What a target is owed stands in the book before anything is sent, and goes out of it after it was received.

    So a process may die at any point: the next one sends what is owed, and the receiver knows a repeat by its id. What
    fails is tried again after growing waits and ends in the dead letters, from where `retry` sends it once more; other
    notifications go on meanwhile. A store that is down is waited for and is nobody's failure (EV-23). No story waits
    for any of this: only its log is read.

    Args:
        name: of the target, by which book and dead letters know it.
        sweep_s: how often every stream is looked at, hints or not, and dead letters that were retried are noticed.
        poll_s: longest wait for hints.
    """

    def __init__(
        self,
        name: str,
        target: NotificationTarget,
        wanted: Wanted,
        *,
        log: EventLog,
        feed: Feed,
        book: NotificationBook,
        letters: DeadLetters,
        state_of: StateOf,
        clock: Clock,
        meter: Meter,
        sweep_s: float = 30.0,
        poll_s: float = 2.0,
    ) -> None:
        self.name = name
        self._target, self._wanted, self._types = target, wanted, wanted.types()
        self._log, self._feed, self._book, self._letters = log, feed, book, letters
        self._state_of, self._clock, self._meter = state_of, clock, meter
        self._sweep_s, self._poll_s = sweep_s, poll_s
        self._source = f"notifications:{name}"
        self._due_ms: dict[OwedNotice, float] = {}
        """When what failed in this process, or is set aside, is looked at again."""
        self._failures: dict[OwedNotice, int] = {}

    async def run(self) -> None:
        """Never returns: everything is looked at in the beginning and every `sweep_s`, and what grows in between."""
        pauses = 0
        while True:
            try:
                cursor = await self._feed.position()
                await self.sweep()
                await self._follow(cursor)
                pauses = 0
            except Exception as error:
                if not is_outage(error):
                    raise
                stop_if_cancelled()
                await self._clock.sleep(min(_FIRST_PAUSE_S * 2 ** min(pauses, 10), _LONGEST_PAUSE_S))
                pauses += 1

    async def _follow(self, cursor: str) -> None:
        until_ms = self._clock.monotonic_ms() + int(self._sweep_s * 1000)
        while (left_ms := until_ms - self._clock.monotonic_ms()) > 0:
            wait_ms = min(left_ms, self._poll_s * 1000, max(0.0, self._next_ms() - self._clock.monotonic_ms()))
            hints, cursor = await self._feed.wait(cursor, timeout_s=wait_ms / 1000)
            stop_if_cancelled()
            is_more = await self.look({hint.stream for hint in hints}) if hints else False
            if is_more or self._next_ms() <= self._clock.monotonic_ms():
                await self.send()

    def _next_ms(self) -> float:
        return min(self._due_ms.values(), default=math.inf)

    async def sweep(self) -> None:
        """Every stream was looked through to its end, and what is due was sent. StoreUnavailable."""
        streams = [stream for stream in await self._log.streams() if stream.startswith("story:")]
        if await self._book.looked(self.name) is None:
            heads = {stream: (await self._log.head(stream)).version for stream in streams}
            await self._book.begin(self.name, heads)
        await self.look(streams)
        await self.send()

    async def look(self, streams: Iterable[StreamId]) -> bool:
        """What the target wants to hear of these streams is owed to it; whether that is anything new.

        StoreUnavailable. A stream that cannot be read is left alone: the others must not wait for it.
        """
        looked, is_more = await self._book.looked(self.name) or {}, False
        for stream in sorted(stream for stream in streams if stream.startswith("story:")):
            try:
                is_more = await self._look_through(stream, looked.get(stream, 0)) or is_more
            except StoreError as error:
                if is_outage(error):
                    raise
                _LOG.warning("target %s: %s cannot be looked through: %s", self.name, stream, error.message)
        return is_more

    async def _look_through(self, stream: StreamId, after: int) -> bool:
        is_more, head = False, (await self._log.head(stream)).version
        while after < head:
            events = await self._log.read(stream, after=after, limit=_BATCH)
            if not events:
                break
            owed = [event.version for event in events if event.type in self._types]
            last = events[-1].version
            if not await self._book.advance(self.name, stream, expected=after, version=last, owed=owed):
                # Another process is at it, or was before us; the next sweep sees how far it came.
                break
            after, is_more = last, is_more or bool(owed)
        return is_more

    async def send(self) -> None:
        """Whatever is due was sent, or failed once more. StoreUnavailable."""
        owed = await self._book.owed(self.name)
        self._meter.set("fleet_notifications_owed", len(owed), {"target": self.name})
        known = set(owed)
        self._due_ms = {notice: at for notice, at in self._due_ms.items() if notice in known}
        self._failures = {notice: number for notice, number in self._failures.items() if notice in known}
        for notice in owed:
            if self._due_ms.get(notice, 0) <= self._clock.monotonic_ms():
                await self._attempt(notice)

    async def _attempt(self, notice: OwedNotice) -> None:
        if await self._letters.letter(self._source, notice.stream, notice.version) is not None:
            self._failures.pop(notice, None)
            self._due_ms[notice] = self._clock.monotonic_ms() + self._sweep_s * 1000
            return
        try:
            outcome = await self._told(notice)
        except Exception as error:
            # The poison handler of a consumer: whatever is wrong with one notification, the others go on.
            if is_outage(error):
                raise
            await self._failed(notice, error)
            return
        await self._book.settle(self.name, notice)
        self._count(outcome)

    async def _told(self, notice: OwedNotice) -> str:
        """`sent`, or `skipped` for what the target is not to be told."""
        events = await self._log.read(notice.stream, after=notice.version - 1, limit=1)
        try:
            state = await self._state_of(StoryId(notice.stream.entity))
        except StoryNotFound:
            # Archived meanwhile: nothing of it waits for anybody.
            return "skipped"
        found = notification_of(self.name, self._wanted, events[0], decode(events[0]), state) if events else None
        if found is None:
            return "skipped"
        await self._target.send(found)
        return "sent"

    async def _failed(self, notice: OwedNotice, error: Exception) -> None:
        known = isinstance(error, FleetError)
        if not known:
            _LOG.exception("target %s: %s could not be told", self.name, notice)
        failure = Failure(
            source=self._source,
            stream=notice.stream,
            version=notice.version,
            code=error.code if known else FleetError.code,
            reason=(error.message if known else type(error).__name__)[:_REASON],
        )
        letter = await self._letters.failed(failure)
        number = self._failures.get(notice, 0) + 1
        self._failures[notice] = number
        wait_s = self._sweep_s if letter is not None else WAITS_S[min(number, len(WAITS_S)) - 1]
        self._due_ms[notice] = self._clock.monotonic_ms() + wait_s * 1000
        self._count("failed" if letter is None else "set_aside")

    def _count(self, outcome: str) -> None:
        self._meter.add("fleet_notifications_total", labels={"target": self.name, "outcome": outcome})
