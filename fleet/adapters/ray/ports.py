"""Ports that are served by actors: role agents, context packs, the sandbox, the forge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fleet.adapters.ray.resolver import ActorResolver
from fleet.errors import InvalidInput, ModelUnavailable, StoreError
from fleet.ids import RunKey, StoryId
from fleet.ports import AgentAnswer, AgentRequest, Commit, Pack, PackRequest, SandboxHealth, StagedRepository
from fleet.tools import RunResult, RunSpec

__all__ = ["RayAgents", "RayForge", "RayPacks", "RaySandbox"]

_CALL_MARGIN_S = 30.0


class RayAgents:
    """Port Agents over the actors `role:<role>:<n>`. A seat always lands on the same actor of its pool."""

    def __init__(self, resolver: ActorResolver, pools: Mapping[str, int]) -> None:
        self._resolver, self._pools = resolver, pools

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See the port."""
        size = self._pools.get(request.role)
        if size is None:
            allowed = sorted(self._pools)
            raise InvalidInput(f"no actor serves role {request.role!r}; roles: {', '.join(allowed)}", allowed=allowed)
        number = int(hashlib.sha256(request.principal.encode()).hexdigest(), 16) % size
        if request.principal[-3:].isdigit():
            number = (int(request.principal[-3:]) - 1) % size
        name = f"role:{request.role}:{number}"
        try:
            return await self._resolver.call(
                name, "ask", request, request_id=request_id, timeout_s=timeout_s + _CALL_MARGIN_S, budget_s=timeout_s
            )
        except StoreError as error:
            raise ModelUnavailable(error.message, **error.details) from error


class RayPacks:
    """Port Packs over the actor `context`."""

    def __init__(self, resolver: ActorResolver) -> None:
        self._resolver = resolver

    async def pack(self, request: PackRequest) -> Pack:
        """See the port."""
        return await self._resolver.call("context", "pack", request, timeout_s=30.0)


class RaySandbox:
    """Port Sandbox over the actor `sandbox:<node>`. A call that was cut off is repeated under its key (RC-51)."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._resolver, self._name = resolver, f"sandbox:{node}"

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """See the port."""
        timeout_s = spec.limits.overall_s + _CALL_MARGIN_S
        return await self._resolver.call(
            self._name, "run", spec, story=story, key=key, epoch=epoch, timeout_s=timeout_s
        )

    async def cancel(self, key: RunKey) -> bool:
        """See the port."""
        return await self._resolver.call(self._name, "cancel", key, timeout_s=15.0)

    async def health(self) -> SandboxHealth:
        """See the port."""
        return await self._resolver.call(self._name, "sandbox_health", timeout_s=60.0)


class RayForge:
    """Port Forge over the actor `sandbox:<node>`, because a local repository lives on one node."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._resolver, self._name = resolver, f"sandbox:{node}"

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """See the port."""
        return await self._resolver.call(self._name, "stage", url, ref, timeout_s=300.0)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """See the port."""
        await self._resolver.call(
            self._name, "publish", url, branch, commit, expected_old=expected_old, timeout_s=300.0
        )
