"""`sandbox:<node>`: runs commands in the sandbox of one node, and reads and writes the repositories that live on it."""

from __future__ import annotations

import asyncio
import contextlib

from actors.shell import Shell
from fleet.errors import FleetError
from fleet.ids import RunKey, StoryId
from fleet.ports import Commit, SandboxHealth, StagedRepository
from fleet.tools import RunResult, RunSpec
from fleet.wiring import Endpoints, make_forge, make_sandbox_parts, make_supervisor

__all__ = ["SandboxShell"]

_SWEEP_S = 60.0
"""Seconds between two searches for what dead runs left."""


class SandboxShell(Shell):
    """Thin shell over ToolSupervisor and the local forge."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        parts = make_sandbox_parts(endpoints)
        self._supervisor = make_supervisor(endpoints, parts, name=name)
        self._forge = make_forge(endpoints, parts)
        self.background(self._sweep)

    async def _sweep(self) -> None:
        while True:
            # A search that failed is made again: what is left over stays until one succeeds.
            with contextlib.suppress(FleetError):
                await self._supervisor.sweep()
            await asyncio.sleep(_SWEEP_S)

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run one command, once per key."""
        return await self._supervisor.run(spec, story=story, key=key, epoch=epoch)

    async def cancel(self, key: RunKey) -> bool:
        """Kill the run of this key."""
        return await self._supervisor.cancel(key)

    async def sandbox_health(self) -> SandboxHealth:
        """What the sandbox enforces here, by probes."""
        return await self._supervisor.health()

    async def stage(self, url: str, ref: str | None) -> StagedRepository:
        """Pin a commit of a local repository and copy what a run may see of it."""
        return await self._forge.stage(url, ref)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """Create the branch of a story in a local repository."""
        await self._forge.publish(url, branch, commit, expected_old=expected_old)
