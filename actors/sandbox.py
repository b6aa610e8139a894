"""`sandbox:<node>` of the home: runs commands, and reads and writes the repositories that live on its node."""

from __future__ import annotations

import asyncio

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    import ray

    from actors.sandbox_deployments import DeploymentMethods
    from actors.sandbox_nodes import NodeKeeper
    from actors.sandbox_runs import RunsShell
    from actors.sandbox_sessions import SessionMethods
    from fleet.forge.port import (
        ChangeRequest,
        ChangeRequests,
        Commit,
        CommitState,
        EndedChange,
        FetchedRepository,
        OpenedChange,
        StagedRepository,
    )
    from fleet.kernel.errors import ConfigError
    from fleet.kernel.ids import Digest, RunKey
    from fleet.policy.rules.calls import ToolCall
    from fleet.policy.runs.outcome import ToolOutcome
    from fleet.tools.port import ToolContext
    from fleet.wiring.change_requests import make_change_requests
    from fleet.wiring.deployments import make_deployments
    from fleet.wiring.endpoints import Endpoints
    from fleet.wiring.roster import spreads_runs
    from fleet.wiring.sandbox.environments import make_environments
    from fleet.wiring.sandbox.services import make_forge, make_sessions, remove_abandoned
    from fleet.wiring.sandbox.tools import make_node_toolbox
    from fleet.workspace.project import LayerNeeds
    from fleet.workspace.service.repository_environment import MadeEnvironment

_LOOK_S = 3.0
"""Seconds between two looks for nodes that came or went."""


class SandboxShell(SessionMethods, DeploymentMethods, RunsShell):
    """Thin shell over ToolSupervisor, the tools and the local forge; keeps the supervisors of further nodes."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._sessions = make_sessions(self._parts, self._supervisor)
        self._deployments = make_deployments(endpoints, self._parts)
        if self._deployments is not None:
            self.background(self._deployments.keep)
        self._forge = make_forge(endpoints, self._parts)
        self._environments = make_environments(endpoints, self._parts.state_root, self._parts.blobs)
        self._changes = make_change_requests(endpoints)
        self._toolbox = make_node_toolbox(
            endpoints, self._supervisor, self._parts.blobs, name=name, changes=self._changes
        )
        self._nodes = NodeKeeper(endpoints, name)
        # Without Ray around it this is one sandbox, on this machine.
        if spreads_runs(endpoints) and ray.is_initialized():
            self.background(self._keep_nodes)

    async def _sweep_once(self) -> None:
        await super()._sweep_once()
        await self.sweep_sessions()
        if self._nodes.alive:
            await asyncio.to_thread(remove_abandoned, self._parts, self._nodes.alive)

    async def _keep_nodes(self) -> None:
        while True:
            await asyncio.to_thread(self._nodes.keep)
            await asyncio.sleep(_LOOK_S)

    async def supervisors(self) -> list[str]:
        """Name the supervisors that take runs, this one first."""
        return self._nodes.names

    async def call_tool(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """Carry out one tool call that was allowed, once per key."""
        return await self._toolbox.call(call, context)

    async def preview_tool(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """Say what a tool call would do, without doing it."""
        return await self._toolbox.preview(call, context)

    async def cancel_tool(self, key: RunKey) -> bool:
        """End the tool call of this key if it is under way here."""
        return await self._toolbox.cancel(key)

    async def stage(self, url: str, ref: str | None) -> StagedRepository:
        """Pin a commit of a local repository and copy what a run may see of it."""
        return await self._forge.stage(url, ref)

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """Keep what was fetched of a repository on another machine, where runs can see it."""
        return await self._forge.stage_fetched(fetched)

    async def make_environment(self, needs: LayerNeeds, *, tree: Digest, commit: str) -> MadeEnvironment:
        """Fetch what a repository asks for, once for each lockfile, and try its tests."""
        return await self._environments.make(needs, tree=tree, commit=commit)

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
