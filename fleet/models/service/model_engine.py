"""An engine from an inference library: states, time limits, aborts, draining, and a log of its own (MB-13, MB-15)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, ModelTimeout, ModelUnavailable
from fleet.models.chat import (
    NO_TAG,
    CallTag,
    ChatChunk,
    ChatMessage,
    ChatReply,
    ChatRequest,
    FinishReason,
    Sampling,
    TokenUsage,
    ToolUse,
)
from fleet.models.engine_config import ActorEngine
from fleet.models.port import EngineInfo, EngineState, FinishedCall, LoadedModel, TokenPiece, TokenSource
from fleet.models.routing.circuit import BusyMeter

_KEPT = 10_000
_PROBE_S = 60.0
_ABORT_S = 5.0
"""How long a library may take to end a call."""
_PROBE = ChatRequest(messages=(ChatMessage(role="user", content="Say OK."),), sampling=Sampling(max_tokens=1))

T = TypeVar("T")
Ending = FinishReason | Literal["timeout", "cancelled", "failed"]


@dataclass(slots=True, eq=False)
class _Call:
    """One call under way. Everything that can happen to it comes through the inbox."""

    call_id: str
    request_id: str
    started_ms: int
    inbox: asyncio.Queue[TokenPiece | Exception] = field(default_factory=asyncio.Queue[TokenPiece | Exception])
    is_running: bool = False
    timers: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])
    text: list[str] = field(default_factory=list[str])
    usage: TokenUsage = TokenUsage()
    finish: Ending = "cancelled"
    model: str = ""
    tool_uses: tuple[ToolUse, ...] = ()

    def take(self, piece: TokenPiece) -> None:
        self.text.append(piece.text)
        self.usage = piece.usage
        self.model = piece.model or self.model
        self.tool_uses += piece.tool_uses
        self.finish = piece.finish or self.finish


class ModelEngine:
    """Port `Engine` over one `TokenSource`. Calls are not queued here: whoever calls bounds how many there are.

    Args:
        config: the engine's entry of config/models.yaml.
    """

    def __init__(self, source: TokenSource, config: ActorEngine, *, clock: Clock) -> None:
        self._source, self._config, self._clock = source, config, clock
        self._state: EngineState = "loading"
        self._why = "it was not asked to load yet"
        self._loaded: LoadedModel | None = None
        self._ready = asyncio.Event()
        self._loading = asyncio.Lock()
        self._calls: dict[str, _Call] = {}
        self._meter = BusyMeter()
        self._log: deque[FinishedCall] = deque(maxlen=_KEPT)
        self._numbers = 0
        self._total = TokenUsage()

    async def load(self) -> None:
        """See `Engine.load`."""
        async with self._loading:
            if self._state == "ready":
                return
            self._state, self._why = "loading", "its weights are being loaded"
            try:
                self._loaded = await self._in_time(self._source.load(), within_s=self._config.load_timeout_s)
                # Warm-up: the first token compiles and allocates what all later ones use.
                await self._one_token()
            except Exception as error:
                await self._source.close()
                self._fail(error)
                raise
            self._state, self._why = "ready", ""
            self._ready.set()

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        async with aclosing(self._chunks(request, request_id, timeout_s, tag, is_whole=True)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    return chunk.reply
        raise AssertionError("a stream ends with the whole reply")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`."""
        async with aclosing(self._chunks(request, request_id, timeout_s, tag, is_whole=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        for call in [call for call in self._calls.values() if call.request_id == request_id]:
            await self._abort(call)

    async def health(self) -> None:
        """See `ChatModel.health`: one token is generated (MB-13)."""
        if self._state != "ready":
            raise self._not_ready()
        self._check()
        await self._one_token()

    async def info(self) -> EngineInfo:
        """See `Engine.info`."""
        self._watch_state()
        loaded = self._loaded
        return EngineInfo(
            engine=self._config.engine_id,
            model=self._config.model,
            revision=self._revision,
            version=loaded.version if loaded else "",
            block_size=loaded.block_size if loaded else 0,
            max_context=loaded.max_context if loaded else self._config.max_context,
            gpus=self._config.gpus,
            state=self._state,
            why=self._why,
            running=len(self._calls),
            tokens_in=self._total.tokens_in,
            tokens_cached=self._total.tokens_cached,
            tokens_out=self._total.tokens_out,
            busy_ms=self._meter.busy_ms(self._clock.monotonic_ms()),
        )

    async def usage(self, *, after: int = 0) -> tuple[FinishedCall, ...]:
        """See `Engine.usage`."""
        return tuple(call for call in self._log if call.number > after)

    async def drain(self, timeout_s: float) -> None:
        """See `Engine.drain`."""
        self._state, self._why = "draining", "it is being stopped"
        # Those that still wait for it to load are woken, and told.
        self._ready.set()
        await self._until_idle(timeout_s)
        for call in list(self._calls.values()):
            await self._abort(call)
        await self._until_idle(5.0)

    async def close(self) -> None:
        """See `Engine.close`."""
        for call in list(self._calls.values()):
            call.inbox.put_nowait(self._error("it is being stopped", reason="closed"))
        await self._source.close()
        self._ready.clear()
        if self._state != "failed":
            self._state, self._why = "loading", "it was closed and has to be loaded again"

    async def _chunks(
        self, request: ChatRequest, request_id: str, timeout_s: float, tag: CallTag, *, is_whole: bool
    ) -> AsyncGenerator[ChatChunk]:
        self._numbers += 1
        call = _Call(f"{request_id}~{self._numbers}", request_id, self._clock.monotonic_ms())
        self._calls[call.call_id] = call
        call.timers.append(asyncio.ensure_future(self._expire(call, timeout_s)))
        pump: asyncio.Task[None] | None = None
        mark: float | None = None
        try:
            began_ms = await self._admitted(call)
            if began_ms is not None:
                mark, call.is_running = self._meter.begin(began_ms), True
                pump = asyncio.ensure_future(self._pump(call, request, tag, is_whole=is_whole))
                async for text in self._texts(call):
                    yield ChatChunk(text=text)
            queue_ms = (self._clock.monotonic_ms() if began_ms is None else began_ms) - call.started_ms
        except BaseException as error:
            call.finish = _ending(error)
            raise
        finally:
            for timer in call.timers:
                timer.cancel()
            gpu_ms = self._charge(mark)
            await self._let_go(call, pump)
            self._note(call, gpu_ms)
        yield ChatChunk(reply=self._reply(call, queue_ms, gpu_ms))

    async def _admitted(self, call: _Call) -> int | None:
        """When the call may begin, in milliseconds; None when it was aborted before."""
        if not self._ready.is_set():
            ready = asyncio.ensure_future(self._ready.wait())
            told = asyncio.ensure_future(call.inbox.get())
            try:
                await asyncio.wait({ready, told}, return_when=asyncio.FIRST_COMPLETED)
                if told.done():
                    call.inbox.put_nowait(told.result())
                    return await self._ended_early(call)
            finally:
                ready.cancel()
                told.cancel()
        if self._state != "ready":
            raise self._not_ready()
        return self._clock.monotonic_ms()

    async def _ended_early(self, call: _Call) -> None:
        item = await call.inbox.get()
        if isinstance(item, ModelTimeout):
            raise self._not_ready() from item
        if isinstance(item, Exception):
            raise item
        call.take(item)

    async def _texts(self, call: _Call) -> AsyncGenerator[str]:
        """What arrives, until the reply ends; what has piled up comes as one text."""
        while True:
            item = await call.inbox.get()
            text = ""
            while True:
                if isinstance(item, Exception):
                    raise item
                call.take(item)
                text += item.text
                if item.finish is not None or call.inbox.empty():
                    break
                item = call.inbox.get_nowait()
            if text:
                yield text
            if item.finish is not None:
                return

    async def _pump(self, call: _Call, request: ChatRequest, tag: CallTag, *, is_whole: bool) -> None:
        try:
            pieces = self._source.generate(request, call_id=call.call_id, tag=tag, is_whole=is_whole)
            async with aclosing(pieces):
                async for piece in pieces:
                    call.inbox.put_nowait(piece)
                    if piece.finish is not None:
                        return
            call.inbox.put_nowait(self._error("it ended a reply without saying why", reason="broken"))
        except FleetError as error:
            self._watch_state()
            call.inbox.put_nowait(error)
        except Exception as error:
            # The boundary to the library: whatever it raises ends this call, and nothing else.
            self._watch_state()
            call.inbox.put_nowait(self._error(f"{type(error).__name__}: {error}", reason="broken"))

    async def _expire(self, call: _Call, timeout_s: float) -> None:
        await self._clock.sleep(timeout_s)
        call.inbox.put_nowait(
            ModelTimeout(
                f"engine {self._config.engine_id!r} did not answer in {timeout_s:g} s; raise timeout_s in "
                "config/models.yaml, or give the engine less to do at once",
                engine=self._config.engine_id,
            )
        )

    async def _abort(self, call: _Call) -> None:
        if call.is_running:
            await self._source.abort(call.call_id)
            call.timers.append(asyncio.ensure_future(self._cut_off(call)))
        else:
            call.inbox.put_nowait(TokenPiece("", call.usage, finish="abort"))

    async def _cut_off(self, call: _Call) -> None:
        # A library that does not react to an abort keeps no caller waiting.
        await self._clock.sleep(_ABORT_S)
        call.inbox.put_nowait(TokenPiece("", call.usage, finish="abort"))

    async def _let_go(self, call: _Call, pump: asyncio.Task[None] | None) -> None:
        """The library works no more for this call."""
        if pump is not None and not pump.done():
            await self._source.abort(call.call_id)
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        del self._calls[call.call_id]

    def _charge(self, mark: float | None) -> int:
        if mark is None:
            return 0
        return round(self._meter.end(mark, self._clock.monotonic_ms()) * self._config.gpus)

    def _note(self, call: _Call, gpu_ms: int) -> None:
        self._total += call.usage
        number = (self._log[-1].number if self._log else 0) + 1
        self._log.append(FinishedCall(number, call.request_id, call.usage, gpu_ms, call.finish, self._clock.now_ms()))

    def _reply(self, call: _Call, queue_ms: int, gpu_ms: int) -> ChatReply:
        assert call.finish not in ("timeout", "cancelled", "failed")
        return ChatReply(
            text="".join(call.text),
            finish_reason=call.finish,
            usage=call.usage,
            engine=self._config.engine_id,
            model=call.model or self._config.model,
            revision=self._revision,
            latency_ms=self._clock.monotonic_ms() - call.started_ms,
            tool_uses=call.tool_uses,
            queue_ms=queue_ms,
            gpu_ms=gpu_ms,
        )

    async def _one_token(self) -> None:
        pieces = self._source.generate(_PROBE, call_id=f"probe~{self._clock.monotonic_ms()}", tag=NO_TAG, is_whole=True)

        async def first() -> None:
            async with aclosing(pieces):
                async for piece in pieces:
                    if piece.finish is not None:
                        return

        try:
            await self._in_time(first(), within_s=_PROBE_S)
        except FleetError:
            self._watch_state()
            raise

    async def _in_time(self, work: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """The result of `work`, or ModelUnavailable when it takes too long."""
        task, timer = asyncio.ensure_future(work), asyncio.ensure_future(self._clock.sleep(within_s))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise self._error(f"it was not ready within {within_s:g} s", reason="load_timeout")
        finally:
            timer.cancel()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _check(self) -> None:
        """Returns while the library lives; else the engine is failed from now on."""
        try:
            self._source.check()
        except ModelUnavailable as error:
            self._fail(error)
            raise

    def _watch_state(self) -> None:
        if self._state == "ready":
            with suppress(ModelUnavailable):
                self._check()

    def _fail(self, error: Exception) -> None:
        self._ready.clear()
        self._state = "failed"
        self._why = error.message if isinstance(error, FleetError) else f"{type(error).__name__}: {error}"

    def _not_ready(self) -> ModelUnavailable:
        return self._error(self._why, reason=self._state)

    def _error(self, why: str, *, reason: str) -> ModelUnavailable:
        engine = self._config.engine_id
        return ModelUnavailable(
            f"engine {engine!r} cannot answer: {why}; `fleet status` shows its state", engine=engine, reason=reason
        )

    @property
    def _revision(self) -> str:
        return self._config.revision or (self._loaded.revision if self._loaded else "")

    async def _until_idle(self, within_s: float) -> None:
        deadline_ms = self._clock.monotonic_ms() + round(within_s * 1000)
        while self._calls and self._clock.monotonic_ms() < deadline_ms:
            await self._clock.sleep(0.05)


def _ending(error: BaseException) -> Ending:
    match error:
        case ModelTimeout():
            return "timeout"
        case FleetError():
            return "failed"
        case _:
            return "cancelled"
