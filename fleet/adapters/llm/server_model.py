"""What every model behind a server shares: slots, deadline, abort, key, and errors of one kind."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, Protocol

import httpx2

from fleet.adapters.llm.bounded_http import AnswerTooLong, bounded_client
from fleet.adapters.llm.keys import ApiKey, GivenKey
from fleet.adapters.llm.partial import Partial, finish_reason
from fleet.adapters.llm.racing import Aborted, Race, racing
from fleet.adapters.llm.status_errors import ServerAnswer, error_of, shown, timed_out
from fleet.errors import ModelError, ModelUnavailable
from fleet.models import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, HttpEngine

__all__ = ["EventStream", "ServerChatModel"]

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
        partial = Partial()
        try:
            with self._translated(partial):
                async with racing(aborted, started + timeout_s) as race:
                    await self._take_slot(race)
                    try:
                        async with aclosing(self._pieces(request, partial, race)) as pieces:
                            async for text in pieces:
                                yield ChatChunk(text=text)
                    finally:
                        self._slots.release()
        except Aborted:
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
        wanted = "which of them to use is not set" if self._model == "auto" else f"{self._model!r} is not among them"
        raise ModelUnavailable(
            f"{self._where} offers {', '.join(offered[:20]) or 'no model'}; "
            f"{wanted}: set {self._engine.model_env or '`model` in config/models.yaml'}",
            engine=self._engine.engine_id,
            offered=offered[:20],
            permanent=True,
        )

    def _reply(self, request: ChatRequest, partial: Partial, started: float) -> ChatReply:
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
            # A use that was cut off with the reply is no use: its arguments are not whole.
            tool_uses=uses if partial.finish not in ("abort", "length", "max_tokens") else (),
        )

    @contextmanager
    def _translated(self, partial: Partial) -> Generator[None]:
        try:
            yield
        except (Aborted, ModelError):
            raise
        except Exception as error:
            found = self._found(error, partial)
            if found is None:
                raise
            hidden = self._hidden(found)
            # A server may repeat the key it refuses, and then the cause must not be shown either.
            raise hidden from (error if hidden is found else None)

    def _found(self, error: Exception, partial: Partial) -> ModelError | None:
        if isinstance(error, TimeoutError):
            return timed_out(self._where, self._details)
        cause = error.__cause__
        if isinstance(error, AnswerTooLong) or isinstance(cause, AnswerTooLong):
            what = f"{self._where} answers without end: {error if isinstance(error, AnswerTooLong) else cause}"
            return ModelUnavailable(
                f"{what}; it does not keep to max_tokens, use another server", permanent=True, **self._details
            )
        if (known := self._error_of(error)) is not None:
            return known
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


def _is_offered(model: str, offered: Sequence[str]) -> bool:
    """Whether the list has the model, its default tag (Ollama), or the model of which it is a variant (OpenRouter)."""
    return model in offered or f"{model}:latest" in offered or model.split(":", 1)[0] in offered
