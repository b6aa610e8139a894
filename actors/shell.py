"""What every actor shell has: a name, health, drain, and background work that ends with the process."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Coroutine
from typing import Any

from fleet.wiring import Endpoints

__all__ = ["Shell"]


class Shell:
    """Base of the actor shells. The constructor opens nothing that can fail; connections come with the first use."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        self.name, self.endpoints = name, endpoints
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: str | None = None

    def __repr__(self) -> str:
        return self.name

    def background(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run this beside the calls of the actor; a failure shows in `health`."""
        task = asyncio.get_running_loop().create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The task boundary of an actor: the failure is kept for `fleet status` and goes to the actor's log.
            self._failed = f"{type(error).__name__}: {error}"
            traceback.print_exc(file=sys.stderr)

    async def health(self) -> dict[str, Any]:
        """Name, process id and state: ready, or failed and why."""
        state = f"failed: {self._failed}" if self._failed else "ready"
        return {"name": self.name, "pid": os.getpid(), "state": state, "code": self.endpoints.code_digest}

    async def drain(self) -> None:
        """Background work has ended."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
