"""Follows the log for one notification target and tells it what it wants to hear, at least once (LC-80, EV-22)."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import JsonValue

from fleet.events.approval import ApprovalRequested
from fleet.events.codec import decode, rfc3339
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.task import SlaBreached
from fleet.events.workspace import IncidentOpened
from fleet.graph.service.project_event import is_outage, stop_if_cancelled
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, StoreError, StoryNotFound
from fleet.kernel.ids import StoryId, StreamId
from fleet.kernel.types import NoticeKind
from fleet.log.port import DeadLetters, EventLog, Failure, Feed
from fleet.notifications.port import Notification, NotificationBook, NotificationTarget, OwedNotice
from fleet.redaction.redact import redact
from fleet.story.approvals import pending_approvals
from fleet.story.state import StoryState
from fleet.telemetry.port import Meter

NOTICE_TYPES: Mapping[str, NoticeKind] = {
    "ApprovalRequested": "approval_requested",
    "SlaBreached": "time_limit_passed",
    "IncidentOpened": "incident_opened",
}
"""Type of an event -> the kind of notification that it gives."""
_FORM = 1
"""Of the body; grows when a field goes away or means something else."""
_MAX_CHARS = 500


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one target hears of; no project named is every project."""

    kinds: frozenset[NoticeKind]
    projects: frozenset[str] = frozenset()

    def types(self) -> frozenset[str]:
        """The types of events that may concern it."""
        return frozenset(name for name, kind in NOTICE_TYPES.items() if kind in self.kinds)

    def takes(self, project_id: str) -> bool:
        """Whether it hears of this project."""
        return not self.projects or project_id in self.projects


def delivery_id(target: str, stream: str, version: int) -> str:
    """`nt-<32 hex>`: one target is told of one event under one id, however often and by whichever process."""
    raw = "\x00".join((target, stream, str(version))).encode()
    return f"nt-{hashlib.sha256(raw).hexdigest()[:32]}"


def notification_of(
    target: str, config: Subscription, stored: StoredEvent, payload: Payload, state: StoryState
) -> Notification | None:
    """What the target is told, with the story as it is now; None when it is not to be told.

    An approval that was decided, that expired or that became void meanwhile is told to nobody: what is announced is
    what waits. Of time limits and incidents everybody hears, however late.
    """
    if not config.takes(state.project_id):
        return None
    match payload:
        case ApprovalRequested():
            if payload.approval_id not in {a.request.approval_id for a in pending_approvals(state)}:
                return None
            facts, link = _approval(payload, state)
        case SlaBreached():
            facts, link = _breach(payload, state)
        case IncidentOpened():
            facts, link = _incident(payload, state)
        case _:
            return None
    kind, name = NOTICE_TYPES[stored.type], delivery_id(target, stored.stream, stored.version)
    about: dict[str, JsonValue] = {
        "form": _FORM,
        "delivery_id": name,
        "kind": kind,
        "at": rfc3339(stored.ts_ms),
        "project_id": state.project_id,
        "story_id": state.story_id,
        "story_title": _shown(state.content.title),
        "story_version": stored.version,
    }
    return Notification(name, kind, {**about, **facts, "link": link})


def _approval(asked: ApprovalRequested, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "approval_id": asked.approval_id,
        "gate": asked.gate,
        "role": asked.role,
        "decided_by": asked.actor,
        "risk": asked.risk,
        "subject": {"kind": asked.subject.kind, "id": asked.subject.id, "digest": str(asked.subject.digest)},
        "expires_at": rfc3339(asked.expires_at),
        "attempt": asked.attempt,
    }
    link = f"#/gates/{quote(state.story_id, safe='')}/{quote(asked.approval_id, safe='')}"
    return {**facts, **_task(asked.subject.id, state)}, link


def _breach(breach: SlaBreached, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "state": breach.state,
        "limit_s": breach.limit_s,
        "elapsed_s": breach.elapsed_s,
        "can_take_it": list(map(str, breach.notified)),
    }
    return {**_task(breach.subject.id, state), **facts}, _story_link(state)


def _incident(opened: IncidentOpened, state: StoryState) -> tuple[dict[str, JsonValue], str]:
    facts: dict[str, JsonValue] = {
        "incident_id": opened.incident_id,
        "severity": opened.severity,
        "summary": _shown(opened.summary),
        "source": _shown(opened.source),
        "deployment_id": opened.deployment_id,
    }
    return {**facts, **_task(opened.task_id or "", state)}, _story_link(state)


def _task(task_id: str, state: StoryState) -> dict[str, JsonValue]:
    task = state.tasks.get(task_id)
    return {} if task is None else {"task_id": task_id, "task_title": _shown(task.task.title)}


def _story_link(state: StoryState) -> str:
    return f"#/story/{quote(state.story_id, safe='')}/overview"


def _shown(text: str) -> str:
    plain = redact(text).text
    return plain if len(plain) <= _MAX_CHARS else plain[: _MAX_CHARS - 1] + "…"


_LOG = logging.getLogger(__name__)
WAITS_S = (5.0, 60.0, 600.0, 3_600.0)
"""Before the second, third, fourth and last attempt at one notification; then it becomes a dead letter."""
_BATCH = 200
_REASON = 1000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0

StateOf = Callable[[StoryId], Awaitable[StoryState]]
"""The story as it is now; StoryNotFound."""


class Notifier:
    """Writes into the book what a target is owed before anything is sent.

    It goes out of the book after it was received.

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
        config: Subscription,
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
        self._target, self._wanted, self._types = target, config, config.types()
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
        notices = set(owed)
        self._due_ms = {notice: at for notice, at in self._due_ms.items() if notice in notices}
        self._failures = {notice: number for notice, number in self._failures.items() if notice in notices}
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
        notification = notification_of(self.name, self._wanted, events[0], decode(events[0]), state) if events else None
        if notification is None:
            return "skipped"
        await self._target.send(notification)
        return "sent"

    async def _failed(self, notice: OwedNotice, error: Exception) -> None:
        is_typed = isinstance(error, FleetError)
        if not is_typed:
            _LOG.exception("target %s: %s could not be told", self.name, notice)
        failure = Failure(
            source=self._source,
            stream=notice.stream,
            version=notice.version,
            code=error.code if is_typed else FleetError.code,
            reason=(error.message if is_typed else type(error).__name__)[:_REASON],
        )
        letter = await self._letters.failed(failure)
        number = self._failures.get(notice, 0) + 1
        self._failures[notice] = number
        wait_s = self._sweep_s if letter is not None else WAITS_S[min(number, len(WAITS_S)) - 1]
        self._due_ms[notice] = self._clock.monotonic_ms() + wait_s * 1000
        self._count("failed" if letter is None else "set_aside")

    def _count(self, outcome: str) -> None:
        self._meter.add("fleet_notifications_total", labels={"target": self.name, "outcome": outcome})
