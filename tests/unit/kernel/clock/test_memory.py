"""The clock that a test turns, and the signal that waits by it."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.clock import MemoryClock, SystemClock
from fleet.log.memory import Signal
from tests.support.stores import eventually


async def test_sleepers_wake_in_the_order_of_their_time_when_the_clock_is_advanced() -> None:
    clock, woken = MemoryClock(), list[str]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 10), ("soon", 1), ("soon too", 1)):
            group.create_task(sleeper(name, seconds))
        await eventually(lambda: clock.sleepers == 3, within_s=60)
        clock.advance(9.9)
        await eventually(lambda: clock.sleepers == 1 and len(woken) == 2, within_s=60)
        assert woken == ["soon", "soon too"]
        clock.advance(0.1)
    assert woken == ["soon", "soon too", "late"]


async def test_sleep_of_no_time_returns_without_an_advance() -> None:
    await MemoryClock().sleep(0)


async def test_cancelled_sleeper_is_forgotten() -> None:
    clock = MemoryClock()
    sleeper = asyncio.create_task(clock.sleep(1))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock.sleepers == 0
    clock.advance(2)


def test_step_of_the_wall_leaves_monotonic_time_alone() -> None:
    clock = MemoryClock(now_ms=1_000_000)
    clock.advance(1.5)
    assert (clock.now_ms(), clock.monotonic_ms()) == (1_001_500, 1500)
    clock.step_wall(-600)
    assert (clock.now_ms(), clock.monotonic_ms()) == (401_500, 1500)


async def test_system_clock_goes_forward_while_it_sleeps() -> None:
    clock = SystemClock()
    wall, start = clock.now_ms(), clock.monotonic_ms()
    await clock.sleep(0.01)
    assert clock.monotonic_ms() - start >= 9
    assert wall > 1_600_000_000_000


async def test_signal_waits_until_notified_or_out_of_time() -> None:
    clock, signal = MemoryClock(), Signal()
    waiting = asyncio.create_task(signal.wait(clock, until_ms=1000))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    signal.notify()
    assert await waiting is True
    waiting = asyncio.create_task(signal.wait(clock, until_ms=1000))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    clock.advance(1)
    assert await waiting is False
    assert await signal.wait(clock, until_ms=1000) is False
