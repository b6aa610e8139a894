"""The clock: the port, the system's, and one that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Coroutine
from itertools import count
from typing import Any, Protocol, TypeVar


class Clock(Protocol):
    """Wall time for records, monotonic time for waits and margins."""

    def now_ms(self) -> int:
        """UTC milliseconds since the Unix epoch; may step back."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after at least `seconds`."""
        ...


class SystemClock:
    """Time as the operating system tells it. Implements the port Clock."""

    def now_ms(self) -> int:
        """UTC milliseconds since the Unix epoch; may step back."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""
        return time.monotonic_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Return after at least `seconds`."""
        await asyncio.sleep(seconds)


class MemoryClock:
    """Time stands still until `advance` moves it; `sleep` returns when it was moved far enough. Implements Clock.

    Args:
        now_ms: UTC milliseconds at the start.
    """

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = now_ms
        self._monotonic_ms = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """UTC milliseconds since the Unix epoch."""
        return self._wall_ms + int(self._monotonic_ms)

    def monotonic_ms(self) -> int:
        """Milliseconds that were advanced since the start."""
        return int(self._monotonic_ms)

    @property
    def sleepers(self) -> int:
        """How many tasks wait in `sleep`: what a test looks at before it advances."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Return once the clock was advanced by `seconds`; after one turn of the loop when that is not positive."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_ms + seconds * 1000, next(self._order), woken))
        await woken

    def advance(self, seconds: float) -> None:
        """Both times go on by `seconds`; every sleeper whose time has come goes on, the earliest first."""
        self._monotonic_ms += seconds * 1000
        while self._sleepers and self._sleepers[0][0] <= self._monotonic_ms:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def step_wall(self, seconds: float) -> None:
        """Only the wall time jumps, forward or back, as after a correction of the machine's clock."""
        self._wall_ms += int(seconds * 1000)


T = TypeVar("T")
_TURNS = 25
"""Turns of the loop after which tasks that do not sleep have come to rest."""


async def settled(turns: int = _TURNS) -> None:
    """Tasks went on as far as they get without the clock."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def in_virtual_time(
    clock: MemoryClock, work: Coroutine[Any, Any, T], *, step_s: float = 0.01, turns: int = _TURNS
) -> T:
    """The result of `work`; the clock advances by `step_s` each time that all tasks rest."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await settled(turns)
            if clock.sleepers and not task.done():
                clock.advance(step_s)
        return task.result()
    finally:
        task.cancel()
