"""What every actor shell has: a name, health, drain, and background work that ends with the process."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

from fleet.wiring import Endpoints

__all__ = ["Shell"]

_LONGEST_PAUSE_S = 60.0
_WELL_S = 30.0
"""Work that has run for so long is well."""


class Shell:
    """Base of the actor shells. The constructor opens nothing that can fail; connections come with the first use."""

    first_pause_s = 1.0
    """Seconds before work that failed starts again; twice as many after each further failure."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        self.name, self.endpoints = name, endpoints
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: str | None = None
        self._again_at = math.inf
        """When the work that failed last was started again; never so far."""

    def __repr__(self) -> str:
        return self.name

    def background(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Keep this running beside the calls of the actor: work that fails starts again, and `health` says why."""
        task = asyncio.get_running_loop().create_task(self._kept_running(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kept_running(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        pause_s = self.first_pause_s
        while True:
            started = time.monotonic()
            try:
                await work()
                return
            except Exception as error:
                # The task boundary of an actor: the failure shows in `fleet status` and goes to the actor's log.
                self._failure = f"{type(error).__name__}: {error}"
                traceback.print_exc(file=sys.stderr)
            if time.monotonic() - started > _WELL_S:
                pause_s = self.first_pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            self._again_at = time.monotonic()

    async def health(self) -> dict[str, Any]:
        """Name, process id and state: ready, or failed and why."""
        # Work that started again counts as failed until it has run for a while: it may fail each time.
        is_well = self._failure is None or time.monotonic() - self._again_at > _WELL_S
        state = "ready" if is_well else f"failed: {self._failure}"
        return {"name": self.name, "pid": os.getpid(), "state": state, "code": self.endpoints.code_digest}

    async def drain(self) -> None:
        """Background work has ended."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
