"""The way past the rate caps of one engine: calls are held until their share is there, persons first (MB-28)."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import RateLimited
from fleet.models import CallTag
from fleet.models.fair_queue import AGED_AFTER_MS
from fleet.models.rate_caps import RateLimiter, RateNeed
from fleet.models.rate_line import HeldCall, RateLine
from fleet.ports import Clock

__all__ = ["RateGate"]


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
