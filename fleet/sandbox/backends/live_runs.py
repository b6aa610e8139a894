"""What every backend does with the runs under way and with the findings of its probes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from fleet.kernel.errors import InvalidInput
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.port import SandboxHealth

T = TypeVar("T")


class LiveRuns:
    """The runs of one backend by their ids. Invariant: an id is here exactly while its work goes on."""

    def __init__(self) -> None:
        self._stops: dict[str, Stop] = {}

    async def carry_out(self, run_id: str, work: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
        """The result of the work. When the caller is cancelled, the work has ended before this method is left.

        Raises InvalidInput when a run of this id is under way.
        """
        if run_id in self._stops:
            raise InvalidInput(f"run {run_id!r} is under way already", run_id=run_id)
        stop = self._stops[run_id] = Stop()
        task = asyncio.create_task(work(stop))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.hurry("cancelled")
            await _settled(task)
            raise
        finally:
            del self._stops[run_id]

    def cancel(self, run_id: str) -> bool:
        """The run is asked to end, with its grace; False when there is none of this id."""
        stop = self._stops.get(run_id)
        if stop is not None:
            stop.request("cancelled")
        return stop is not None


async def _settled(task: asyncio.Task[Any]) -> None:
    """The task is done, however often the caller is cancelled meanwhile."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()


class KeptHealth:
    """The probes' findings: the first good answer is kept, a bad one is tried again the next time.

    Args:
        probe: runs the probes; never twice at one time.
    """

    def __init__(self, probe: Callable[[], Awaitable[SandboxHealth]]) -> None:
        self._probe = probe
        self._found: SandboxHealth | None = None
        self._checking = asyncio.Lock()  # one prober

    async def get(self) -> SandboxHealth:
        """What is known, or found now."""
        async with self._checking:
            if self._found is None:
                health = await self._probe()
                if health.status != "ok":
                    return health
                self._found = health
            return self._found
