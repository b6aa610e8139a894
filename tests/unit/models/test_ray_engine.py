"""An engine actor as a ChatModel: what is called, and how its absence reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from fleet.kernel.errors import ContextTooLarge, ModelTimeout, ModelUnavailable, StoreUnavailable, ToolTimeout
from fleet.models.chat import ChatChunk, ChatReply, TokenUsage
from fleet.remote.engine import RayEngine
from tests.support.engines import ask

REPLY = ChatReply(text="ab", finish_reason="stop", usage=TokenUsage(tokens_in=1, tokens_out=2), engine="e", model="m")
CHUNKS = (ChatChunk(text="a"), ChatChunk(text="b", reply=REPLY))


class Method:
    """`handle.stream`: gives the chunks as awaitables, as a generator of an actor does, then perhaps an error."""

    def __init__(self, error: Exception | None, *, is_endless: bool = False) -> None:
        self._error, self._is_endless = error, is_endless

    async def remote(self, *args: Any, **kwargs: Any) -> AsyncIterator[Awaitable[ChatChunk]]:
        async def given(chunk: ChatChunk) -> ChatChunk:
            return chunk

        if self._is_endless:
            await asyncio.Event().wait()
        if self._error is not None:
            yield given(CHUNKS[0])
            raise self._error
        for chunk in CHUNKS:
            yield given(chunk)


class Resolver:
    """Notes its calls; an answer that is an error is raised."""

    def __init__(self, answer: Any = REPLY, error: Exception | None = None, *, is_endless: bool = False) -> None:
        self.answer, self.seen, self.forgotten = answer, list[str](), list[str]()
        self.stream = Method(error, is_endless=is_endless)

    async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(method)
        if isinstance(self.answer, BaseException) and method != "abort":
            raise self.answer
        return self.answer

    async def handle(self, name: str) -> Any:
        if isinstance(self.answer, StoreUnavailable):
            raise self.answer
        return self

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


def engine(resolver: Any) -> RayEngine:
    return RayEngine(resolver, "engine:tiny:0")


async def test_every_method_goes_to_the_actor() -> None:
    resolver = Resolver()
    one = engine(resolver)
    assert one.name == "engine:tiny:0"
    assert await one.complete(ask("x"), request_id="a", timeout_s=60) is REPLY
    await one.abort("a")
    await one.health()
    await one.info()
    await one.usage(after=3)
    assert resolver.seen == ["complete", "abort", "probe", "info", "usage"]
    assert [chunk async for chunk in one.stream(ask("x"), request_id="a", timeout_s=60)] == list(CHUNKS)


async def test_actor_that_is_gone_is_an_unavailable_model() -> None:
    one = engine(Resolver(StoreUnavailable("actor engine:tiny:0 cannot be reached")))
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await one.complete(ask("x"), request_id="a", timeout_s=60)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        await anext(one.stream(ask("x"), request_id="a", timeout_s=60))


async def test_actor_that_does_not_answer_is_a_timeout_and_is_told_to_stop() -> None:
    resolver = Resolver(ToolTimeout("no answer"))
    one = engine(resolver)
    with pytest.raises(ModelTimeout):
        await one.complete(ask("x"), request_id="a", timeout_s=60)
    await one.close()
    assert resolver.seen == ["complete", "abort"]
    resolver = Resolver(is_endless=True)
    one = engine(resolver)
    with pytest.raises(ModelTimeout):
        await anext(one.stream(ask("x"), request_id="a", timeout_s=-9.9))
    await one.close()
    assert resolver.seen == ["abort"]


async def test_caller_that_leaves_ends_the_call_at_the_engine() -> None:
    resolver = Resolver(asyncio.CancelledError())
    one = engine(resolver)
    with pytest.raises(asyncio.CancelledError):
        await one.complete(ask("x"), request_id="a", timeout_s=60)
    await one.close()
    stream = one.stream(ask("x"), request_id="a", timeout_s=60)
    await anext(stream)
    await stream.aclose()
    await one.close()
    assert resolver.seen == ["complete", "abort", "abort"]


async def test_abort_of_an_engine_that_is_gone_troubles_nobody() -> None:
    class Gone(Resolver):
        async def call(self, name: str, method: str, *args: Any, **kwargs: Any) -> Any:
            raise StoreUnavailable("gone")

    one = engine(Gone())
    stream = one.stream(ask("x"), request_id="a", timeout_s=60)
    await anext(stream)
    await stream.aclose()
    await one.close()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ActorDiedError(), ModelUnavailable),
        (RayTaskError("stream", "traceback", ContextTooLarge("too long")), ContextTooLarge),
        (RayTaskError("stream", "traceback", KeyError("x")), ModelUnavailable),
    ],
    ids=["dead", "ours", "foreign"],
)
async def test_stream_that_breaks_raises_an_error_of_ours(raised: Exception, expected: type[Exception]) -> None:
    resolver = Resolver(error=raised)
    one = engine(resolver)
    stream = one.stream(ask("x"), request_id="a", timeout_s=60)
    await anext(stream)
    with pytest.raises(expected):
        await anext(stream)
    assert resolver.forgotten == (["engine:tiny:0"] if isinstance(raised, ActorDiedError) else [])
    assert resolver.seen == []
