"""In-memory twin of the port Inbox."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.waiting import Signal
from fleet.ids import CommandId
from fleet.ports import Answer, Clock, Command, Delivery

__all__ = ["MemoryInbox"]

_ANSWER_TTL_MS = 86_400_000


@dataclass(slots=True)
class _Queued:
    command: Command
    attempts: int = 0
    taken_ms: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Answer
    expires_ms: int


class MemoryInbox:
    """A queue kept as long as the object. Implements the port Inbox.

    Args:
        abandoned_after_s: a command that was taken and not acknowledged for so long is delivered again.
        batch: most commands that one `take` returns.
    """

    def __init__(self, clock: Clock | None = None, *, abandoned_after_s: float = 30.0, batch: int = 32) -> None:
        self._clock = clock or SystemClock()
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._batch = batch
        self._receipts = count(1)
        self._queue: dict[str, _Queued] = {}
        self._answers: dict[CommandId, _Kept] = {}
        self._arrived, self._answered = Signal(), Signal()

    async def submit(self, command: Command) -> None:
        """The command is queued; nothing happens when its id has an answer."""
        if self._kept(command.command_id) is None:
            self._queue[str(next(self._receipts))] = _Queued(command)
            self._arrived.notify()

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """New and abandoned commands; empty when the time is over."""
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while True:
            if found := self._deliver():
                return found
            look_again_ms = min([until_ms, *self._abandoned_at()])
            if not await self._arrived.wait(self._clock, until_ms=look_again_ms) and look_again_ms == until_ms:
                return []

    def _deliver(self) -> list[Delivery]:
        """Hand out what waits; a command that was answered meanwhile leaves the queue instead."""
        now_ms = self._clock.monotonic_ms()
        found: list[Delivery] = []
        for receipt, queued in list(self._queue.items()):
            if len(found) == self._batch or (queued.attempts and queued.taken_ms + self._abandoned_after_ms > now_ms):
                continue
            if self._kept(queued.command.command_id) is not None:
                del self._queue[receipt]
                continue
            queued.attempts, queued.taken_ms = queued.attempts + 1, now_ms
            found.append(Delivery(receipt=receipt, command=queued.command, attempts=queued.attempts))
        return found

    def _abandoned_at(self) -> list[int]:
        return [queued.taken_ms + self._abandoned_after_ms for queued in self._queue.values() if queued.attempts]

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The first answer of the command id is kept for 24 h; this delivery does not come again."""
        command_id = delivery.command.command_id
        if self._kept(command_id) is None:
            self._answers[command_id] = _Kept(answer, self._clock.monotonic_ms() + _ANSWER_TTL_MS)
        self._queue.pop(delivery.receipt, None)
        self._answered.notify()

    async def answer(self, command_id: CommandId, *, timeout_s: float) -> Answer | None:
        """The stored answer, waiting at most `timeout_s` for it."""
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while (kept := self._kept(command_id)) is None:
            if not await self._answered.wait(self._clock, until_ms=until_ms):
                return None
        return kept.answer

    def _kept(self, command_id: CommandId) -> _Kept | None:
        kept = self._answers.get(command_id)
        return kept if kept and kept.expires_ms > self._clock.monotonic_ms() else None
