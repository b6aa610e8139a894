"""Calls of models for principals outside of stories: which engines they may use, what a call may cost, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from fleet.context.service.counts import PromptCounts, around_texts
from fleet.desk.principals import PrincipalSpending
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, InvalidInput, ModelError, ModelTimeout, ModelUnavailable, NotFound
from fleet.kernel.ids import Principal
from fleet.models.chat import CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.engine_config import EngineConfig
from fleet.models.port import ChatModel
from fleet.models.profiles import ModelsConfig
from fleet.models.routing.budget import MIN_USEFUL_TOKENS, Spend
from fleet.models.routing.routing import estimate_tokens
from fleet.models.service.queued_model import closed_after
from fleet.models.usage import cost_of
from fleet.owner.spending.port import SpendingHold

_LOG = logging.getLogger(__name__)
_NOT_MODELS = frozenset({"recorded", "mock"})


@dataclass(frozen=True, slots=True)
class EngineAccess:
    """Which engines are offered, and to whom."""

    also: Collection[str] = ()
    """Engines of recorded replies and mocks that are offered; those of real models are anyway."""
    roles: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    """Engine -> roles of which a caller needs one; an engine that is not named is open to every principal."""

    def allows(self, engine: EngineConfig, roles: Collection[str]) -> bool:
        """Whether a holder of these roles may use the engine."""
        if engine.kind in _NOT_MODELS and engine.engine_id not in self.also:
            return False
        needed = self.roles.get(engine.engine_id)
        return needed is None or not set(roles).isdisjoint(needed)


@dataclass(frozen=True, slots=True)
class ChatLimits:
    """Times of calls, in seconds."""

    timeout_s: float = 600
    """The whole call, its wait in queues included."""
    abort_grace_s: float = 5
    """From an abort until the engine has ended the request; then it is left to itself, and the reservation stays."""


@dataclass(eq=False)
class ChatCall:
    """One call under way. It goes on by itself until it is over or left; `next` gives what has come of it."""

    id: str
    who: Principal
    engine: EngineConfig
    request: ChatRequest
    hold: SpendingHold
    prompt_tokens: int
    """As they were counted, or estimated, before the call."""
    _came: asyncio.Queue[ChatChunk | FleetError] = field(default_factory=asyncio.Queue[ChatChunk | FleetError])
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, *, within_s: float | None = None) -> ChatChunk | None:
        """The next piece; the last one carries the whole reply. None when nothing came in time.

        Raises:
            FleetError: how the call failed; nothing comes after it.
        """
        try:
            async with asyncio.timeout(within_s):
                # Never longer than the reply, whose tokens are bounded: no bound of its own is needed.
                piece = await self._came.get()
        except TimeoutError:
            return None
        if isinstance(piece, FleetError):
            raise piece
        return piece

    async def reply(self) -> ChatReply:
        """The whole reply; errors as in `next`."""
        while True:
            chunk = await self.next()
            if chunk is not None and chunk.reply is not None:
                return chunk.reply

    def leave(self) -> None:
        """Nobody waits any more: a call that is not over is aborted at the engine, and settled all the same."""
        self._left.set()

    def tell(self, piece: ChatChunk | FleetError) -> None:
        """The piece or failure is there for `next`."""
        self._came.put_nowait(piece)

    async def abandoned(self) -> None:
        """Returns when the call was left."""
        await self._left.wait()


class ChatDesk:
    """Opens calls for principals; what a call used is settled however it ends.

    Args:
        models: by engine id; only ids that are offered are looked up.
        spending: budgets of principals.
        roles_of: the roles that a principal holds.
        prompts: counts what a prompt takes; without it prompts are estimated (CX-20).
    """

    def __init__(
        self,
        config: ModelsConfig,
        models: Mapping[str, ChatModel],
        *,
        spending: PrincipalSpending,
        clock: Clock,
        roles_of: Callable[[Principal], Collection[str]],
        access: EngineAccess | None = None,
        limits: ChatLimits | None = None,
        prompts: PromptCounts | None = None,
    ) -> None:
        self._config, self._models, self._spending, self._clock = config, models, spending, clock
        self._roles_of, self._access, self._limits = roles_of, access or EngineAccess(), limits or ChatLimits()
        self._prompts = prompts
        self._running: set[asyncio.Task[None]] = set()

    def offered(self, who: Principal) -> tuple[EngineConfig, ...]:
        """The engines that the principal may use, in the order of config/models.yaml."""
        roles = self._roles_of(who)
        return tuple(engine for engine in self._config.engines if self._access.allows(engine, roles))

    def engine(self, who: Principal, engine_id: str) -> EngineConfig:
        """The engine; NotFound when there is none of this id or the principal may not use it."""
        allowed = self.offered(who)
        for engine in allowed:
            if engine.engine_id == engine_id:
                return engine
        names = [engine.engine_id for engine in allowed]
        raise NotFound(
            f"there is no model {engine_id[:80]!r} for you; those that you may use: {', '.join(names) or 'none'}",
            field="model",
            allowed=names,
        )

    async def open(
        self,
        who: Principal,
        engine_id: str,
        request: ChatRequest,
        *,
        call_id: str,
        tag: CallTag,
        is_streamed: bool,
        is_bounded: bool = True,
    ) -> ChatCall:
        """The call is reserved and begins.

        Args:
            is_bounded: the caller said how long the reply may be. If not, the bound of the request is the engine's, and
                is lowered to what its context leaves beside the prompt: engines refuse what does not fit together.

        Raises:
            NotFound: as `engine`.
            InvalidInput: the engine cannot do what the request asks for.
            ModelUnavailable: nothing stands for the engine here.
            BudgetExceeded: a budget of the principal cannot hold the call; nothing was asked.
        """
        engine = self.engine(who, engine_id)
        check_capabilities(engine, request)
        model = self._models.get(engine_id)
        if model is None:
            raise ModelUnavailable(f"engine {engine_id!r} is configured but not there", engine=engine_id)
        counted = await self._prompts.of_chat(engine_id, request) if self._prompts is not None else None
        prompt_tokens = estimate_tokens("\n".join(request.texts)) if counted is None else counted
        most = request.sampling.max_tokens if is_bounded else _left(engine, request, counted)
        # MB-22: a reply that is too long for what is left of a budget is cut down to what is left.
        max_tokens = await self._spending.fitted(who, prompt_tokens=prompt_tokens, max_tokens=most, price=engine.price)
        hold = await self._spending.hold(
            who, call_id, prompt_tokens=prompt_tokens, max_tokens=max_tokens, price=engine.price
        )
        sampling = request.sampling.model_copy(update={"max_tokens": max_tokens})
        bounded = request.model_copy(update={"sampling": sampling})
        call = ChatCall(call_id, who, engine, bounded, hold, prompt_tokens)
        task = asyncio.create_task(self._carry(model, call, tag, is_streamed=is_streamed), name=f"chat {call_id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return call

    async def drain(self) -> None:
        """No call is under way: those that were are ended."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _carry(self, model: ChatModel, call: ChatCall, tag: CallTag, *, is_streamed: bool) -> None:
        reading = asyncio.ensure_future(self._read(model, call, tag, is_streamed=is_streamed))
        abandoned = asyncio.ensure_future(call.abandoned())
        try:
            await asyncio.wait({reading, abandoned}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                with contextlib.suppress(FleetError):
                    await model.abort(call.id)
                await asyncio.wait({reading}, timeout=self._limits.abort_grace_s)
        finally:
            abandoned.cancel()
            reading.cancel()
            await asyncio.gather(reading, abandoned, return_exceptions=True)

    async def _read(self, model: ChatModel, call: ChatCall, tag: CallTag, *, is_streamed: bool) -> None:
        started_ms, pieces = self._clock.monotonic_ms(), 0
        try:
            async with aclosing(self._chunks(model, call, tag, is_streamed=is_streamed)) as chunks:
                async for chunk in chunks:
                    pieces += bool(chunk.text)
                    if chunk.reply is not None:
                        # Before the caller knows it, so that the caller's next call finds the budget as it is.
                        await self._settle(call, _spent(call.engine, chunk.reply))
                    call.tell(chunk)
        except Exception as error:
            # The boundary of the task. Neither the text of an error nor a traceback is logged: both may quote a prompt.
            _LOG.warning("model call %s at %s failed: %s", call.id, call.engine.engine_id, _name_of(error))
            elapsed_ms = self._clock.monotonic_ms() - started_ms
            try:
                await self._settle(call, _spent_in_vain(call, error, pieces, elapsed_ms))
            finally:
                call.tell(error if isinstance(error, FleetError) else FleetError("the model call failed in the front"))

    async def _chunks(
        self, model: ChatModel, call: ChatCall, tag: CallTag, *, is_streamed: bool
    ) -> AsyncGenerator[ChatChunk]:
        timeout_s = self._limits.timeout_s
        if not is_streamed:
            reply = await model.complete(call.request, request_id=call.id, timeout_s=timeout_s, tag=tag)
            yield ChatChunk(reply=reply)
            return
        chunks = model.stream(call.request, request_id=call.id, timeout_s=timeout_s, tag=tag)
        async with closed_after(chunks):
            async for chunk in chunks:
                yield chunk
                if chunk.reply is not None:
                    return
        raise ModelUnavailable(f"engine {call.engine.engine_id!r} ended a stream without its reply")

    async def _settle(self, call: ChatCall, actual: Spend) -> None:
        try:
            await self._spending.settle(call.hold, actual)
        except FleetError as error:
            _LOG.error("the cost of model call %s is not settled, its reservation stays: %s", call.id, error.code)


def check_capabilities(engine: EngineConfig, request: ChatRequest) -> None:
    """Returns when the engine declares what the request needs; InvalidInput names what it lacks."""
    uses_tools = bool(request.tools) or any(m.tool_uses or m.tool_use_id for m in request.messages)
    # Real models without native tools are asked for them in text (MB-14).
    asked = {"json_schema": request.json_schema is not None, "tools": uses_tools and engine.kind in _NOT_MODELS}
    fields = {"json_schema": "response_format", "tools": "tools"}
    for name, is_asked in asked.items():
        if is_asked and name not in engine.capabilities:
            raise InvalidInput(
                f"model {engine.engine_id!r} has no capability {name!r}: leave {fields[name]} out or use another model",
                field=fields[name],
                value=name,
                allowed=sorted(engine.capabilities),
            )
    if engine.kind in _NOT_MODELS:
        try:
            _ = request.digest
        except TypeError as error:
            # Their replies are found by digest, which has no form for a float (GL-13).
            raise InvalidInput(
                f"model {engine.engine_id!r} takes integers alone in a schema: {error}", field="response_format"
            ) from error


def _spent(engine: EngineConfig, reply: ChatReply) -> Spend:
    usage = reply.usage
    return Spend(
        tokens=usage.tokens_in + usage.tokens_out,
        output_tokens=usage.tokens_out,
        calls=1,
        cost_microusd=_cost(engine, tokens_in=usage.tokens_in, tokens_out=usage.tokens_out),
        gpu_ms=reply.gpu_ms,
        wall_ms=reply.latency_ms,
    )


def _spent_in_vain(call: ChatCall, error: Exception, pieces: int, elapsed_ms: int) -> Spend:
    """What a failed call counts as: its prompt when the engine had begun or may have, and one token for a piece."""
    is_queued = isinstance(error, FleetError) and bool(error.details.get("queued"))
    has_begun = not is_queued and (pieces > 0 or isinstance(error, ModelTimeout) or not isinstance(error, ModelError))
    tokens_in = call.prompt_tokens if has_begun else 0
    return Spend(
        tokens=tokens_in + pieces,
        output_tokens=pieces,
        calls=1,
        cost_microusd=_cost(call.engine, tokens_in=tokens_in, tokens_out=pieces),
        wall_ms=elapsed_ms,
    )


def _left(engine: EngineConfig, request: ChatRequest, counted: int | None) -> int:
    """The longest reply that a request without a bound of its own may have, in tokens."""
    most = request.sampling.max_tokens
    if counted is not None:
        return max(1, min(most, engine.max_context - counted))
    # An estimate may be far too high: rather than cut a reply to nothing by it, let the engine say what does not fit.
    room = engine.max_context - estimate_tokens("\n".join(request.texts)) - around_texts(request)
    return min(most, max(MIN_USEFUL_TOKENS, room))


def _cost(engine: EngineConfig, *, tokens_in: int, tokens_out: int) -> int:
    return cost_of(engine.price, tokens_in=tokens_in, tokens_out=tokens_out) if engine.price is not None else 0


def _name_of(error: Exception) -> str:
    return error.code if isinstance(error, FleetError) else type(error).__name__
