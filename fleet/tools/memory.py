"""Tool hosts and sessions in memory, for unit tests and the simulation."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping

from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import FleetError, OutcomeUnknown, PolicyDenied, StoreUnavailable, ToolFailed
from fleet.kernel.ids import Digest, EntityId, RunKey, StoryId
from fleet.log.rules import key_reused, run_fenced
from fleet.policy.catalogue import WRITE_OPS
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome, excerpt_of
from fleet.tools.port import ORIGIN_S, SESSION_IDLE_S, ToolContext, ToolOrigin, ToolSession

ScriptedTool = Callable[[ToolCall, ToolContext], ToolOutcome | Awaitable[ToolOutcome]]


class MemoryToolHost:
    """Answers calls with Python functions. Implements the port ToolHost.

    Held: one outcome per key, joining, epochs, the excerpt. Not held: time limits, redaction, whole outputs as blobs.

    Args:
        tools: the function of each tool by its name, plain or async.
        previews: what a tool says of a call before it is made, by its name; none for a tool that cannot say.
    """

    def __init__(
        self, tools: Mapping[str, ScriptedTool], *, previews: Mapping[str, ScriptedTool] | None = None
    ) -> None:
        self._tools = dict(tools)
        self._previews = dict(previews or {})
        self._calls: dict[RunKey, tuple[Digest, asyncio.Task[ToolOutcome]]] = {}
        self._epochs: dict[StoryId, int] = {}
        self.calls: list[ToolCall] = []
        """Every call that was carried out, in order."""

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """See the port."""
        seen = self._epochs.get(context.story_id, 0)
        if context.epoch < seen:
            raise run_fenced(context.key, story=context.story_id, epoch=context.epoch, seen=seen)
        self._epochs[context.story_id] = context.epoch
        spec = digest_of_json({"call": call.model_dump(mode="json"), "tree": context.tree})
        started = self._calls.get(context.key)
        if started is not None and started[0] != spec:
            raise key_reused(context.key, spec=spec, recorded=started[0])
        if started is None:
            task = asyncio.create_task(self._carry_out(call, context))
            task.add_done_callback(lambda done: self._ended(context, done))
            started = self._calls[context.key] = spec, task
        return await asyncio.shield(started[1])

    async def preview(self, call: ToolCall, context: ToolContext) -> ToolOutcome | None:
        """See the port."""
        if call.tool not in self._previews or call.op not in WRITE_OPS.get(call.tool, ()):
            return None
        answer = self._previews[call.tool](call, context)
        return await answer if inspect.isawaitable(answer) else answer

    async def _carry_out(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        if call.tool not in self._tools:
            raise ToolFailed(f"no tool {call.tool!r} is wired here", tool=call.tool)
        self.calls.append(call)
        answer = self._tools[call.tool](call, context)
        try:
            outcome = await answer if inspect.isawaitable(answer) else answer
        except FleetError as error:
            if context.obligations.effect == "UNSAFE" and not isinstance(
                error, PolicyDenied | ToolFailed | StoreUnavailable
            ):
                raise OutcomeUnknown(f"{call.tool}.{call.op} may have happened: {error.message}") from error
            raise
        return outcome.model_copy(update={"text": excerpt_of(outcome.text)})

    def _ended(self, context: ToolContext, task: asyncio.Task[ToolOutcome]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (error is not None and not isinstance(error, OutcomeUnknown)):
            # Nothing was carried out, or it may be done again: the key is free.
            self._calls.pop(context.key, None)


class MemoryToolSessions:
    """Sessions kept as long as the object. Implements the port ToolSessions.

    Args:
        clock: says when a session has been idle for too long.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._held: dict[EntityId, tuple[ToolSession, int]] = {}
        self._origins: dict[EntityId, tuple[ToolOrigin, int]] = {}

    async def open(self, session: ToolSession, *, idle_s: int = SESSION_IDLE_S) -> ToolSession:
        """The session is there; the one that is there already when this id was opened before."""
        present = await self.use(session.session_id, idle_s=idle_s)
        if present is not None:
            return present
        self._held[session.session_id] = (session, self._until_ms(idle_s))
        return session

    async def use(self, session_id: EntityId, *, idle_s: int = SESSION_IDLE_S) -> ToolSession | None:
        """The session, alive for `idle_s` from now; None when it is over or never was."""
        session, until_ms = self._held.get(session_id, (None, 0))
        if session is None or until_ms <= self._clock.monotonic_ms():
            self._held.pop(session_id, None)
            return None
        self._held[session_id] = (session, self._until_ms(idle_s))
        return session

    async def close(self, session_id: EntityId) -> bool:
        """The session is over; False when it was already."""
        is_there = await self.use(session_id) is not None
        self._held.pop(session_id, None)
        return is_there

    async def remember(self, entity_id: EntityId, origin: ToolOrigin, *, ttl_s: int = ORIGIN_S) -> None:
        """The id leads to its story for `ttl_s` seconds."""
        self._origins[entity_id] = (origin, self._until_ms(ttl_s))

    async def origin_of(self, entity_id: EntityId) -> ToolOrigin | None:
        """Where the id belongs; None when nobody knows any more."""
        origin, until_ms = self._origins.get(entity_id, (None, 0))
        return origin if until_ms > self._clock.monotonic_ms() else None

    def _until_ms(self, idle_s: int) -> int:
        return self._clock.monotonic_ms() + idle_s * 1000
