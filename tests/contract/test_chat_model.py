"""The suite of port ChatModel, on every adapter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelTimeout, ModelUnavailable
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Sampling, TokenUsage
from fleet.models.engine_config import HttpEngine, MockEngine, MockReply
from fleet.models.engines.factory import build_chat_model
from fleet.models.engines.mock import MockChatModel
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.memory import Hang, ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.service.queued_model import QueuedModel
from fleet.models.service.routed_model import RoutedModel
from tests.support.model_server import Scene, playing
from tests.support.openai_server import Scripted, serving
from tests.support.providers import reply, stream_of

TEXT = "def add(a, b):\n    return a + b\n"
REQUEST = ChatRequest(
    messages=(ChatMessage(role="system", content="Work: draft\nWrite code."), ChatMessage(role="user", content="add")),
    sampling=Sampling(max_tokens=64, seed=3),
)


def http_engine(**changes: object) -> HttpEngine:
    values = {"engine_id": "tiny", "kind": "local", "base_url": "http://x/v1", "model": "auto", "unpriced": True}
    return HttpEngine.model_validate({**values, **changes})


@contextlib.asynccontextmanager
async def scripted(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    usage = TokenUsage(tokens_in=2, tokens_out=3)
    reply = ChatReply(text=TEXT, finish_reason="length", usage=usage, engine="scripted", model="script")
    yield ScriptedChatModel.of(reply if cut else TEXT)


@contextlib.asynccontextmanager
async def recorded(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    async with scripted(tmp_path, cut=cut) as inner:
        await RecordingChatModel(inner, tmp_path).complete(REQUEST, request_id="r", timeout_s=60)
    yield RecordedChatModel(tmp_path)


@contextlib.asynccontextmanager
async def recording(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    async with scripted(tmp_path, cut=cut) as inner:
        yield RecordingChatModel(inner, tmp_path)


@contextlib.asynccontextmanager
async def over_http(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    async with serving(Scripted(TEXT, finish="length" if cut else "stop")) as server:
        model = OpenAIChatModel(http_engine(), base_url=server.base_url, model="auto")
        yield model
        await model.close()


@contextlib.asynccontextmanager
async def over_messages(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    pytest.importorskip("anthropic", reason="extra `anthropic` is not installed")
    async with playing(reply("anthropic", TEXT, finish="length" if cut else "stop")) as server:
        engine = http_engine(kind="anthropic", base_url=server.url)
        model = build_chat_model(engine, environ={})
        yield model
        await model.close()  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def mock(tmp_path: Path) -> AsyncIterator[ChatModel]:
    replies = {"draft": MockReply(correct=TEXT, wrong="pass")}
    yield MockChatModel(MockEngine(engine_id="mock", kind="mock", model="m", unpriced=True, replies=replies))


@contextlib.asynccontextmanager
async def routed(tmp_path: Path, *, cut: bool = False) -> AsyncIterator[ChatModel]:
    """Two servers, each behind its queue, behind the router of their engine."""
    clock = SystemClock()
    async with over_http(tmp_path, cut=cut) as one, over_http(tmp_path, cut=cut) as other:
        replicas = {"0": QueuedModel(one, clock, "tiny"), "1": QueuedModel(other, clock, "tiny")}
        yield RoutedModel(replicas, clock, "tiny")


Opening = Callable[..., AbstractAsyncContextManager[ChatModel]]


@pytest.fixture(
    params=[scripted, recorded, recording, over_http, over_messages, mock, routed], ids=lambda param: param.__name__
)
def opening(request: pytest.FixtureRequest) -> Opening:
    return request.param


async def test_complete_gives_the_whole_text_with_counted_usage(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path) as model:
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert (reply.text, reply.finish_reason) == (TEXT, "stop")
    assert reply.usage.tokens_in > 0
    assert reply.usage.tokens_out > 0
    assert reply.engine
    assert reply.model


async def test_stream_gives_the_same_text_in_pieces_and_then_the_whole_reply(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path) as model:
        chunks = [chunk async for chunk in model.stream(REQUEST, request_id="r", timeout_s=60)]
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert [chunk.reply is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].reply is not None
    assert chunks[-1].reply.text == TEXT


# A mock's replies are never cut off.
@pytest.mark.parametrize(
    "cutting", [scripted, recorded, recording, over_http, over_messages, routed], ids=lambda param: param.__name__
)
async def test_cut_off_reply_is_a_reply_with_finish_reason_length(cutting: Opening, tmp_path: Path) -> None:
    async with cutting(tmp_path, cut=True) as model:
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert reply.finish_reason == "length"


async def test_same_request_can_be_sent_again(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path) as model:
        first = await model.complete(REQUEST, request_id="r", timeout_s=60)
        second = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert first.text == second.text


async def test_abort_of_an_unknown_request_is_ignored_and_health_returns(opening: Opening, tmp_path: Path) -> None:
    async with opening(tmp_path) as model:
        await model.abort("nobody")
        if opening is recording:
            await model.complete(REQUEST, request_id="r", timeout_s=60)
        await model.health()


async def _abort_when_it_runs(model: ChatModel, task: asyncio.Task[ChatReply]) -> ChatReply:
    for _ in range(2000):
        await model.abort("r1")
        if task.done():
            return task.result()
        await asyncio.sleep(0.001)
    raise AssertionError("the abort never took effect")


@contextlib.asynccontextmanager
async def hanging_script(tmp_path: Path) -> AsyncIterator[ChatModel]:
    yield ScriptedChatModel.of(Hang("def "))


@contextlib.asynccontextmanager
async def hanging_recorder(tmp_path: Path) -> AsyncIterator[ChatModel]:
    yield RecordingChatModel(ScriptedChatModel.of(Hang("def ")), tmp_path)


@contextlib.asynccontextmanager
async def hanging_server(tmp_path: Path) -> AsyncIterator[ChatModel]:
    async with serving(Scripted("def ", hang=True)) as server:
        model = OpenAIChatModel(http_engine(), base_url=server.base_url, model="auto")
        yield model
        await model.close()


@contextlib.asynccontextmanager
async def hanging_messages(tmp_path: Path) -> AsyncIterator[ChatModel]:
    pytest.importorskip("anthropic", reason="extra `anthropic` is not installed")
    async with playing(Scene(stream_of("anthropic", "def ", finish=None), end="hang")) as server:
        model = build_chat_model(http_engine(kind="anthropic", base_url=server.url), environ={})
        yield model
        await model.close()  # type: ignore[attr-defined]


@pytest.fixture(
    params=[hanging_script, hanging_recorder, hanging_server, hanging_messages], ids=lambda param: param.__name__
)
def hanging(request: pytest.FixtureRequest) -> Opening:
    return request.param


async def test_abort_ends_the_running_request_with_finish_reason_abort(hanging: Opening, tmp_path: Path) -> None:
    async with hanging(tmp_path) as model:
        task = asyncio.create_task(model.complete(REQUEST, request_id="r1", timeout_s=30))
        reply = await _abort_when_it_runs(model, task)
    assert reply.finish_reason == "abort"
    assert "def ".startswith(reply.text)
    assert reply.usage.tokens_in > 0
    assert not list(tmp_path.glob("*.json"))


async def test_engine_that_never_answers_is_a_timeout(hanging: Opening, tmp_path: Path) -> None:
    async with hanging(tmp_path) as model:
        with pytest.raises(ModelTimeout):
            await model.complete(REQUEST, request_id="r2", timeout_s=0.05)


@pytest.mark.parametrize("model", [ScriptedChatModel(), RecordedChatModel(Path("/nonexistent"))])
async def test_unknown_request_is_an_error_that_names_it_and_never_a_reply(model: ChatModel) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert caught.value.details["request_digest"] == REQUEST.digest
