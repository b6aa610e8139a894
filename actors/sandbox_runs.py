"""Runs commands in the sandbox of one node: all that the supervisor of a further node does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.shell import Shell
    from fleet.kernel.errors import FleetError
    from fleet.kernel.ids import RunKey, StoryId
    from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec
    from fleet.sandbox.port import LogPage, RunProgress, SandboxHealth
    from fleet.sandbox.service.spread import node_of
    from fleet.wiring.endpoints import Endpoints
    from fleet.wiring.sandbox.services import make_sandbox_parts, make_supervisor

_SWEEP_S = 60.0
"""Seconds between two searches for what dead runs left."""


class RunsShell(Shell):
    """Thin shell over ToolSupervisor."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._parts = make_sandbox_parts(endpoints, node=node_of(name))
        self._supervisor = make_supervisor(endpoints, self._parts, name=name, telemetry=self.telemetry)
        self.background(self._sweep)

    async def _sweep(self) -> None:
        while True:
            # A search that failed is made again: what is left over stays until one succeeds.
            with contextlib.suppress(FleetError):
                await self._sweep_once()
            await asyncio.sleep(_SWEEP_S)

    async def _sweep_once(self) -> None:
        await self._supervisor.sweep()
        for use in await self._supervisor.disk():
            labels = {"node": use.node, "kind": use.kind}
            self.telemetry.meter.set("fleet_disk_bytes", use.used_bytes, labels)
            self.telemetry.meter.set("fleet_disk_held_bytes", use.held_bytes, labels)
            self.telemetry.meter.set("fleet_disk_items", use.count, labels)
            if use.limit_bytes is not None:
                self.telemetry.meter.set("fleet_disk_limit_bytes", use.limit_bytes, labels)

    async def health(self) -> dict[str, Any]:
        """Name, process id and state; `active` runs are under way here."""
        return {**await super().health(), "active": self._supervisor.active}

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run one command, once per key."""
        return await self._supervisor.run(spec, story=story, key=key, epoch=epoch)

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """Start one command, once per key, and return at once."""
        return await self._supervisor.submit(spec, story=story, key=key, epoch=epoch)

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """Say where the run of this key is, of whatever node, and its result once it is over."""
        return await self._supervisor.progress(key, wait_s=wait_s)

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """Lines that the run of this key printed, live or from its record."""
        return await self._supervisor.logs(key, after=after, limit=limit, wait_s=wait_s)

    async def cancel(self, key: RunKey) -> bool:
        """End the run of this key, of whatever node."""
        return await self._supervisor.cancel(key)

    async def holds(self, key: RunKey) -> bool:
        """Say whether the run of this key is under way here, when another supervisor asks."""
        return await self._supervisor.holds(key)

    async def keeps(self, folder: LiveFolder) -> bool:
        """Say whether a folder of this work session is on this node, when a caller asks where its runs go."""
        return self._supervisor.keeps(folder)

    async def sandbox_health(self) -> SandboxHealth:
        """What the sandbox enforces here, by probes."""
        return await self._supervisor.health()
