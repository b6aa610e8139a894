"""Work on a clock that goes on by itself whenever nothing else can happen: minutes of waiting in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fleet.adapters.memory.clock import MemoryClock

__all__ = ["in_virtual_time", "settled"]

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
