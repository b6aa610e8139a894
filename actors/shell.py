"""What every actor shell has: a name, health, drain, and background work that ends with the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from actors.causes import carrying_causes
from fleet.kernel.collector import expect_long_life
from fleet.kernel.errors import FleetError
from fleet.remote.meter import RayMeter
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.redaction import use_configured_redaction
from fleet.wiring.telemetry import make_telemetry

_LOG = logging.getLogger("actors.shell")
_LONGEST_PAUSE_S = 60.0
_LAST_S = 5.0
_WELL_S = 30.0
"""Work that has run for so long is well."""


class Shell:
    """Base of the actor shells. The constructor opens nothing that can fail; connections come with the first use."""

    first_pause_s = 1.0
    """Seconds before work that failed starts again; twice as many after each further failure."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        use_configured_redaction(endpoints.files)
        expect_long_life()
        self.name, self.endpoints = name, endpoints
        self.telemetry = make_telemetry(endpoints.observability, name, meter=RayMeter())
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: str | None = None
        self._again_at = math.inf
        """When the work that failed last was started again; never so far."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        carrying_causes(cls)

    def __repr__(self) -> str:
        return self.name

    def background(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Keep this running beside the calls of the actor: work that fails starts again, and `health` says why."""
        self._loop = asyncio.get_running_loop()
        task = self._loop.create_task(self._kept_running(work))
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
                self.telemetry.meter.add("fleet_actor_failures_total", labels={"actor": self.name})
                _LOG.exception("background work failed; it starts again in %g s", pause_s)
            if time.monotonic() - started > _WELL_S:
                pause_s = self.first_pause_s
            # By chance, so that actors that lost the same server do not come back at the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
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
        await asyncio.to_thread(self.telemetry.close)

    def __ray_shutdown__(self) -> None:
        """What this process holds is given back: Ray calls it before a process ends, by SIGTERM or with its node too.

        At most a few seconds; what was not given back then is taken over when its lease has ended.
        """
        loop = self._loop
        if loop is None or not loop.is_running() or loop is asyncio._get_running_loop():
            return
        with contextlib.suppress(TimeoutError, FleetError):
            asyncio.run_coroutine_threadsafe(self.drain(), loop).result(_LAST_S)
