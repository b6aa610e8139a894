"""One engine behind its fair queue: bounded concurrency, bounded waiting, and waits that count.

Source: docs/design/design.md, section 7.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.kernel.clock import Clock
from fleet.kernel.errors import ModelTimeout, ModelUnavailable, RateLimited
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage
from fleet.models.engine_config import ActorEngine, HttpEngine, PluginEngine
from fleet.models.port import ChatModel
from fleet.models.routing.fair_queue import AGED_AFTER_MS, Admitted, FairQueue, Ticket, estimate_call
from fleet.models.routing.rate import HeldCall, RateLimiter, RateLine, RateNeed


@dataclass(slots=True)
class QueueStats:
    """What one queue holds and did since it began."""

    running: int = 0
    waiting: int = 0
    served: int = 0
    """Calls that got their turn."""
    rejected: int = 0
    """Calls that the queue or a rate cap told to come later, and those whose time ran out before their turn."""
    queue_ms: int = 0
    """Sum of all waits of calls that were served."""


@dataclass
class RateGate:
    """Holds the calls of one engine in a `RateLine`.

    Args:
        engine: id of the engine, for messages.
    """

    limiter: RateLimiter
    clock: Clock
    engine: str
    aged_after_ms: int = AGED_AFTER_MS
    _turns: dict[int, asyncio.Future[None]] = field(default_factory=dict[int, asyncio.Future[None]])

    def __post_init__(self) -> None:
        self._line = RateLine(self.limiter, aged_after_ms=self.aged_after_ms)
        self._alarm: asyncio.Task[None] | None = None

    async def enter(self, tag: CallTag, *, tokens: int, longest_ms: int, over: asyncio.Future[Any]) -> None:
        """Returns when the caps let the call through, with its share taken, or when `over` is done.

        Raises:
            RateLimited: that would take, or took, more than `longest_ms`; nothing was taken.
        """
        now_ms = self.clock.monotonic_ms()
        offered = self._line.offer(RateNeed(tag.tenant, tokens), tag.priority, now_ms=now_ms, longest_ms=longest_ms)
        if not isinstance(offered, HeldCall):
            raise self._come_later(tag, offered)
        turn = self._turns[offered.number] = asyncio.get_running_loop().create_future()
        try:
            self._admit()
            if turn.done() or await self._waited(turn, over, longest_ms):
                return
            raise self._come_later(tag, self._line.next_ms(now_ms=self.clock.monotonic_ms()) or 0)
        finally:
            self._forget(offered)

    async def _waited(self, turn: asyncio.Future[None], over: asyncio.Future[Any], longest_ms: int) -> bool:
        """Whether the wait ended before its longest time."""
        timer = asyncio.ensure_future(self.clock.sleep(longest_ms / 1000))
        try:
            await asyncio.wait({turn, over, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return turn.done() or over.done()

    def _admit(self) -> None:
        """Everybody goes on who may, and an alarm is set for the next."""
        now_ms = self.clock.monotonic_ms()
        for call in self._line.admit(now_ms=now_ms):
            turn = self._turns.get(call.number)
            if turn is not None and not turn.done():
                turn.set_result(None)
        self._set_alarm(self._line.next_ms(now_ms=now_ms))

    def _set_alarm(self, wait_ms: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if wait_ms is not None:
            self._alarm = asyncio.get_running_loop().create_task(self._ring(wait_ms))

    async def _ring(self, wait_ms: int) -> None:
        await self.clock.sleep(wait_ms / 1000)
        self._alarm = None
        self._admit()

    def _forget(self, call: HeldCall) -> None:
        """The call is out of the line; whoever it held up may go on."""
        self._turns.pop(call.number, None)
        if self._line.remove(call):
            self._admit()

    def _come_later(self, tag: CallTag, wait_ms: int) -> RateLimited:
        wait_s = max(1, math.ceil(wait_ms / 1000))
        return RateLimited(
            f"engine {self.engine!r} has had its calls of this minute for tenant {tag.tenant!r}; come again in "
            f"{wait_s} s, or raise `rate_cap` or `tenant_caps` in config/models.yaml",
            engine=self.engine,
            tenant=tag.tenant,
            retry_after_s=wait_s,
            queued=True,
        )


_LONGEST_RETRY_S = 60
_SMOOTHING = 0.2
"""Weight of the last call in the mean time of a call."""


@dataclass(slots=True, eq=False)
class _Waiting:
    request_id: str
    arrived_ms: int
    over: asyncio.Future[None]
    """Done when the waiting is over, however it ended."""
    ticket: Ticket | None = None
    """None while a rate cap holds the call."""
    deadline_ms: int = 0
    has_slot: bool = False
    is_aborted: bool = False
    is_late: bool = False
    refusal: ModelUnavailable | None = None
    """Set when the call was displaced."""


@dataclass(slots=True)
class _Turn:
    """A call that may begin, or that was ended before."""

    queue_ms: int = 0
    is_aborted: bool = False


@dataclass
class QueuedModel:
    """`ChatModel` that lets at most `max_concurrency` calls into `inner`; the others wait in a `FairQueue`.

    The time limit of a call counts its wait. A call that finds no place raises ModelUnavailable with `retry_after_s`
    and `queued`: the engine was not asked. A call whose time ends while it waits raises ModelTimeout with `queued`.
    Ending or cancelling a waiting call takes it out; a slot is given back however its call ended. A rate cap holds a
    call for half of its time at most, persons first, else it raises RateLimited with `retry_after_s` (MB-28).

    Args:
        engine: id of the engine, for replies of calls that were ended while they waited.
        model: name of its model, likewise.
        weights: shares of tenants, 1 where none is given.
    """

    inner: ChatModel
    clock: Clock
    engine: str
    model: str = ""
    max_concurrency: int = 16
    max_waiting: int = 256
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    aged_after_ms: int = AGED_AFTER_MS
    limiter: RateLimiter = field(default_factory=RateLimiter)

    def __post_init__(self) -> None:
        self._queue = FairQueue(max_waiting=self.max_waiting, weights=self.weights, aged_after_ms=self.aged_after_ms)
        self._waiting: dict[int, _Waiting] = {}
        """By number of the ticket."""
        self._gate = RateGate(self.limiter, self.clock, self.engine, self.aged_after_ms)
        self._held: set[_Waiting] = set()
        """Those that a rate cap holds."""
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_ms = 0
        self._mean_ms = 0.0
        self._stats = QueueStats()

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`; `queue_ms` of the reply says how long the call waited for its turn."""
        turn = await self._enter(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        if turn.is_aborted:
            return self._ended(turn)
        started = self.clock.monotonic_ms()
        left_s = timeout_s - turn.queue_ms / 1000
        try:
            reply = await self.inner.complete(request, request_id=request_id, timeout_s=left_s, tag=tag)
        except ModelTimeout as error:
            _blame(error, turn.queue_ms, timeout_s)
            raise
        finally:
            self._leave(started)
        return _waited(reply, turn.queue_ms)

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`. The slot is held until the stream ends or is closed."""
        turn = await self._enter(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        if turn.is_aborted:
            yield ChatChunk(reply=self._ended(turn))
            return
        started = self.clock.monotonic_ms()
        left_s = timeout_s - turn.queue_ms / 1000
        try:
            chunks = self.inner.stream(request, request_id=request_id, timeout_s=left_s, tag=tag)
            async with closed_after(chunks):
                async for chunk in chunks:
                    whole = None if chunk.reply is None else _waited(chunk.reply, turn.queue_ms)
                    yield ChatChunk(text=chunk.text, reply=whole)
        except ModelTimeout as error:
            _blame(error, turn.queue_ms, timeout_s)
            raise
        finally:
            self._leave(started)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`: a call that waits ends without a text, one that runs is ended by the engine."""
        for entry in [*self._waiting.values(), *self._held]:
            if entry.request_id == request_id:
                entry.is_aborted = True
                self._end(entry)
        await self.inner.abort(request_id)

    async def health(self) -> None:
        """See `ChatModel.health`; it does not wait for a turn."""
        await self.inner.health()

    def stats(self) -> QueueStats:
        """What waits and runs now, and what happened so far."""
        return replace(self._stats, waiting=len(self._queue))

    async def _enter(self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag) -> _Turn:
        """The turn of the call, with a slot taken unless it was aborted."""
        if self._stats.running < self.max_concurrency and not self._waiting and self.limiter.is_unlimited:
            self._stats.running += 1
            self._stats.served += 1
            return _Turn()
        over = asyncio.get_running_loop().create_future()
        entry = _Waiting(request_id, self.clock.monotonic_ms(), over)
        tokens = estimate_call(request)
        try:
            await self._hold(entry, tag, tokens, timeout_s)
            if not entry.is_aborted:
                await self._line_up(entry, tag, tokens, timeout_s)
        except BaseException:
            self._withdraw(entry)
            raise
        return self._turn_of(entry)

    def _turn_of(self, entry: _Waiting) -> _Turn:
        queue_ms = self.clock.monotonic_ms() - entry.arrived_ms
        if entry.is_aborted:
            self._withdraw(entry)
            return _Turn(queue_ms, is_aborted=True)
        self._forget(entry)
        self._stats.served += 1
        self._stats.queue_ms += queue_ms
        return _Turn(queue_ms)

    async def _hold(self, entry: _Waiting, tag: CallTag, tokens: int, timeout_s: float) -> None:
        """Returns when the rate caps let the call through, or when it was aborted."""
        if self.limiter.is_unlimited:
            return
        self._held.add(entry)
        try:
            await self._gate.enter(tag, tokens=tokens, longest_ms=round(timeout_s * 500), over=entry.over)
        except RateLimited:
            self._stats.rejected += 1
            raise
        finally:
            self._held.discard(entry)

    async def _line_up(self, entry: _Waiting, tag: CallTag, tokens: int, timeout_s: float) -> None:
        """Returns when the call has a slot or was aborted; raises when it was refused, displaced or is too late."""
        now_ms = self.clock.monotonic_ms()
        admitted = self._queue.offer(tag.tenant, tag.priority, tokens=tokens, now_ms=now_ms)
        if not isinstance(admitted, Admitted):
            self._stats.rejected += 1
            raise self._come_later()
        if admitted.displaced is not None:
            self._displace(admitted.displaced)
        entry.ticket = admitted.ticket
        entry.deadline_ms = entry.arrived_ms + round(timeout_s * 1000)
        self._waiting[admitted.ticket.number] = entry
        self._serve()
        if not entry.over.done():
            self._set_alarm(entry.deadline_ms)
            await entry.over
        if entry.refusal is not None:
            raise entry.refusal
        if entry.is_late:
            raise self._too_late(timeout_s)

    def _set_alarm(self, at_ms: int) -> None:
        """Calls whose time ends then are told so. One alarm serves all that wait: a timer for each would cost more."""
        alarm = self._alarm
        if alarm is not None and not alarm.done() and self._alarm_ms <= at_ms:
            return
        if alarm is not None:
            alarm.cancel()
        self._alarm_ms = at_ms
        self._alarm = asyncio.get_running_loop().create_task(self._expire(at_ms))

    async def _expire(self, at_ms: int) -> None:
        await self.clock.sleep((at_ms - self.clock.monotonic_ms()) / 1000)
        self._alarm, now_ms = None, self.clock.monotonic_ms()
        waiting = [entry for entry in self._waiting.values() if not entry.over.done()]
        for entry in waiting:
            if entry.deadline_ms <= now_ms:
                entry.is_late = True
                self._end(entry)
        if left := [entry.deadline_ms for entry in waiting if not entry.is_late]:
            self._set_alarm(min(left))

    def _displace(self, ticket: Ticket) -> None:
        self._stats.rejected += 1
        displaced = self._waiting[ticket.number]
        self._forget(displaced)
        displaced.refusal = self._come_later()
        _done(displaced)

    def _end(self, entry: _Waiting) -> None:
        """The waiting of the call is over; a slot that it has is given back when its task goes on."""
        if entry.over.done():
            return
        if entry.ticket is not None:
            self._queue.remove(entry.ticket)
            self._forget(entry)
        entry.over.set_result(None)

    def _withdraw(self, entry: _Waiting) -> None:
        """The call neither waits nor holds a slot, whatever came at the same moment."""
        self._held.discard(entry)
        if not self._forget(entry):
            return
        if entry.has_slot:
            self._stats.running -= 1
            self._serve()
        elif entry.ticket is not None:
            self._queue.remove(entry.ticket)

    def _forget(self, entry: _Waiting) -> bool:
        """Whether the call was among those that wait, or that have a slot and did not go on yet. It no longer is."""
        was_queued = entry.ticket is not None and self._waiting.pop(entry.ticket.number, None) is not None
        if not self._waiting and self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        return was_queued

    def _too_late(self, timeout_s: float) -> ModelTimeout:
        self._stats.rejected += 1
        return ModelTimeout(
            f"engine {self.engine!r} had no room within {timeout_s:g} s: {len(self._queue)} calls wait and "
            f"{self._stats.running} run; come again later, or give the engine more replicas",
            engine=self.engine,
            waiting=len(self._queue),
            retry_after_s=self._retry_after_s(),
            queued=True,
        )

    def _leave(self, started_ms: int) -> None:
        took = self.clock.monotonic_ms() - started_ms
        self._mean_ms = took if not self._mean_ms else (1 - _SMOOTHING) * self._mean_ms + _SMOOTHING * took
        self._stats.running -= 1
        self._serve()

    def _serve(self) -> None:
        while self._stats.running < self.max_concurrency:
            ticket = self._queue.take(now_ms=self.clock.monotonic_ms())
            if ticket is None:
                return
            self._stats.running += 1
            entry = self._waiting[ticket.number]
            entry.has_slot = True
            _done(entry)

    def _come_later(self) -> ModelUnavailable:
        return ModelUnavailable(
            f"engine {self.engine!r} is busy: {len(self._queue)} calls wait already; come again in "
            f"{self._retry_after_s()} s",
            engine=self.engine,
            waiting=len(self._queue),
            retry_after_s=self._retry_after_s(),
            queued=True,
        )

    def _retry_after_s(self) -> int:
        """When half of those that wait now will probably have been served."""
        rounds = len(self._queue) / self.max_concurrency / 2
        return max(1, min(_LONGEST_RETRY_S, math.ceil(rounds * self._mean_ms / 1000)))

    def _ended(self, turn: _Turn) -> ChatReply:
        return ChatReply(
            text="",
            finish_reason="abort",
            usage=TokenUsage(),
            engine=self.engine,
            model=self.model,
            latency_ms=turn.queue_ms,
            queue_ms=turn.queue_ms,
        )


def behind_queue(
    inner: ChatModel,
    engine: HttpEngine | ActorEngine | PluginEngine,
    clock: Clock,
    *,
    weights: Mapping[str, int] | None = None,
) -> QueuedModel:
    """The model behind the queue that the entry of config/models.yaml describes."""
    return QueuedModel(
        inner,
        clock,
        engine.engine_id,
        engine.model,
        max_concurrency=engine.max_concurrency,
        max_waiting=engine.max_waiting,
        weights=weights or {},
        limiter=RateLimiter(engine.rate_cap, engine.tenant_caps),
    )


def _done(entry: _Waiting) -> None:
    # A task that is cancelled takes its future along before it goes on and gives back what it was given.
    if not entry.over.done():
        entry.over.set_result(None)


def _blame(error: ModelTimeout, queue_ms: int, timeout_s: float) -> None:
    """A call that spent most of its time in the queue says nothing about the engine."""
    if queue_ms > timeout_s * 500:
        error.details["queued"] = True


def _waited(reply: ChatReply, queue_ms: int) -> ChatReply:
    """The reply with the wait in front of its own times."""
    if not queue_ms:
        return reply
    times = {"queue_ms": reply.queue_ms + queue_ms, "latency_ms": reply.latency_ms + queue_ms}
    return reply.model_copy(update=times)


@asynccontextmanager
async def closed_after(chunks: AsyncIterator[ChatChunk]) -> AsyncGenerator[None]:
    """The stream is closed at the end, where it is one that can be closed."""
    try:
        yield
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
