"""In-memory twin of the port Inbox."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count

from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.waiting import Signal
from fleet.adapters.parking import command_failure, letter_id_of, set_aside, set_aside_by
from fleet.ids import CommandId
from fleet.ports import MAX_ATTEMPTS, Answer, Backlog, Clock, Command, DeadLetter, Delivery

__all__ = ["MemoryInbox"]

_ANSWER_TTL_MS = 86_400_000
_DEFER_MS = 1_000
_AFTER_OTHERS_MS = 100


@dataclass(slots=True)
class _Queued:
    command: Command
    first_seen_ms: int
    since_ms: int
    attempts: int = 0
    is_taken: bool = False
    due_ms: int = 0
    """When it may be delivered again, once it was taken."""
    taken_by: str = ""
    deferred_by: str = ""
    """The consumer that had it last and deferred it; empty once it was taken again."""


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: Answer
    expires_ms: int


class MemoryInbox:
    """A queue kept as long as the object. Implements the port Inbox; deliveries count as in RedisInbox.

    Args:
        abandoned_after_s: a command that was taken and not acknowledged for so long is delivered again.
        batch: most commands that one `take` returns.
        max_attempts: deliveries without an answer after which a command is set aside.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        abandoned_after_s: float = 30.0,
        batch: int = 32,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        self._clock = clock or SystemClock()
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._batch = batch
        self._max_attempts = max_attempts
        self._receipts = count(1)
        self._queue: dict[str, _Queued] = {}
        self._answers: dict[CommandId, _Kept] = {}
        self._waiting: Counter[str] = Counter()
        self._arrived, self._answered = Signal(), Signal()
        self.set_aside: dict[str, DeadLetter] = {}
        """Commands that are dead letters, by the letter's id, as MemoryDeadLetters lists them."""

    async def submit(self, command: Command) -> None:
        """The command is queued; nothing happens when its id has an answer."""
        if self._kept(command.command_id) is None:
            self._enqueue(command)

    def _enqueue(self, command: Command) -> None:
        self._queue[str(next(self._receipts))] = _Queued(command, self._clock.now_ms(), self._clock.monotonic_ms())
        self._arrived.notify()

    async def take(self, consumer: str, *, timeout_s: float) -> list[Delivery]:
        """New commands, or one abandoned one; empty when the time is over."""
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while not (found := self._deliver(consumer)):
            again_ms = (self._due_ms(queued, consumer) for queued in self._queue.values() if queued.is_taken)
            look_again_ms = min([until_ms, *again_ms])
            self._waiting[consumer] += 1
            try:
                has_arrived = await self._arrived.wait(self._clock, until_ms=look_again_ms)
            finally:
                self._waiting[consumer] -= 1
            if not has_arrived and look_again_ms == until_ms:
                return []
        return found

    def _due_ms(self, queued: _Queued, consumer: str) -> int:
        """When this consumer may have a command again that was taken; in milliseconds of the clock."""
        # Two consumers that wake in the same moment would always be asked in the same order: the one that cannot
        # carry it out would take it each time, and the one that can would never see it.
        is_for_others = queued.deferred_by == consumer and any(
            number for name, number in self._waiting.items() if name != consumer
        )
        return queued.due_ms + (_AFTER_OTHERS_MS if is_for_others else 0)

    def _deliver(self, consumer: str) -> list[Delivery]:
        """Hand out what waits; a command that was answered meanwhile leaves the queue instead."""
        for receipt in [r for r, queued in self._queue.items() if queued.is_taken]:
            if self._due_ms(self._queue[receipt], consumer) > self._clock.monotonic_ms():
                continue
            if self._queue[receipt].attempts >= self._max_attempts:
                self._park(receipt)
            elif delivery := self._delivery(receipt, consumer):
                return [delivery]
        found: list[Delivery] = []
        for receipt in [r for r, queued in self._queue.items() if not queued.is_taken]:
            if len(found) < self._batch and (delivery := self._delivery(receipt, consumer)):
                found.append(delivery)
        return found

    def _delivery(self, receipt: str, consumer: str) -> Delivery | None:
        queued = self._queue[receipt]
        if self._kept(queued.command.command_id) is not None:
            del self._queue[receipt]
            return None
        queued.attempts, queued.is_taken = queued.attempts + 1, True
        queued.taken_by, queued.deferred_by = consumer, ""
        queued.due_ms = self._clock.monotonic_ms() + self._abandoned_after_ms
        return Delivery(receipt=receipt, command=queued.command, attempts=queued.attempts)

    def _park(self, receipt: str) -> None:
        queued = self._queue.pop(receipt)
        command = queued.command
        letter_id = letter_id_of("00", "commands", command.stream, command.command_id)
        answer = self._first_answer(command.command_id, set_aside(command, letter_id, attempts=queued.attempts))
        if set_aside_by(answer) == letter_id and letter_id not in self.set_aside:
            failure = command_failure(command, attempts=queued.attempts)
            self.set_aside[letter_id] = DeadLetter(
                letter_id, failure, queued.attempts, queued.first_seen_ms, self._clock.now_ms()
            )

    def put_back(self, command: Command, letter_id: str) -> None:
        """The command of a letter is queued again, without the answer that the letter had given it."""
        self.set_aside.pop(letter_id, None)
        kept = self._answers.get(command.command_id)
        if kept is not None and set_aside_by(kept.answer) == letter_id:
            del self._answers[command.command_id]
        self._enqueue(command)

    async def acknowledge(self, delivery: Delivery, answer: Answer) -> None:
        """The first answer of the command id is kept for 24 h; this delivery does not come again."""
        self._first_answer(delivery.command.command_id, answer)
        self._queue.pop(delivery.receipt, None)

    def _first_answer(self, command_id: CommandId, answer: Answer) -> Answer:
        kept = self._kept(command_id)
        if kept is None:
            kept = self._answers[command_id] = _Kept(answer, self._clock.monotonic_ms() + _ANSWER_TTL_MS)
            self._answered.notify()
        return kept.answer

    async def defer(self, delivery: Delivery) -> None:
        """The command comes again after a second, and this delivery does not count (EV-23)."""
        queued = self._queue.get(delivery.receipt)
        if queued is not None and queued.attempts == delivery.attempts:
            queued.attempts -= 1
            queued.deferred_by = queued.taken_by
            queued.due_ms = self._clock.monotonic_ms() + min(_DEFER_MS, self._abandoned_after_ms)
            self._arrived.notify()

    async def backlog(self) -> Backlog:
        """Commands without an answer, and how long the oldest waits."""
        oldest = [queued.since_ms for queued in self._queue.values()]
        return Backlog(len(oldest), self._clock.monotonic_ms() - min(oldest) if oldest else 0)

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
