"""Ports as a council asks them: each call says for which step it is made, so that its receiver knows its place."""

from __future__ import annotations

from fleet.context.port import CountRequest, Pack, PackRequest, Packs
from fleet.kernel.ids import RunKey, StoryId
from fleet.models.port import AgentAnswer, AgentRequest, Agents
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.remote.observed_log import ObservedLog
from fleet.sandbox.port import LogPage, RunProgress, Sandbox, SandboxHealth
from fleet.telemetry.service import on_behalf_of
from fleet.tools.port import ToolContext, ToolHost


class TracedAgents:
    """Port Agents; the request's id is `<story>/<step>`."""

    def __init__(self, agents: Agents, log: ObservedLog) -> None:
        self._agents, self._log = agents, log

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See `Agents.ask`."""
        story_id, _, step = request_id.partition("/")
        with on_behalf_of(self._log.cause(story_id, step)):
            return await self._agents.ask(request, request_id=request_id, timeout_s=timeout_s)


class TracedPacks:
    """Port Packs; a pack belongs to the story as a whole."""

    def __init__(self, packs: Packs, log: ObservedLog) -> None:
        self._packs, self._log = packs, log

    async def pack(self, request: PackRequest) -> Pack:
        """See `Packs.pack`."""
        with on_behalf_of(self._log.cause(request.story_id)):
            return await self._packs.pack(request)

    async def count(self, request: CountRequest) -> int:
        """See `Packs.count`."""
        with on_behalf_of(self._log.cause(request.story_id)):
            return await self._packs.count(request)


class TracedSandbox:
    """Port Sandbox; the step is known by the key of the run."""

    def __init__(self, sandbox: Sandbox, log: ObservedLog) -> None:
        self._sandbox, self._log = sandbox, log

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """See `Sandbox.run`."""
        with on_behalf_of(self._log.cause(story, key=key)):
            return await self._sandbox.run(spec, story=story, key=key, epoch=epoch)

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """See `Sandbox.submit`."""
        with on_behalf_of(self._log.cause(story, key=key)):
            return await self._sandbox.submit(spec, story=story, key=key, epoch=epoch)

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """See `Sandbox.progress`."""
        return await self._sandbox.progress(key, wait_s=wait_s)

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """See `Sandbox.logs`."""
        return await self._sandbox.logs(key, after=after, limit=limit, wait_s=wait_s)

    async def cancel(self, key: RunKey) -> bool:
        """See `Sandbox.cancel`."""
        return await self._sandbox.cancel(key)

    async def health(self) -> SandboxHealth:
        """See `Sandbox.health`."""
        return await self._sandbox.health()


class TracedToolHost:
    """Port ToolHost; the step is known by the key of the call."""

    def __init__(self, tools: ToolHost, log: ObservedLog) -> None:
        self._tools, self._log = tools, log

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See `ToolHost.call`."""
        with on_behalf_of(self._log.cause(context.story_id, key=context.key)):
            return await self._tools.call(call, context)

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """See `ToolHost.preview`."""
        with on_behalf_of(self._log.cause(context.story_id)):
            return await self._tools.preview(call, context)
