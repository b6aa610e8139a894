"""Waiting that an abort or a deadline ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from typing import Literal, TypeVar

__all__ = ["Aborted", "Race", "racing"]

T = TypeVar("T")


class Aborted(Exception):
    """The request was aborted; never leaves this package."""


class Race:
    """Awaits one piece of work after the other, each until the abort or the deadline comes first."""

    def __init__(self, aborted: asyncio.Future[Literal[True]], deadline: float) -> None:
        self._aborted = aborted
        self._deadline = deadline

    async def run(self, work: Awaitable[T]) -> T:
        """The result of `work`; Aborted or TimeoutError when it was not there in time. Nothing of it goes on then."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                {task, self._aborted},
                timeout=max(0.0, self._deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            if self._aborted.done():
                raise Aborted
            raise TimeoutError
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def racing(aborted: asyncio.Event, deadline: float) -> AsyncGenerator[Race]:
    """A race against this event and this moment of `time.monotonic`."""
    waiting = asyncio.ensure_future(aborted.wait())
    try:
        yield Race(waiting, deadline)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
