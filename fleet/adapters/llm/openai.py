"""Any server with the OpenAI wire format, through the official SDK: hosted services, vLLM, llama.cpp, Ollama."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import openai

from fleet.errors import (
    ContextTooLarge,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    ReplyMalformed,
    ReplyRefused,
)
from fleet.models import ChatChunk, ChatReply, ChatRequest, FinishReason, TokenUsage
from fleet.models.profiles import HttpEngine

__all__ = ["OpenAIChatModel"]

T = TypeVar("T")
_CONTEXT = re.compile(r"context[ _](length|size|window)|maximum context|too many tokens|prompt is too long", re.I)
_REFUSED = re.compile(r"content[ _](filter|policy)|safety", re.I)
_SCHEMA = re.compile(r"response_format|json_schema|json_object|schema|grammar|guided", re.I)
_MAX_COMPLETION = re.compile(r"max_completion_tokens", re.I)
_HEALTH_TIMEOUT_S = 10.0


@dataclass
class _Dialect:
    """What the server was found to accept; each refusal takes one step down, for all later requests."""

    schema_forms: list[str] = field(
        default_factory=lambda: ["json_schema", "json_object_schema", "json_object", "none"]
    )
    max_tokens_name: str = "max_tokens"

    def step_down(self, error: openai.APIStatusError, request: ChatRequest) -> bool:
        if self.max_tokens_name == "max_tokens" and _MAX_COMPLETION.search(error.message):
            self.max_tokens_name = "max_completion_tokens"
            return True
        if request.json_schema is not None and len(self.schema_forms) > 1 and _SCHEMA.search(error.message):
            del self.schema_forms[0]
            return True
        return False

    def response_format(self, schema: Mapping[str, Any]) -> dict[str, Any] | None:
        match self.schema_forms[0]:
            case "json_schema":
                named = {"name": "reply", "strict": True, "schema": dict(schema)}
                return {"type": "json_schema", "json_schema": named}
            case "json_object_schema":
                # The form of llama.cpp's Python server.
                return {"type": "json_object", "schema": dict(schema)}
            case "json_object":
                return {"type": "json_object"}
            case _:
                return None


class _Aborted(Exception):
    """The request was aborted; never leaves this module."""


@dataclass
class _Partial:
    """What has arrived so far."""

    text: str = ""
    pieces: int = 0
    finish: str | None = None
    model: str = ""
    usage: TokenUsage | None = None


class OpenAIChatModel:
    """`ChatModel` over one server. Every request is streamed, so that an abort keeps the text that has arrived.

    A server that does not report usage is counted by the pieces of the stream, one token each, and by the length of
    the prompt: never as zero.
    """

    def __init__(self, engine: HttpEngine, *, base_url: str, model: str, api_key: str = "") -> None:
        self._engine = engine
        self._base_url = base_url
        self._model = model
        self._dialect = _Dialect()
        self._aborts: dict[str, asyncio.Event] = {}
        self._slots = asyncio.Semaphore(engine.max_concurrency)
        # The SDK wants some key; servers on the own machine ignore it.
        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key or "none", max_retries=0)

    async def complete(self, request: ChatRequest, *, request_id: str, timeout_s: float) -> ChatReply:
        """See `ChatModel.complete`."""
        async with aclosing(self.stream(request, request_id=request_id, timeout_s=timeout_s)) as chunks:
            async for chunk in chunks:
                if chunk.reply is not None:
                    return chunk.reply
        raise AssertionError("a stream ends with the whole reply")

    async def stream(self, request: ChatRequest, *, request_id: str, timeout_s: float) -> AsyncGenerator[ChatChunk]:
        """See `ChatModel.stream`."""
        started = time.monotonic()
        deadline = started + timeout_s
        aborted = self._aborts.setdefault(request_id, asyncio.Event())
        partial = _Partial()
        try:
            with self._translated():
                await self._race(self._slots.acquire(), aborted, deadline)
                try:
                    async with aclosing(self._pieces(request, partial, aborted, deadline)) as pieces:
                        async for text in pieces:
                            yield ChatChunk(text=text)
                finally:
                    self._slots.release()
        except _Aborted:
            partial.finish = "abort"
        finally:
            self._aborts.pop(request_id, None)
        yield ChatChunk(reply=self._reply(request, partial, started))

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""
        if request_id in self._aborts:
            self._aborts[request_id].set()

    async def health(self) -> None:
        """See `ChatModel.health`: the server lists its models and has ours."""
        with self._translated():
            await self._race(self._named_model(), asyncio.Event(), time.monotonic() + _HEALTH_TIMEOUT_S)

    async def close(self) -> None:
        """The connections are closed."""
        await self._client.close()

    async def _pieces(
        self, request: ChatRequest, partial: _Partial, aborted: asyncio.Event, deadline: float
    ) -> AsyncGenerator[str]:
        response = await self._race(self._open(request), aborted, deadline)
        try:
            iterator = aiter(response)
            while True:
                try:
                    chunk = await self._race(anext(iterator), aborted, deadline)
                except StopAsyncIteration:
                    return
                if text := _read(chunk, partial):
                    yield text
        finally:
            await response.close()

    async def _open(self, request: ChatRequest) -> openai.AsyncStream[Any]:
        while True:
            values = self._values(request, await self._model_name())
            try:
                return await self._client.chat.completions.create(**values)  # pyright: ignore[reportUnknownVariableType]
            except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
                if not self._dialect.step_down(error, request):
                    raise

    def _values(self, request: ChatRequest, model: str) -> dict[str, Any]:
        sampling = request.sampling
        values: dict[str, Any] = {
            "model": model,
            "messages": [message.model_dump() for message in request.messages],
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "seed": sampling.seed,
            self._dialect.max_tokens_name: min(sampling.max_tokens, self._engine.max_output),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if sampling.stop:
            values["stop"] = list(sampling.stop)
        if request.json_schema is not None and (form := self._dialect.response_format(request.json_schema)):
            values["response_format"] = form
        return values

    async def _model_name(self) -> str:
        if self._model == "auto":
            self._model = await self._named_model()
        return self._model

    async def _named_model(self) -> str:
        offered = sorted([model.id async for model in self._client.models.list()])
        if self._model in offered:
            return self._model
        if self._model == "auto" and len(offered) == 1:
            return offered[0]
        wanted = "which of them to use is not set" if self._model == "auto" else f"{self._model!r} is not among them"
        raise ModelUnavailable(
            f"engine {self._engine.engine_id!r} at {self._base_url} offers {', '.join(offered[:20]) or 'no model'}; "
            f"{wanted}: set {self._engine.model_env or '`model` in config/models.yaml'}",
            engine=self._engine.engine_id,
            offered=offered[:20],
            permanent=True,
        )

    async def _race(self, work: Awaitable[T], aborted: asyncio.Event, deadline: float) -> T:
        """The result of `work`, unless the abort or the deadline comes first."""
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(aborted.wait())
        try:
            await asyncio.wait(
                {task, waiting}, timeout=max(0.0, deadline - time.monotonic()), return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return task.result()
            if waiting.done():
                raise _Aborted
            raise TimeoutError
        finally:
            waiting.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def _reply(self, request: ChatRequest, partial: _Partial, started: float) -> ChatReply:
        engine = self._engine
        return ChatReply(
            text=partial.text,
            finish_reason=self._finish_reason(partial.finish),
            usage=partial.usage or _counted(request, partial),
            engine=engine.engine_id,
            model=partial.model or self._model,
            revision=engine.revision,
            latency_ms=round((time.monotonic() - started) * 1000),
        )

    def _finish_reason(self, reason: str | None) -> FinishReason:
        match reason:
            case "abort" | "length":
                return reason
            case "content_filter":
                raise ReplyRefused(f"engine {self._engine.engine_id!r} withheld the reply: content filter")
            case None:
                raise ModelUnavailable(
                    f"engine {self._engine.engine_id!r} at {self._base_url} ended the reply without a finish reason: "
                    "the connection may have broken; look at the server's log",
                    engine=self._engine.engine_id,
                )
            case _:
                return "stop"

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ModelTimeout(
                f"engine {self._engine.engine_id!r} at {self._base_url} did not answer in time; raise timeout_s in "
                "config/models.yaml or use a faster engine",
                engine=self._engine.engine_id,
            ) from error
        except openai.OpenAIError as error:
            raise translate(error, self._engine, self._base_url) from error
        except ValueError as error:
            # The SDK lets the JSON decoder's error through when a stream holds something else.
            raise ModelUnavailable(
                f"engine {self._engine.engine_id!r} at {self._base_url} does not speak the OpenAI wire format: {error}",
                engine=self._engine.engine_id,
                permanent=True,
            ) from error


def _read(chunk: Any, partial: _Partial) -> str:
    """Take one chunk of the stream into account; its text."""
    if chunk.usage is not None:
        details = getattr(chunk.usage, "prompt_tokens_details", None)
        partial.usage = TokenUsage(
            tokens_in=chunk.usage.prompt_tokens or 0,
            tokens_out=chunk.usage.completion_tokens or 0,
            tokens_cached=getattr(details, "cached_tokens", 0) or 0,
        )
    partial.model = chunk.model or partial.model
    text = ""
    for choice in (chunk.choices or ())[:1]:
        partial.finish = choice.finish_reason or partial.finish
        if getattr(choice.delta, "refusal", None):
            raise ReplyRefused(f"the model refused: {choice.delta.refusal[:200]}")
        text = choice.delta.content or ""
    partial.text += text
    partial.pieces += bool(text)
    return text


def _counted(request: ChatRequest, partial: _Partial) -> TokenUsage:
    prompt = sum(len(message.content.encode()) for message in request.messages)
    return TokenUsage(tokens_in=math.ceil(prompt / 3), tokens_out=partial.pieces)


_Make = Callable[[str, dict[str, Any]], ModelError]


def _unavailable(message: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(message, **details)


def _hopeless(message: str, details: dict[str, Any]) -> ModelError:
    return ModelUnavailable(message, permanent=True, **details)


def _timeout(message: str, details: dict[str, Any]) -> ModelError:
    return ModelTimeout(message, **details)


def _malformed(message: str, details: dict[str, Any]) -> ModelError:
    return ReplyMalformed(message, problems=[message], **details)


def _refused(message: str, details: dict[str, Any]) -> ModelError:
    return ReplyRefused(message, **details)


def _by_text(message: str, details: dict[str, Any]) -> ModelError:
    # The one place where a provider's wording decides.
    if _CONTEXT.search(message):
        return ContextTooLarge(message, **details)
    if _REFUSED.search(message):
        return ReplyRefused(message, **details)
    return _hopeless(message, details)


MAPPING: dict[type[openai.OpenAIError], tuple[_Make, str]] = {
    openai.APITimeoutError: (_timeout, "raise timeout_s in config/models.yaml or use a faster engine"),
    openai.APIConnectionError: (_unavailable, "start the server or correct its address"),
    openai.OAuthError: (_hopeless, "check the key"),
    openai.AuthenticationError: (_hopeless, "check the key"),
    openai.PermissionDeniedError: (_hopeless, "the key may not use this model"),
    openai.NotFoundError: (_hopeless, "check the address (it ends with /v1) and the model name"),
    openai.RateLimitError: (_unavailable, "wait, or lower max_concurrency in config/models.yaml"),
    openai.ConflictError: (_unavailable, "try again"),
    openai.InternalServerError: (_unavailable, "look at the server's log"),
    openai.BadRequestError: (_by_text, "the server refuses the request itself"),
    openai.UnprocessableEntityError: (_by_text, "the server refuses the request itself"),
    openai.APIStatusError: (_by_text, "the server refuses the request itself"),
    openai.APIResponseValidationError: (_hopeless, "the server does not speak the OpenAI wire format"),
    openai.LengthFinishReasonError: (_malformed, "the reply was cut off"),
    openai.ContentFilterFinishReasonError: (_refused, "the content filter withheld the reply"),
    openai.WebSocketConnectionClosedError: (_unavailable, "try again"),
    openai.WebSocketQueueFullError: (_unavailable, "try again"),
    openai.APIError: (_by_text, "the server reported an error in the middle of the reply"),
    openai.OpenAIError: (_hopeless, "the client library failed; see the cause"),
}
"""Every exception class of the SDK that a model call can raise -> our error and what to do. Most specific first."""


def translate(error: openai.OpenAIError, engine: HttpEngine, base_url: str) -> ModelError:
    """The model error that stands for an exception of the SDK."""
    make, mend = next(row for cls, row in MAPPING.items() if isinstance(error, cls))
    if isinstance(error, openai.AuthenticationError) and engine.api_key_env:
        mend = f"set {engine.api_key_env} to a valid key"
    if isinstance(error, openai.APIConnectionError) and engine.base_url_env:
        mend = f"start the server, or set {engine.base_url_env} to its address"
    details: dict[str, Any] = {"engine": engine.engine_id, "base_url": base_url}
    if isinstance(error, openai.APIStatusError):
        details["status"] = error.status_code
    return make(f"engine {engine.engine_id!r} at {base_url}: {str(error)[:500]}; {mend}", details)
