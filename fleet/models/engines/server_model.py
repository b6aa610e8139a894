"""What every model behind a server shares: slots, deadline, abort, key, and errors of one kind."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Generator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from typing import Any, Literal, Protocol, TypeVar

import httpx2

from fleet.kernel.errors import ContextTooLarge, ModelError, ModelUnavailable, ReplyMalformed, ReplyRefused
from fleet.models.chat import (
    NO_TAG,
    CallTag,
    ChatChunk,
    ChatReply,
    ChatRequest,
    FinishReason,
    Reasoning,
    TokenUsage,
    ToolUse,
)
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import ApiKey, GivenKey
from fleet.models.engines.status_errors import ServerAnswer, error_of, shown, timed_out
from fleet.models.routing.circuit import BusyMeter
from fleet.telemetry.service import outgoing_traceparent

T = TypeVar("T")


class Aborted(Exception):
    """The request was aborted; never leaves this package."""


class Race:
    """Awaits one piece of work after the other, each until the abort or the deadline comes first."""

    def __init__(self, aborted: asyncio.Future[Literal[True]], deadline: float) -> None:
        self._aborted = aborted
        self._deadline = deadline

    async def run(self, work: Awaitable[T]) -> T:
        """The result of `work`; Aborted or TimeoutError when it was not there in time. Nothing of it goes on then."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                {task, self._aborted},
                timeout=max(0.0, self._deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if task.done():
                return task.result()
            if self._aborted.done():
                raise Aborted
            raise TimeoutError
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def racing(aborted: asyncio.Event, deadline: float) -> AsyncGenerator[Race]:
    """A race against this event and this moment of `time.monotonic`."""
    waiting = asyncio.ensure_future(aborted.wait())
    try:
        yield Race(waiting, deadline)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


_STOPS: dict[str, FinishReason] = {
    "abort": "abort",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_use",
    "tool_use": "tool_use",
    "function_call": "tool_use",
}


@dataclass
class PartialUse:
    """A use of a tool whose arguments are still coming."""

    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])


@dataclass
class PartialThought:
    """A part of the reasoning that is still coming."""

    form: str
    place: int
    pieces: list[str] = field(default_factory=list[str])
    opaque: list[str] = field(default_factory=list[str])
    id: str = ""


@dataclass
class Partial:
    """What has arrived so far."""

    pieces: list[str] = field(default_factory=list[str])
    uses: list[PartialUse] = field(default_factory=list[PartialUse])
    thoughts: list[PartialThought] = field(default_factory=list[PartialThought])
    finish: str | None = None
    model: str = ""
    usage: TokenUsage | None = None
    is_forced: bool = False
    """The reply comes as the arguments of a tool that the model was made to use."""
    events: int = 0
    """Events that were understood."""

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self.pieces)

    def add(self, text: str) -> str:
        """The text is kept; what the consumer of the stream may have."""
        clean = sound(text)
        if clean:
            self.pieces.append(clean)
        return clean

    @property
    def tool_uses(self) -> tuple[ToolUse, ...]:
        """The uses as the model wrote them; a server that gives no ids gets numbered ones."""
        return tuple(
            ToolUse(id=use.id or f"call-{n}", name=use.name, arguments=sound("".join(use.pieces)))
            for n, use in enumerate(self.uses, 1)
        )

    @property
    def place(self) -> int:
        """How many parts of the reply are there: its words, and the uses."""
        return (1 if self.text.strip() else 0) + len(self.uses)

    def thinking(self, form: str) -> PartialThought:
        """The part of the reasoning that goes on; a new one where words or uses came after the last."""
        if not self.thoughts or (self.thoughts[-1].form, self.thoughts[-1].place) != (form, self.place):
            self.thoughts.append(PartialThought(form, self.place))
        return self.thoughts[-1]

    def reasoning(self, engine: str) -> tuple[Reasoning, ...]:
        """What the model thought, as it came."""
        thoughts = (
            Reasoning(
                engine=engine,
                form=part.form,
                id=sound(part.id),
                text=sound("".join(part.pieces)),
                opaque=sound("".join(part.opaque)),
                place=part.place,
            )
            for part in self.thoughts
        )
        return tuple(part for part in thoughts if part.text or part.opaque)

    def counted(self, request: ChatRequest) -> TokenUsage:
        """Usage as the server counted it; else by pieces and by the length of the prompt, never as zero."""
        if self.usage is not None:
            return self.usage
        prompt = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        written = len(self.pieces) + sum(len(part.pieces) for part in (*self.uses, *self.thoughts))
        return TokenUsage(tokens_in=math.ceil(prompt / 3), tokens_out=written)


def sound(text: str) -> str:
    """The text without lone surrogates: JSON may hold them, nothing else of ours can carry them."""
    return text.encode("utf-8", "replace").decode()


def finish_reason(reason: str | None, *, has_uses: bool, where: str, engine: str) -> FinishReason:
    """Why the reply ended, in our words.

    Raises:
        ModelUnavailable: the server gave no reason, so the connection broke; or it says that it failed.
        ReplyRefused: a filter or the model itself withheld the reply.
        ReplyMalformed: the model wrote a call that the server cannot read.
        ContextTooLarge: prompt and reply together filled the context.
    """
    word = (reason or "").lower()
    if reason is None or word == "error":
        what = "ended the reply without a finish reason" if reason is None else "failed in the middle of the reply"
        raise ModelUnavailable(
            f"{where} {what}: the connection may have broken; try again, or look at the server's log", engine=engine
        )
    if "malformed" in word:
        problem = f"{where} could not read the tool call that the model wrote"
        raise ReplyMalformed(problem, problems=[problem], engine=engine)
    if word == "refusal" or "filter" in word or "safety" in word:
        raise ReplyRefused(f"{where} withheld the reply: {word[:80]}", engine=engine)
    if word == "model_context_window_exceeded":
        raise ContextTooLarge(f"{where} filled its context; shorten the prompt", engine=engine)
    stop = _STOPS.get(word, "stop")
    # Some servers end a reply that calls tools like any other.
    return "tool_use" if has_uses and stop == "stop" else stop


_BASE_BYTES = 1_048_576
_IDLE_S = 2.0
"""How long a connection is kept for the next call. The servers of llama.cpp, vLLM and Ray Serve close an idle one after
5 s, and a call sent in that very moment would be lost."""
_BYTES_PER_TOKEN = 1024
"""One token comes in one event of the stream, wrapped in some hundred bytes of JSON."""


class AnswerTooLong(Exception):
    """The server sends more than any reply needs; never leaves this package."""


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for part in self._inner:
            seen += len(part)
            if seen > self._limit:
                raise AnswerTooLong(f"the server sent more than {self._limit} bytes")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


@cache
def _tls() -> ssl.SSLContext:
    # Loading the certificates takes a tenth of a second, and every engine wants the same ones.
    return httpx2.create_ssl_context()


def bounded_client(engine: HttpEngine) -> httpx2.AsyncClient:
    """A client for one engine. Time is bounded by who calls, so the client itself has no timeout.

    A redirect is not followed: it would carry prompt and key to a place that nobody configured.
    """
    limit = _BASE_BYTES + _BYTES_PER_TOKEN * engine.max_output

    async def bound(response: httpx2.Response) -> None:
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, limit)

    async def trace(request: httpx2.Request) -> None:
        if traceparent := outgoing_traceparent():
            request.headers["traceparent"] = traceparent

    return httpx2.AsyncClient(
        follow_redirects=False,
        timeout=None,
        verify=_tls(),
        limits=httpx2.Limits(
            max_connections=engine.max_concurrency + 4, max_keepalive_connections=16, keepalive_expiry=_IDLE_S
        ),
        event_hooks={"request": [trace], "response": [bound]},
        # A few bytes can unpack to gigabytes; the bound counts what comes over the wire.
        headers={"Accept-Encoding": "identity"},
    )


_HEALTH_TIMEOUT_S = 10.0


class EventStream(Protocol):
    """The stream of events that an SDK gives."""

    @property
    def response(self) -> httpx2.Response:
        """The answer behind it."""
        ...

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def close(self) -> None:
        """The connection is given back."""
        ...


class ServerChatModel(ABC):
    """`ChatModel` over one server. Every request is streamed, so that an abort keeps the text that has arrived.

    A server that does not report usage is counted by the pieces of the stream, one token each, and by the length of
    the prompt: never as zero. Redirects are not followed, and an answer has a bound on its bytes.
    """

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str | ApiKey = "") -> None:
        self._engine = engine
        self._base_url = base_url
        self._model = model
        self._key = GivenKey(api_key) if isinstance(api_key, str) else api_key
        self._http = bounded_client(engine)
        self._aborts: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(engine.max_concurrency)
        # The server does not say how busy its GPUs are: of the calls of this process, each is charged its share.
        self._meter = BusyMeter()

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        async with aclosing(self.stream(request, request_id=request_id, timeout_s=timeout_s, tag=tag)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    return chunk.reply
        raise AssertionError("a stream ends with the whole reply")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`."""
        started = time.monotonic()
        aborted = self._aborts.setdefault(request_id, asyncio.Event())
        partial, gpu_ms = Partial(), 0
        try:
            try:
                with self._translated(partial):
                    async with racing(aborted, started + timeout_s) as race:
                        await self._take_slot(race)
                        mark = self._meter.begin(_now_ms())
                        try:
                            async with aclosing(self._pieces(request, partial, race)) as pieces:
                                async for text in pieces:
                                    yield ChatChunk(text=text)
                        finally:
                            gpu_ms = round(self._meter.end(mark, _now_ms()) * self._engine.gpus)
                            self._slots.release()
            except Aborted:
                partial.finish = "abort"
            reply = self._reply(request, partial, started, gpu_ms)
        except ModelError as error:
            # A call that fails or takes too long kept the server busy like any other.
            error.details["gpu_ms"] = gpu_ms
            raise
        finally:
            self._aborts.pop(request_id, None)
        yield ChatChunk(reply=reply)

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        if request_id in self._aborts:
            self._aborts[request_id].set()

    async def health(self) -> None:
        """See `ChatModel.health`: the server lists its models and has ours."""
        with self._translated(Partial()):
            async with racing(asyncio.Event(), time.monotonic() + _HEALTH_TIMEOUT_S) as race:
                await race.run(self._named_model(await race.run(self._present_key())))

    async def close(self) -> None:
        """The connections are closed."""
        await self._http.aclose()

    @abstractmethod
    async def _open(self, request: ChatRequest, model: str, key: str, partial: Partial) -> EventStream:
        """The stream of the reply; an error of the SDK when the server refuses."""

    @abstractmethod
    def _read(self, event: Any, partial: Partial) -> str:
        """Take one event into account; its text."""

    @abstractmethod
    async def _offered(self, key: str) -> Sequence[str]:
        """The names of the server's models."""

    @abstractmethod
    def _error_of(self, error: Exception) -> ModelError | None:
        """The error that stands for an exception of the SDK; None when it is none of the SDK."""

    @abstractmethod
    def _refuses_key(self, error: Exception) -> bool:
        """Whether the server refuses the key."""

    @property
    def _where(self) -> str:
        return f"engine {self._engine.engine_id!r} at {self._base_url}"

    @property
    def _details(self) -> dict[str, Any]:
        return {"engine": self._engine.engine_id, "base_url": self._base_url}

    async def _take_slot(self, race: Race) -> None:
        acquiring = asyncio.ensure_future(self._slots.acquire())
        try:
            await race.run(acquiring)
        except BaseException:
            # The slot may have come at the very moment at which the caller gave up.
            if acquiring.done() and not acquiring.cancelled():
                self._slots.release()
            raise

    async def _pieces(self, request: ChatRequest, partial: Partial, race: Race) -> AsyncGenerator[str]:
        response = await race.run(self._opened(request, partial))
        try:
            await race.run(self._check_is_stream(response))
            events = aiter(response)
            while True:
                try:
                    event = await race.run(anext(events))
                except StopAsyncIteration:
                    return
                if text := self._understood(event, partial):
                    yield text
        finally:
            await response.close()

    async def _opened(self, request: ChatRequest, partial: Partial) -> EventStream:
        key = await self._present_key()
        try:
            return await self._open(request, await self._model_name(key), key, partial)
        except Exception as error:
            other = await self._key.renewed(key) if self._refuses_key(error) else None
            if other is None:
                raise
        return await self._open(request, await self._model_name(other), other, partial)

    async def _check_is_stream(self, response: EventStream) -> None:
        kind = response.response.headers.get("content-type", "text/event-stream").split(";")[0].strip().lower()
        if kind in ("text/html", "application/json", "application/problem+json"):
            body = (await response.response.aread()).decode("utf-8", "replace")
            raise self._not_a_stream(kind, body)

    def _not_a_stream(self, kind: str, body: str) -> ModelError:
        # Some servers answer 200 and say in the body what went wrong.
        answer = ServerAnswer(body, status=200, headers={}, body=None)
        if answer.status is not None:
            return error_of(answer, self._engine, self._where, self._details)
        return ModelUnavailable(
            f"{self._where} answers with {kind} instead of a stream of events: {shown(body)}; check base_url "
            "(most end with /v1), and that nothing in between answers for the server",
            permanent=True,
            **self._details,
        )

    def _understood(self, event: Any, partial: Partial) -> str:
        try:
            text = self._read(event, partial)
        except (AttributeError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"an event has another shape than documented ({error})") from error
        partial.events += 1
        return text

    async def _present_key(self) -> str:
        key = await self._key.get()
        if not key and self._engine.wants_key:
            raise ModelUnavailable(
                f"{self._where} wants a key and none is set; {self._engine.how_to_give_a_key}",
                permanent=True,
                **self._details,
            )
        return key

    async def _model_name(self, key: str) -> str:
        if self._model == "auto":
            self._model = await self._named_model(key)
        return self._model

    async def _named_model(self, key: str) -> str:
        offered = sorted(name.removeprefix("models/") for name in await self._offered(key))
        if _is_offered(self._model.removeprefix("models/"), offered):
            return self._model
        if self._model == "auto" and len(offered) == 1:
            return offered[0]
        what = "which of them to use is not set" if self._model == "auto" else f"{self._model!r} is not among them"
        raise ModelUnavailable(
            f"{self._where} offers {', '.join(offered[:20]) or 'no model'}; "
            f"{what}: set {self._engine.model_env or '`model` in config/models.yaml'}",
            engine=self._engine.engine_id,
            offered=offered[:20],
            permanent=True,
        )

    def _reply(self, request: ChatRequest, partial: Partial, started: float, gpu_ms: int) -> ChatReply:
        engine = self._engine
        uses = partial.tool_uses
        return ChatReply(
            text=partial.text,
            finish_reason=finish_reason(
                partial.finish, has_uses=bool(uses), where=self._where, engine=engine.engine_id
            ),
            usage=partial.counted(request),
            engine=engine.engine_id,
            model=partial.model or self._model,
            revision=engine.revision,
            latency_ms=round((time.monotonic() - started) * 1000),
            tool_uses=_whole(uses) if partial.finish in ("abort", "length", "max_tokens") else uses,
            reasoning=partial.reasoning(engine.engine_id),
            gpu_ms=gpu_ms,
        )

    @contextmanager
    def _translated(self, partial: Partial) -> Generator[None]:
        try:
            yield
        except (Aborted, ModelError):
            raise
        except Exception as error:
            translated = self._found(error, partial)
            if translated is None:
                raise
            hidden = self._hidden(translated)
            # A server may repeat the key it refuses, and then the cause must not be shown either.
            raise hidden from (error if hidden is translated else None)

    def _found(self, error: Exception, partial: Partial) -> ModelError | None:
        if isinstance(error, TimeoutError):
            return timed_out(self._where, self._details)
        cause = error.__cause__
        if isinstance(error, AnswerTooLong) or isinstance(cause, AnswerTooLong):
            what = f"{self._where} answers without end: {error if isinstance(error, AnswerTooLong) else cause}"
            return ModelUnavailable(
                f"{what}; it does not keep to max_tokens, use another server", permanent=True, **self._details
            )
        if (translated := self._error_of(error)) is not None:
            return translated
        if isinstance(error, httpx2.HTTPError):
            return ModelUnavailable(
                f"{self._where}: the connection broke ({type(error).__name__}); try again, or look at the server's log",
                **self._details,
            )
        if isinstance(error, ValueError):
            # Also the JSON decoder's error, which the SDKs let through. Once events were read, it speaks our format.
            known_server = {} if partial.events else {"permanent": True}
            return ModelUnavailable(
                f"{self._where} does not speak the wire format of kind {self._engine.kind!r}: {shown(str(error))}; "
                "check base_url and kind in config/models.yaml",
                **known_server,
                **self._details,
            )
        return None

    def _hidden(self, error: ModelError) -> ModelError:
        message = self._key.hide(error.message)
        if message == error.message:
            return error
        details = {k: self._key.hide(v) if isinstance(v, str) else v for k, v in error.details.items()}
        if "problems" in details:
            details["problems"] = [message]
        return type(error)(message, **details)


def _now_ms() -> int:
    return round(time.monotonic() * 1000)


def _whole(uses: Sequence[ToolUse]) -> tuple[ToolUse, ...]:
    """The uses of a reply that was cut off. One whose arguments are not whole is none, and nothing comes after it."""
    return tuple(takewhile(lambda use: is_object(use.arguments), uses))


def is_object(text: str) -> bool:
    """Whether the text is one JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _is_offered(model: str, offered: Sequence[str]) -> bool:
    """Whether the list has the model, its default tag (Ollama), or the model of which it is a variant (OpenRouter)."""
    return model in offered or f"{model}:latest" in offered or model.split(":", 1)[0] in offered
