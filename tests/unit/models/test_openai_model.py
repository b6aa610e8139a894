"""What only the adapter for OpenAI-compatible servers does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import httpx2
import openai
import pytest

from fleet.kernel.errors import (
    ContextTooLarge,
    ModelError,
    ModelTimeout,
    ModelUnavailable,
    ReplyMalformed,
    ReplyRefused,
)
from fleet.models.chat import ChatMessage, ChatRequest, Reasoning, Sampling, ToolOffer
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.openai import MAPPING, LearnedDialect, OpenAIChatModel, translate
from tests.support.openai_server import FakeOpenAIServer, Scripted, serving
from tests.support.sandbox import eventually

SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
REQUEST = ChatRequest(
    messages=(ChatMessage(role="user", content="hello"),),
    sampling=Sampling(temperature="0.2", top_p="0.95", max_tokens=9000, seed=7, stop=("END",)),
)
STRUCTURED = REQUEST.model_copy(update={"json_schema": SCHEMA})
ENGINE = HttpEngine(
    engine_id="tiny",
    kind="openai",
    model="auto",
    base_url="http://unused/v1",
    base_url_env="TINY_URL",
    api_key_env="TINY_KEY",
    max_output=512,
    max_concurrency=1,
    revision="r1",
    unpriced=True,
)
HTTP_REQUEST = httpx2.Request("POST", "http://t/v1/chat/completions")


@contextlib.asynccontextmanager
async def connected(
    *script: Scripted, model: str = "auto", models: list[str] | None = None
) -> AsyncIterator[tuple[OpenAIChatModel, FakeOpenAIServer]]:
    async with serving(*script, models=models) as server:
        chat_model = OpenAIChatModel(ENGINE, base_url=server.base_url, model=model, api_key="sk-test")
        yield chat_model, server
        await chat_model.close()


async def test_request_carries_sampling_key_and_a_bounded_output() -> None:
    async with connected(Scripted("hi")) as (model, server):
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    sent = server.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["seed"], sent["stop"]) == (0.2, 0.95, 7, ["END"])
    assert (sent["max_tokens"], sent["model"]) == (512, "tiny-1b")
    assert "response_format" not in sent
    assert server.headers[0]["authorization"] == "Bearer sk-test"
    assert (reply.usage.tokens_in, reply.usage.tokens_out, reply.usage.tokens_cached) == (11, 7, 5)
    assert (reply.engine, reply.model, reply.revision) == ("tiny", "tiny-1b", "r1")


async def test_schema_is_sent_and_each_refusal_of_its_form_steps_down_for_good() -> None:
    refused = Scripted(status=400, error="response_format of this type is not supported")
    async with connected(refused, refused, refused, Scripted("{}")) as (model, server):
        await model.complete(STRUCTURED, request_id="r", timeout_s=60)
        await model.complete(STRUCTURED, request_id="r", timeout_s=60)
    forms = [sent.get("response_format", {}).get("type") for sent in server.requests]
    assert forms == ["json_schema", "json_object", "json_object", None, None]
    assert [sent.get("response_format", {}).get("schema") for sent in server.requests[1:3]] == [SCHEMA, None]
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA


async def test_server_that_wants_max_completion_tokens_gets_it() -> None:
    refused = Scripted(status=400, error="Use 'max_completion_tokens' instead of 'max_tokens'")
    async with connected(refused, Scripted("ok")) as (model, server):
        await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert server.requests[1]["max_completion_tokens"] == 512
    assert "max_tokens" not in server.requests[1]


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed", "stop", "stream_options"])
async def test_optional_field_that_is_refused_is_left_out_for_good(name: str) -> None:
    refused = Scripted(status=400, error=f"Unsupported value: '{name}' does not support this with this model.")
    async with connected(refused, Scripted("ok")) as (model, server):
        await model.complete(REQUEST, request_id="r", timeout_s=60)
        await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert [name in sent for sent in server.requests] == [True, False, False]


async def test_context_that_is_too_small_is_not_taken_for_a_field_that_is_refused() -> None:
    said = "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 4096"
    async with connected(Scripted(status=400, error=said)) as (model, server):
        with pytest.raises(ContextTooLarge):
            await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert len(server.requests) == 1


async def test_server_that_wants_max_tokens_gets_it_and_is_not_asked_for_ever() -> None:
    engine = HttpEngine.model_validate(
        {"engine_id": "g", "preset": "openai", "model": "m", "unpriced": True, "capabilities": []}
    )
    refused = Scripted(status=400, error="unknown field max_completion_tokens; max_tokens is known")
    async with serving(refused) as server:
        model = OpenAIChatModel(engine, base_url=server.base_url, model="m", api_key="k")
        with pytest.raises(ModelUnavailable):
            await model.complete(REQUEST, request_id="r", timeout_s=60)
        await model.close()
    assert ["max_tokens" in sent for sent in server.requests] == [False, True]


def test_schema_beside_tools_is_left_out_where_the_server_takes_one_of_them() -> None:
    offer = ToolOffer(name="git__status", description="d", parameters={})
    request = STRUCTURED.model_copy(update={"tools": (offer,)})
    for preset, both in (("google", False), ("groq", True)):
        engine = HttpEngine.model_validate({"engine_id": "g", "preset": preset, "model": "m", "unpriced": True})
        assert ("response_format" in LearnedDialect(engine).values(request, "m", [])) is both


def _piece(**values: object) -> dict[str, object]:
    return {"index": 0, "id": None, "type": "function", "function": None, **values}


@pytest.mark.parametrize(
    "pieces",
    [
        [
            _piece(id="a", function={"name": "x", "arguments": "{"}),
            _piece(function={"name": None, "arguments": "}"}),
            _piece(index=1, id="b", function={"name": "y", "arguments": "{}"}),
        ],
        # Every use with index 0, or with none, each whole.
        [
            _piece(id="a", function={"name": "x", "arguments": "{}"}),
            _piece(id="b", function={"name": "y", "arguments": "{}"}),
        ],
        [
            {"id": "a", "function": {"name": "x", "arguments": "{}"}},
            {"id": "b", "function": {"name": "y", "arguments": "{}"}},
        ],
    ],
)
async def test_uses_are_put_together_however_they_are_numbered(pieces: list[dict[str, object]]) -> None:
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    deltas = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}, "finish_reason": None}]} for piece in pieces]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    raw = b"".join(b"data: " + json.dumps({**chunk, **part}).encode() + b"\n\n" for part in (*deltas, end))
    async with connected(Scripted(raw=raw)) as (model, _):
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert [(use.id, use.name, use.arguments) for use in reply.tool_uses] == [("a", "x", "{}"), ("b", "y", "{}")]


async def test_use_that_was_cut_off_is_no_use() -> None:
    delta = {"tool_calls": [_piece(id="a", function={"name": "x", "arguments": "{"})]}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m"}
    raw = json.dumps({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": "length"}]}).encode()
    async with connected(Scripted(raw=b"data: " + raw + b"\n\n")) as (model, _):
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert (reply.finish_reason, reply.tool_uses) == ("length", ())


async def test_caller_that_goes_away_while_it_waits_for_a_slot_keeps_none() -> None:
    async with connected(Scripted("x", hang=True)) as (model, server):
        first = asyncio.create_task(model.complete(REQUEST, request_id="1", timeout_s=30))
        await eventually(lambda: len(server.requests) == 1)
        waiting = asyncio.create_task(model.complete(REQUEST, request_id="2", timeout_s=30))
        await asyncio.sleep(0)
        waiting.cancel()
        first.cancel()
        await asyncio.gather(first, waiting, return_exceptions=True)
        server.script = [Scripted("next")]
        assert (await model.complete(REQUEST, request_id="3", timeout_s=60)).text == "next"


async def test_server_without_usage_is_counted_by_pieces_and_never_as_zero() -> None:
    async with connected(Scripted("a\nb\nc\n", usage=False)) as (model, _):
        reply = await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert (reply.usage.tokens_in, reply.usage.tokens_out) == (2, 3)


@pytest.mark.parametrize(
    ("scripted", "error"),
    [
        (Scripted(status=400, error="This model's maximum context length is 4096 tokens"), ContextTooLarge),
        (Scripted(status=400, error="request (5000 tokens) exceeds the available context size"), ContextTooLarge),
        (Scripted(status=400, error="blocked by content policy"), ReplyRefused),
        (Scripted(status=400, error="bad messages"), ModelUnavailable),
        (Scripted(status=401, error="bad key"), ModelUnavailable),
        (Scripted(status=404, error="no such model"), ModelUnavailable),
        (Scripted(status=429, error="slow down"), ModelUnavailable),
        (Scripted(status=500, error="boom"), ModelUnavailable),
        (Scripted("some text", error="context window is full"), ContextTooLarge),
        (Scripted("no", finish="content_filter"), ReplyRefused),
        (Scripted(refusal="I cannot help with that"), ReplyRefused),
        (Scripted("cut", finish=None), ModelUnavailable),
        (Scripted(raw=b"data: {not json\n\n"), ModelUnavailable),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_failure_of_the_server_becomes_one_model_error(scripted: Scripted, error: type[ModelError]) -> None:
    async with connected(scripted) as (model, _):
        with pytest.raises(error):
            await model.complete(REQUEST, request_id="r", timeout_s=60)


async def test_refused_key_names_the_variable_to_set() -> None:
    async with connected(Scripted(status=401, error="bad key")) as (model, _):
        with pytest.raises(ModelUnavailable, match="set TINY_KEY to a valid key") as caught:
            await model.complete(REQUEST, request_id="r", timeout_s=60)
    assert caught.value.details["permanent"] is True
    assert "sk-test" not in str(caught.value)


async def test_server_that_is_not_there_names_address_and_variable() -> None:
    model = OpenAIChatModel(ENGINE, base_url="http://127.0.0.1:9/v1", model="m")
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:9.*TINY_URL"):
        await model.complete(REQUEST, request_id="r", timeout_s=60)
    await model.close()


@pytest.mark.parametrize(
    ("models", "model", "text"),
    [(["a", "b"], "auto", "offers a, b"), ([], "auto", "no model"), (["a"], "c", "'c' is not among them")],
)
async def test_health_without_our_model_lists_what_the_server_has(models: list[str], model: str, text: str) -> None:
    async with connected(model=model, models=models) as (chat_model, _):
        with pytest.raises(ModelUnavailable, match=text):
            await chat_model.health()


async def test_connection_is_closed_when_a_request_times_out() -> None:
    async with connected(Scripted("x", hang=True)) as (model, server):
        with pytest.raises(ModelTimeout):
            await model.complete(REQUEST, request_id="r", timeout_s=0.1)
        # One slot only: a second request gets it, so the first one was really given back.
        server.script = [Scripted("next")]
        reply = await model.complete(REQUEST, request_id="r2", timeout_s=60)
    assert reply.text == "next"
    assert server.disconnects == 1


def _instance(cls: type[openai.OpenAIError]) -> openai.OpenAIError:
    response = httpx2.Response(418, request=HTTP_REQUEST)
    for arguments in (
        {"message": "m", "response": response, "body": None},
        {"response": response, "body": None},
        {"message": "m", "request": HTTP_REQUEST, "body": None},
        {"message": "m", "request": HTTP_REQUEST},
        {"request": HTTP_REQUEST},
        {"message": "m", "unsent_messages": []},
    ):
        with contextlib.suppress(TypeError):
            return cls(**arguments)  # type: ignore[arg-type]
    return cls.__new__(cls)


# A webhook check is no model call, and it is not in the tree of OpenAIError.
NOT_CALLS = {openai.InvalidWebhookSignatureError}


def test_every_exception_class_of_the_sdk_is_mapped_to_a_model_error() -> None:
    classes = {
        value
        for name in dir(openai)
        if not name.startswith("_")
        and isinstance(value := getattr(openai, name), type)
        and issubclass(value, Exception)
        and value not in NOT_CALLS
    }
    assert classes == set(MAPPING)
    for cls in classes:
        error = translate(_instance(cls), ENGINE, "http://t/v1")
        assert isinstance(error, ModelError)
        assert error.details["engine"] == "tiny"


def test_mapping_lists_the_most_specific_class_first() -> None:
    order = list(MAPPING)
    assert all(not issubclass(later, earlier) for i, earlier in enumerate(order) for later in order[i + 1 :])


def test_cut_off_and_filtered_exceptions_keep_their_meaning() -> None:
    length = openai.LengthFinishReasonError.__new__(openai.LengthFinishReasonError)
    withheld = openai.ContentFilterFinishReasonError.__new__(openai.ContentFilterFinishReasonError)
    assert isinstance(translate(length, ENGINE, "u"), ReplyMalformed)
    assert isinstance(translate(withheld, ENGINE, "u"), ReplyRefused)
    assert isinstance(translate(openai.APITimeoutError(HTTP_REQUEST), ENGINE, "u"), ModelTimeout)


@pytest.mark.rule("MB-45")
async def test_thoughts_go_back_to_the_engine_that_had_them_until_its_server_refuses_the_field() -> None:
    own = Reasoning(engine=ENGINE.engine_id, form="reasoning_content", text="Hm.")
    other = Reasoning(engine="another", form="reasoning_content", text="Aha.")
    said = ChatMessage(role="assistant", content="Yes.", reasoning=(own, other))
    asked = ChatRequest(messages=(ChatMessage(role="user", content="a"), said, ChatMessage(role="user", content="b")))
    refused = Scripted(status=400, error="Unexpected field: messages.1.reasoning_content")
    async with serving(Scripted("one"), refused, Scripted("two"), Scripted("three")) as server:
        model = OpenAIChatModel(ENGINE, base_url=server.base_url, model="tiny-1b")
        for _ in range(3):
            await model.complete(asked, request_id="r", timeout_s=60)
        await model.close()
    assert [m["messages"][1].get("reasoning_content") for m in server.requests] == ["Hm.", "Hm.", None, None]


@pytest.mark.rule("MB-44")
async def test_request_that_names_no_bound_gets_the_longest_reply_of_its_engine() -> None:
    able = ENGINE.model_copy(update={"max_output": 32_000})
    async with serving(Scripted("one")) as server:
        model = OpenAIChatModel(able, base_url=server.base_url, model="tiny-1b")
        asked = ChatRequest(messages=REQUEST.messages)
        await model.complete(asked, request_id="r", timeout_s=60)
        await model.close()
    assert [sent["max_tokens"] for sent in server.requests] == [32_000]


@pytest.mark.rule("MB-45")
async def test_whole_calls_of_a_reply_that_was_cut_off_hold() -> None:
    calls = [
        {"index": n, "id": f"c{n}", "function": {"name": "read", "arguments": arguments}}
        for n, arguments in enumerate(['{"path": "a"}', '{"path": "b', '{"path": "c"}'])
    ]
    choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "length"}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    async with serving(Scripted(raw=f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())) as server:
        model = OpenAIChatModel(ENGINE, base_url=server.base_url, model="tiny-1b")
        reply = await model.complete(
            ChatRequest(messages=(ChatMessage(role="user", content="a"),)), request_id="r", timeout_s=60
        )
        await model.close()
    assert (reply.finish_reason, [use.id for use in reply.tool_uses]) == ("length", ["c0"])


@pytest.mark.rule("MB-15")
@pytest.mark.parametrize(("gpus", "at_once"), [(0, 1), (1, 1), (2, 1), (2, 2)])
async def test_calls_of_a_server_share_the_time_in_which_it_was_busy_with_its_gpus(gpus: int, at_once: int) -> None:
    engine = ENGINE.model_copy(update={"gpus": gpus, "max_concurrency": at_once})
    async with serving(Scripted("hi", delay_s=0.2)) as server:
        model = OpenAIChatModel(engine, base_url=server.base_url, model="tiny-1b", api_key="sk-test")
        began = time.monotonic()
        replies = await asyncio.gather(
            *(model.complete(REQUEST, request_id=f"r{number}", timeout_s=20) for number in range(2))
        )
        took_ms = (time.monotonic() - began) * 1000
        await model.close()
    charged = sum(reply.gpu_ms for reply in replies)
    least = 400 if at_once == 1 else 200
    assert least * gpus <= charged + 5 <= took_ms * gpus + 10


@pytest.mark.rule("MB-15")
async def test_call_that_times_out_is_charged_the_time_of_the_gpus() -> None:
    engine = ENGINE.model_copy(update={"gpus": 2})
    async with serving(Scripted("hi", hang=True)) as server:
        model = OpenAIChatModel(engine, base_url=server.base_url, model="tiny-1b", api_key="sk-test")
        with pytest.raises(ModelTimeout) as told:
            await model.complete(REQUEST, request_id="r", timeout_s=0.3)
        await model.close()
    assert told.value.details["gpu_ms"] >= 2 * 250
