"""What people ask of the audit: raw envelopes, checkpoints, proofs, and one verification at a time (AP-90)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from fleet.audit.port import StoredNote
from fleet.audit.proof import Proof
from fleet.audit.service.auditor import Auditor, AuditReport
from fleet.events.envelope import StoredEvent
from fleet.kernel.clock import Clock
from fleet.kernel.ids import StreamId
from fleet.log.port import EventLog

OpenAuditor = Callable[[], AbstractAsyncContextManager[Auditor]]
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class EventChoice:
    """Which envelopes of a stream are wanted; versions are inclusive."""

    first: int = 1
    last: int | None = None
    type: str | None = None
    actor: str | None = None

    def takes(self, event: StoredEvent) -> bool:
        """Whether the envelope is wanted."""
        return (self.type is None or event.type == self.type) and (self.actor is None or event.actor == self.actor)


@dataclass(frozen=True, slots=True)
class Verification:
    """The last verification: when it ended, and what it found."""

    ended_ms: int
    took_ms: int
    report: AuditReport


class AuditDesk:
    """Reads for people who check the fleet. A verification reads everything, so there is one at a time."""

    def __init__(self, *, log: EventLog, clock: Clock, auditor: OpenAuditor) -> None:
        self._log, self._clock, self._auditor = log, clock, auditor
        self._running: asyncio.Task[Verification] | None = None
        self._last: Verification | None = None

    async def events(
        self, stream: StreamId, choice: EventChoice, *, limit: int
    ) -> tuple[list[StoredEvent], int | None]:
        """Wanted envelopes in order, and the version to go on from when there may be more."""
        events: list[StoredEvent] = []
        after = choice.first - 1
        while len(events) < limit:
            batch = await self._log.read(stream, after=after, limit=_PAGE)
            for event in batch:
                if choice.last is not None and event.version > choice.last:
                    return events, None
                after = event.version
                if choice.takes(event):
                    events.append(event)
                if len(events) == limit:
                    return events, after + 1
            if len(batch) < _PAGE:
                return events, None
        return events, after + 1

    async def checkpoints(self, *, after: int, limit: int) -> list[StoredNote]:
        """Signed checkpoints with a number above `after`, in order."""
        async with self._auditor() as auditor:
            return await auditor.notes(after=after, limit=limit)

    async def checkpoints_before(self, before: int, *, limit: int) -> list[StoredNote]:
        """The last signed checkpoints with a number below `before`, in order."""
        async with self._auditor() as auditor:
            end = min(before, await auditor.newest() + 1)
            notes = await auditor.notes(after=max(0, end - 1 - limit), limit=limit)
        return [note for note in notes if note.sequence < end]

    async def proof(self, stream: StreamId, version: int) -> Proof:
        """That the event stands under a signed checkpoint."""
        async with self._auditor() as auditor:
            return await auditor.proof(stream, version=version)

    @property
    def last(self) -> Verification | None:
        """The last verification of this replica, None before the first."""
        return self._last

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self._running is not None and not self._running.done()

    async def verify(self, *, wait_s: float) -> Verification | None:
        """The verification that is under way or was just begun; None when it is not over after `wait_s` seconds."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._verify(), name="audit verification")
        try:
            return await asyncio.wait_for(asyncio.shield(self._running), wait_s)
        except TimeoutError:
            return None

    async def _verify(self) -> Verification:
        began_ms = self._clock.monotonic_ms()
        async with self._auditor() as auditor:
            report = await auditor.verify()
        self._last = Verification(self._clock.now_ms(), self._clock.monotonic_ms() - began_ms, report)
        return self._last
