"""`sandbox:<node>`: runs commands in the sandbox of one node, and reads and writes the repositories that live on it."""

from __future__ import annotations

import asyncio
import contextlib

from actors.sandbox_sessions import SessionMethods
from actors.shell import Shell
from fleet.errors import ConfigError, FleetError
from fleet.ids import RunKey, StoryId
from fleet.ports import (
    ChangeRequest,
    ChangeRequests,
    Commit,
    CommitState,
    EndedChange,
    FetchedRepository,
    LogPage,
    OpenedChange,
    RunProgress,
    SandboxHealth,
    StagedRepository,
    ToolContext,
)
from fleet.tools import RunResult, RunSpec, ToolCall, ToolOutcome
from fleet.wiring import (
    Endpoints,
    make_change_requests,
    make_forge,
    make_node_toolbox,
    make_sandbox_parts,
    make_sessions,
    make_supervisor,
)

__all__ = ["SandboxShell"]

_SWEEP_S = 60.0
"""Seconds between two searches for what dead runs left."""


class SandboxShell(SessionMethods, Shell):
    """Thin shell over ToolSupervisor and the local forge."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        parts = make_sandbox_parts(endpoints)
        self._supervisor = make_supervisor(endpoints, parts, name=name, telemetry=self.telemetry)
        self._sessions = make_sessions(parts, self._supervisor)
        self._forge = make_forge(endpoints, parts)
        self._changes = make_change_requests(endpoints)
        self._toolbox = make_node_toolbox(endpoints, self._supervisor, parts.blobs, name=name)
        self.background(self._sweep)

    async def _sweep(self) -> None:
        while True:
            # A search that failed is made again: what is left over stays until one succeeds.
            with contextlib.suppress(FleetError):
                await self._supervisor.sweep()
                await self.sweep_sessions()
            await asyncio.sleep(_SWEEP_S)

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

    async def call_tool(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry out one tool call that was allowed, once per key."""
        return await self._toolbox.call(call, context)

    async def preview_tool(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """Say what a tool call would do, without doing it."""
        return await self._toolbox.preview(call, context)

    async def cancel_tool(self, key: RunKey) -> bool:
        """End the tool call of this key if it is under way here."""
        return await self._toolbox.cancel(key)

    async def sandbox_health(self) -> SandboxHealth:
        """What the sandbox enforces here, by probes."""
        return await self._supervisor.health()

    async def stage(self, url: str, ref: str | None) -> StagedRepository:
        """Pin a commit of a local repository and copy what a run may see of it."""
        return await self._forge.stage(url, ref)

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """Keep what was fetched of a repository on another machine, where runs can see it."""
        return await self._forge.stage_fetched(fetched)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """Create the branch of a story in a local repository."""
        await self._forge.publish(url, branch, commit, expected_old=expected_old)

    async def open_change_request(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """The change request of this branch is open at the forge and says this; one per branch, ever."""
        return await self._required_changes().open_or_update(change)

    async def set_commit_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """The forge shows the verdict beside the commit."""
        await self._required_changes().set_status(repository, commit, state=state, description=description, link=link)

    def _required_changes(self) -> ChangeRequests:
        if self._changes is None:
            raise ConfigError("this fleet has no forge: set `forge` in fleet.yaml and start it again")
        return self._changes
