"""The log in memory, for unit tests and the simulation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from fleet.events.envelope import Head, StoredEvent
from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import InvalidInput, OwnershipLost
from fleet.kernel.ids import CommandId, StreamId
from fleet.log.port import (
    MAX_ATTEMPTS,
    Answer,
    Appended,
    AppendRequest,
    Backlog,
    Command,
    DeadLetter,
    Delivery,
    Duplicate,
    Failure,
    FeedHint,
    HintDelivery,
    Lease,
    LetterSource,
    Snapshot,
)
from fleet.log.rules import (
    MAX_SNAPSHOT_BYTES,
    chain,
    command_failure,
    fenced,
    lease_held,
    lease_lost,
    letter_id_of,
    moved,
    no_letter,
    not_erased,
    oversize,
    packed,
    regressed,
    require_events,
    require_reason,
    retried_command,
    set_aside,
    set_aside_by,
    shard_of,
    standing_still,
    too_large,
)


class Signal:
    """Tells waiting tasks that something has changed. They look again, and wait again when it was not for them."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Every task that waits now goes on."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, clock: Clock, *, until_ms: int) -> bool:
        """True as soon as something has changed, False when `until_ms` of the clock's monotonic time is reached."""
        left_ms = until_ms - clock.monotonic_ms()
        if left_ms <= 0:
            return False
        changed = asyncio.ensure_future(self._changed.wait())
        slept = asyncio.ensure_future(clock.sleep(left_ms / 1000))
        try:
            await asyncio.wait({changed, slept}, return_when=asyncio.FIRST_COMPLETED)
            return changed.done()
        finally:
            changed.cancel()
            slept.cancel()
            await asyncio.gather(changed, slept, return_exceptions=True)


@dataclass(slots=True)
class _Stream:
    head: Head = field(default_factory=Head)
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    commands: dict[CommandId, Duplicate] = field(default_factory=dict[CommandId, Duplicate])


class MemoryEventLog:
    """Streams kept as long as the object. Implements the port EventLog.

    MemoryLeaseStore, MemoryFeed and MemorySnapshotStore share it.
    """

    def __init__(self) -> None:
        self._streams: dict[StreamId, _Stream] = {}
        self._open: set[StreamId] = set()
        self._refused: dict[StreamId, str] = {}
        self.hints: list[FeedHint] = []
        """One hint for each append, as MemoryFeed hands them out."""
        self.grown = Signal()
        """Fires after each append."""
        self.on_erase: list[Callable[[StreamId], object]] = []
        """Called for each erased stream by what keeps something about streams beside this log."""
        self.on_accept: list[Callable[[StreamId], object]] = []
        """Called for each stream whose loss was accepted."""

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """Store all events of the request after `expected`, or nothing (EV-14)."""
        await asyncio.sleep(0)
        require_events(request)
        stream = self._streams.get(request.stream, _Stream())
        if earlier := stream.commands.get(request.command_id):
            return earlier
        if reason := self._refused.get(request.stream):
            raise regressed(request.stream, reason)
        if request.expected.epoch != stream.head.epoch:
            raise fenced(request, epoch=stream.head.epoch)
        if request.expected != stream.head:
            raise moved(request, stream.head)
        if finding := oversize(request):
            raise too_large(request, finding)
        return self._store(request, stream)

    def _store(self, request: AppendRequest, stream: _Stream) -> Appended:
        events = chain(request)
        stream.events.extend(events)
        stream.head = Head(version=events[-1].version, hash=events[-1].hash, epoch=stream.head.epoch)
        stream.commands[request.command_id] = Duplicate(first=events[0].version, last=events[-1].version)
        self._streams[request.stream] = stream
        (self._open.discard if request.closes else self._open.add)(request.stream)
        self.hints.append(FeedHint(stream=request.stream, version=stream.head.version))
        self.grown.notify()
        return Appended(head=stream.head, events=events)

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`."""
        events = self._streams.get(stream, _Stream()).events[max(after, 0) :]
        return events if limit is None else events[: max(limit, 0)]

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends now."""
        return self._streams.get(stream, _Stream()).head

    async def open_streams(self) -> list[StreamId]:
        """Streams that have events and are not closed, sorted."""
        return sorted(self._open)

    async def streams(self) -> list[StreamId]:
        """Every stream that has events, sorted."""
        return sorted(name for name, stream in self._streams.items() if stream.events)

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until `accept_loss`; the first reason stays (EV-19)."""
        require_reason(stream, reason)
        self._refused.setdefault(stream, reason)

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, sorted, and why."""
        return dict(sorted(self._refused.items()))

    async def accept_loss(self, stream: StreamId) -> None:
        """The stream takes appends again, from its present head."""
        if self._refused.pop(stream, None) is not None:
            for forget in self.on_accept:
                forget(stream)

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """Every command id of the stream with the versions that it wrote, by version."""
        commands = self._streams.get(stream, _Stream()).commands
        return {command: (answered.first, answered.last) for command, answered in commands.items()}

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """Entries, commands and lease of the stream are gone; of the head only the epoch is left, as EV-3 wants."""
        actual = await self.head(stream)
        if actual.version == 0:
            return
        if actual != expected:
            raise not_erased(stream, expected=expected, actual=actual)
        self._streams[stream] = _Stream(head=Head(epoch=actual.epoch))
        self._open.discard(stream)
        self._refused.pop(stream, None)
        for forget in self.on_erase:
            forget(stream)

    def raise_epoch(self, stream: StreamId) -> int:
        """The new epoch of the stream's head, one above the old one: what a granted lease does (EV-3)."""
        entry = self._streams.setdefault(stream, _Stream())
        entry.head = replace(entry.head, epoch=entry.head.epoch + 1)
        return entry.head.epoch


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
        while not (deliveries := self._deliver(consumer)):
            again_ms = (self._due_ms(queued, consumer) for queued in self._queue.values() if queued.is_taken)
            look_again_ms = min([until_ms, *again_ms])
            self._waiting[consumer] += 1
            try:
                has_arrived = await self._arrived.wait(self._clock, until_ms=look_again_ms)
            finally:
                self._waiting[consumer] -= 1
            if not has_arrived and look_again_ms == until_ms:
                return []
        return deliveries

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
        deliveries: list[Delivery] = []
        for receipt in [r for r, queued in self._queue.items() if not queued.is_taken]:
            if len(deliveries) < self._batch and (delivery := self._delivery(receipt, consumer)):
                deliveries.append(delivery)
        return deliveries

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


@dataclass(frozen=True, slots=True)
class _Held:
    owner: str
    epoch: int
    expires_ms: int


class MemoryLeaseStore:
    """Leases on the streams of one MemoryEventLog, whose heads hold the epochs. Implements the port LeaseStore."""

    def __init__(self, log: MemoryEventLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._held: dict[StreamId, _Held] = {}
        log.on_erase.append(lambda stream: self._held.pop(stream, None))

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """The caller owns the stream for `ttl_s` under a new epoch; LeaseHeld while another shard's lease lives."""
        held, now_ms = self._held.get(stream), self._clock.now_ms()
        if held and held.expires_ms > now_ms and shard_of(held.owner) != shard_of(owner):
            raise lease_held(stream, owner=held.owner, expires_in_ms=held.expires_ms - now_ms)
        epoch = self._log.raise_epoch(stream)
        self._held[stream] = _Held(owner, epoch, now_ms + ttl_s * 1000)
        return Lease(stream=stream, owner=owner, epoch=epoch, ttl_s=ttl_s)

    async def renew(self, lease: Lease) -> None:
        """The lease lives for another `ttl_s`; OwnershipLost when it is no longer this owner's."""
        if not self._holds(lease):
            raise lease_lost(lease)
        self._held[lease.stream] = _Held(lease.owner, lease.epoch, self._clock.now_ms() + lease.ttl_s * 1000)

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """The leases live for another `ttl_s`; the streams of those that were lost."""
        lost: set[StreamId] = set()
        for lease in leases:
            try:
                await self.renew(lease)
            except OwnershipLost:
                lost.add(lease.stream)
        return frozenset(lost)

    async def release(self, lease: Lease) -> None:
        """The stream is free if the lease still held it."""
        if self._holds(lease):
            del self._held[lease.stream]

    def _holds(self, lease: Lease) -> bool:
        held = self._held.get(lease.stream)
        if held is None or (held.owner, held.epoch) != (lease.owner, lease.epoch):
            return False
        return held.expires_ms > self._clock.now_ms()


class MemoryFeed:
    """The hints of one MemoryEventLog. Implements the port Feed; a cursor is a number of hints."""

    def __init__(self, log: MemoryEventLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()

    async def position(self) -> str:
        """The cursor after every hint so far."""
        return str(len(self._log.hints))

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor; empty when the time is over. InvalidInput for a foreign cursor."""
        if not cursor.isdecimal():
            raise InvalidInput(f"{cursor[:100]!r} is no cursor of this feed: start from `position`", value=cursor[:100])
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while len(self._log.hints) <= int(cursor):
            if not await self._log.grown.wait(self._clock, until_ms=until_ms):
                return [], cursor
        return self._log.hints[int(cursor) :], str(len(self._log.hints))


@dataclass(slots=True)
class _Taken:
    hint: FeedHint
    attempts: int
    taken_ms: int


class MemoryFeedGroup:
    """One group on the hints of a MemoryEventLog, from the first hint on. Implements the port FeedGroup.

    Args:
        abandoned_after_s: a hint that was taken and not acknowledged for so long is delivered again.
        batch: most hints that one `take` returns.
    """

    def __init__(
        self,
        log: MemoryEventLog,
        clock: Clock | None = None,
        *,
        abandoned_after_s: float = 30.0,
        batch: int = 500,
    ) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._batch = batch
        self._next = 0
        self._taken: dict[str, _Taken] = {}
        self._seen_ms: list[int] = []

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """New and abandoned hints; empty when the time is over."""
        until_ms = self._clock.monotonic_ms() + int(timeout_s * 1000)
        while True:
            if hints := self._deliver():
                return hints
            look_again_ms = min([until_ms, *self._abandoned_at()])
            if not await self._log.grown.wait(self._clock, until_ms=look_again_ms) and look_again_ms == until_ms:
                return []

    def _deliver(self) -> list[HintDelivery]:
        now_ms = self._note()
        due = [r for r, taken in self._taken.items() if taken.taken_ms + self._abandoned_after_ms <= now_ms]
        for receipt in due[: self._batch]:
            taken = self._taken[receipt]
            taken.attempts, taken.taken_ms = taken.attempts + 1, now_ms
        last = min(len(self._log.hints), self._next + self._batch - len(due[: self._batch]))
        fresh = {str(n): _Taken(self._log.hints[n], 1, now_ms) for n in range(self._next, last)}
        self._taken.update(fresh)
        self._next = last
        return [self._delivery(receipt) for receipt in [*due[: self._batch], *fresh]]

    def _note(self) -> int:
        """The time now, which is that of every hint not seen before."""
        now_ms = self._clock.monotonic_ms()
        self._seen_ms += [now_ms] * (len(self._log.hints) - len(self._seen_ms))
        return now_ms

    def _delivery(self, receipt: str) -> HintDelivery:
        taken = self._taken[receipt]
        return HintDelivery(receipt=receipt, hint=taken.hint, attempts=taken.attempts)

    def _abandoned_at(self) -> list[int]:
        return [taken.taken_ms + self._abandoned_after_ms for taken in self._taken.values()]

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """These hints are not delivered again."""
        for delivery in deliveries:
            self._taken.pop(delivery.receipt, None)

    async def backlog(self) -> Backlog:
        """Hints that were not acknowledged; the age of one counts from when this group first looked."""
        now_ms = self._note()
        left = [*map(int, self._taken), *range(self._next, len(self._log.hints))]
        return Backlog(pending=len(left), oldest_ms=now_ms - self._seen_ms[min(left)] if left else 0)


class MemorySnapshotStore:
    """Snapshots kept as long as the object. Implements the port SnapshotStore.

    Args:
        log: when given, a stream that it erases, or whose loss it accepts, has no snapshot any more.
        max_bytes: a snapshot that is larger when packed is not kept.
    """

    def __init__(self, log: MemoryEventLog | None = None, *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> None:
        self._held: dict[StreamId, Snapshot] = {}
        self._max_bytes = max_bytes
        if log is not None:
            log.on_erase.append(lambda stream: self._held.pop(stream, None))
            log.on_accept.append(lambda stream: self._held.pop(stream, None))

    async def get(self, stream: StreamId) -> Snapshot | None:
        """The newest snapshot that was put, if it is still there."""
        return self._held.get(stream)

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        """The snapshot replaces one of the same or an older version; a newer one stays."""
        held = self._held.get(stream)
        if packed(snapshot.data, max_bytes=self._max_bytes) is None:
            return
        if held is None or held.version <= snapshot.version:
            self._held[stream] = snapshot

    async def drop(self, stream: StreamId) -> None:
        """There is no snapshot of the stream."""
        self._held.pop(stream, None)


_COUNT_TTL_MS = 7 * 86_400_000


@dataclass(slots=True)
class _Count:
    attempts: int
    first_seen_ms: int
    last_seen_ms: int


class MemoryDeadLetters:
    """Counts and letters kept as long as the object. Implements the port DeadLetters.

    Args:
        clock: the store's clock, by which first and last seen are told.
        inbox: its commands that were set aside are letters too, and go back to it when they are retried.
    """

    def __init__(self, clock: Clock | None = None, *, inbox: MemoryInbox | None = None) -> None:
        self._clock = clock or SystemClock()
        self._inbox = inbox or MemoryInbox(self._clock)
        self._counts: dict[str, _Count] = {}
        self._letters: dict[str, DeadLetter] = {}

    async def failed(self, failure: Failure) -> DeadLetter | None:
        """One more attempt failed; the letter once it is parked."""
        letter_id = letter_id_of("00", failure.source, failure.stream, failure.version)
        if letter_id in self._letters:
            return self._letters[letter_id]
        count = self._counted(letter_id)
        if count.attempts < MAX_ATTEMPTS:
            return None
        letter = DeadLetter(letter_id, failure, count.attempts, count.first_seen_ms, count.last_seen_ms)
        self._letters[letter_id] = letter
        return letter

    def _counted(self, letter_id: str) -> _Count:
        now_ms = self._clock.now_ms()
        count = self._counts.get(letter_id)
        if count is None or count.last_seen_ms + _COUNT_TTL_MS <= now_ms:
            count = self._counts[letter_id] = _Count(0, now_ms, now_ms)
        count.attempts, count.last_seen_ms = count.attempts + 1, now_ms
        return count

    async def parked(self, source: LetterSource) -> dict[StreamId, DeadLetter]:
        """Streams at which this consumer stands still; none for `commands`, whose letters hold up nothing."""
        return standing_still([letter for letter in await self.letters() if letter.failure.source == source])

    async def letter(self, source: LetterSource, stream: StreamId, version: int) -> DeadLetter | None:
        """The letter of exactly this piece of work."""
        return self._letters.get(letter_id_of("00", source, stream, version))

    async def letters(self) -> list[DeadLetter]:
        """Every letter, oldest first."""
        letters = [*self._letters.values(), *self._inbox.set_aside.values()]
        return sorted(letters, key=lambda letter: (letter.last_seen_ms, letter.letter_id))

    async def retry(self, letter_id: str) -> DeadLetter:
        """Letter and count are gone; a command is back in its queue, and its answer is open again.

        Raises NotFound, and InvalidInput when what was set aside is no command; the letter stays then.
        """
        letter = self._letters.get(letter_id) or self._inbox.set_aside.get(letter_id)
        if letter is None:
            raise no_letter(letter_id)
        command = retried_command(letter)
        self._letters.pop(letter_id, None)
        self._counts.pop(letter_id, None)
        if command is not None:
            self._inbox.put_back(command, letter_id)
        return letter
