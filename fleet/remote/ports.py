"""Ports that are served by actors: role agents, context packs, the sandbox, the forge."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from fleet.context.port import CountRequest, Pack, PackActivity, PackRequest
from fleet.forge.port import (
    ChangeRequest,
    Commit,
    CommitState,
    EndedChange,
    FetchedRepository,
    OpenedChange,
    StagedRepository,
)
from fleet.kernel.errors import (
    FleetError,
    InvalidInput,
    ModelUnavailable,
    OutcomeUnknown,
    SandboxUnavailable,
    StoreError,
    ToolTimeout,
)
from fleet.kernel.ids import RunKey, StoryId
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.models.weights import TokenizerId
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.remote.patience import PatientCalls
from fleet.remote.resolver import ActorResolver
from fleet.remote.supervisors import Supervisors
from fleet.sandbox.port import LogPage, RunProgress, SandboxHealth
from fleet.sandbox.service.spread import combined, is_bound
from fleet.tools.port import ToolContext

_CALL_MARGIN_S = 30.0
_FORGE_S = 120.0
_QUEUE_S = 120.0
"""Seconds that a tool call may wait for its place."""


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
    """Ports Packs, TokenCounts and PackFigureSource over the actor `context`."""

    def __init__(self, resolver: ActorResolver) -> None:
        self._resolver = resolver

    async def pack(self, request: PackRequest) -> Pack:
        """See the port."""
        return await self._resolver.call("context", "pack", request, timeout_s=30.0)

    async def count(self, request: CountRequest) -> int:
        """See the port."""
        return await self._resolver.call("context", "count", request, timeout_s=30.0)

    async def tokens(self, tokenizers: tuple[TokenizerId | None, ...], texts: tuple[str, ...]) -> int:
        """See the port; a fleet without its actor is known at once."""
        return await self._resolver.call("context", "tokens", tokenizers, texts, timeout_s=10.0, found_within_s=2.0)

    async def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """See the port."""
        return await self._resolver.call("context", "activity", projects, timeout_s=2.0, found_within_s=0)


class RaySandbox:
    """Port Sandbox over the actors `sandbox:<node>`. A call that was cut off is repeated under its key (RC-51).

    Args:
        node: the home's, whose supervisor has the staged repositories.
        spread: all supervisors; runs without a repository go to any of them. None leaves everything to the home's.
    """

    def __init__(self, resolver: ActorResolver, node: str, *, spread: Supervisors | None = None) -> None:
        self._resolver, self._name, self._spread = resolver, f"sandbox:{node}", spread

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """See the port."""
        timeout_s = spec.limits.overall_s + _CALL_MARGIN_S
        return await self._at_one(spec, key, "run", spec, story=story, key=key, epoch=epoch, timeout_s=timeout_s)

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """See the port."""
        return await self._at_one(
            spec, key, "submit", spec, story=story, key=key, epoch=epoch, timeout_s=_CALL_MARGIN_S
        )

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """See the port."""
        return await self._at_any(key, "progress", key, wait_s=wait_s, timeout_s=wait_s + _CALL_MARGIN_S)

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """See the port."""
        return await self._at_any(
            key, "logs", key, after=after, limit=limit, wait_s=wait_s, timeout_s=wait_s + _CALL_MARGIN_S
        )

    async def cancel(self, key: RunKey) -> bool:
        """See the port."""
        return await self._at_any(key, "cancel", key, timeout_s=15.0)

    async def health(self) -> SandboxHealth:
        """See the port; of several supervisors what the home's enforces, and what is wrong with any of them."""
        names = () if self._spread is None else (await self._spread.names())[1:]
        home, *others = await asyncio.gather(self._health_of(self._name), *(self._known_health(n) for n in names))
        assert home is not None
        return combined(home, dict(zip(names, others, strict=True))) if names else home

    async def _health_of(self, name: str) -> SandboxHealth:
        return await self._called(("sandbox_health",), {"timeout_s": 60.0}, name)

    async def _known_health(self, name: str) -> SandboxHealth | None:
        try:
            return await self._health_of(name)
        except FleetError:
            return None

    async def _at_one(self, spec: RunSpec, own_key: RunKey, *args: Any, **kwargs: Any) -> Any:
        if self._spread is None:
            return await self._resolver.call(self._name, *args, **kwargs)
        ask = partial(self._called, args, kwargs)
        return await self._spread.at_one(own_key, ask, is_bound=is_bound(spec), folder=spec.folder)

    async def _at_any(self, own_key: RunKey, *args: Any, **kwargs: Any) -> Any:
        if self._spread is None:
            return await self._resolver.call(self._name, *args, **kwargs)
        return await self._spread.at_any(own_key, partial(self._called, args, kwargs))

    async def _called(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Any:
        # A supervisor that was named a moment ago and is not there now will not come.
        given = {} if name == self._name else {"found_within_s": 0.0}
        return await self._resolver.call(name, *args, **kwargs, **given)


class RayToolHost:
    """Port ToolHost over the actor `sandbox:<node>`. A call that was cut off is repeated under its key (RC-51)."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port. Of an UNSAFE call whose answer was lost the record is asked once, by its key."""
        try:
            return await self._ask(call, context)
        except (SandboxUnavailable, ToolTimeout) as error:
            if context.obligations.effect != "UNSAFE" or "actor" not in error.details:
                raise
        try:
            return await self._ask(call, context)
        except (SandboxUnavailable, ToolTimeout) as error:
            raise OutcomeUnknown(
                f"{call.tool}.{call.op} may have happened, and its node does not answer: {error.message}",
                **error.details,
            ) from error

    async def _ask(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        timeout_s = context.obligations.timeout_s + _QUEUE_S + _CALL_MARGIN_S
        return await self._calls.call(self._name, "call_tool", call, context, timeout_s=timeout_s)

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """See the port."""
        timeout_s = context.obligations.timeout_s + _CALL_MARGIN_S
        return await self._calls.call(self._name, "preview_tool", call, context, timeout_s=timeout_s)

    async def cancel(self, key: RunKey) -> bool:
        """End the call of this key if it is under way; False when it is not, or is UNSAFE."""
        return await self._calls.call(self._name, "cancel_tool", key, timeout_s=15.0)


class RayForge:
    """Port Forge over the actor `sandbox:<node>`, because a local repository lives on one node."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def stage(self, url: str, ref: str | None = None) -> StagedRepository:
        """See the port."""
        return await self._calls.call(self._name, "stage", url, ref, timeout_s=300.0)

    async def stage_fetched(self, fetched: FetchedRepository) -> StagedRepository:
        """See the port."""
        return await self._calls.call(self._name, "stage_fetched", fetched, timeout_s=300.0)

    async def publish(self, url: str, branch: str, commit: Commit, *, expected_old: str | None) -> None:
        """See the port."""
        await self._calls.call(self._name, "publish", url, branch, commit, expected_old=expected_old, timeout_s=300.0)


class RayChangeRequests:
    """Port ChangeRequests over the actor `sandbox:<node>`, which alone has the token of the forge."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def open_or_update(self, change: ChangeRequest) -> OpenedChange | EndedChange:
        """See the port."""
        return await self._calls.call(self._name, "open_change_request", change, timeout_s=_FORGE_S)

    async def set_status(
        self, repository: str, commit: str, *, state: CommitState, description: str, link: str = ""
    ) -> None:
        """See the port."""
        await self._calls.call(
            self._name,
            "set_commit_status",
            repository,
            commit,
            state=state,
            description=description,
            link=link,
            timeout_s=_FORGE_S,
        )
