"""One suite over all providers: request, stream, calls of tools, usage, errors, and every way to break off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from fleet.kernel.errors import ContextTooLarge, ModelError, ModelTimeout, ModelUnavailable, ReplyRefused
from fleet.models.chat import ChatMessage, ChatRequest, Sampling, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import build_chat_model
from fleet.models.port import ChatModel
from fleet.models.presets import PRESETS
from fleet.models.profiles import load_models
from fleet.models.replies.tool_calls import offer_of
from tests.support.model_server import ModelServer, Scene, playing
from tests.support.providers import Provider, Trouble, facts_of, reply, stream_of, structured, tool_call, trouble

pytest.importorskip("anthropic", reason="extra `anthropic` is not installed")

KEY = "sk-test-1234"
REQUEST = ChatRequest(
    messages=(ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="hello")),
    sampling=Sampling(temperature="0.2", top_p="0.9", max_tokens=64, seed=3),
)
READ = offer_of(
    "files",
    "read",
    description="One file.",
    parameters={"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
)
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


@pytest.fixture(params=[*sorted(PRESETS), "responses"])
def preset(request: pytest.FixtureRequest) -> Provider:
    return request.param


def engine_of(preset: Provider, **changes: object) -> HttpEngine:
    """What a user writes: an id, a preset, a model, and that it has no price."""
    way = {"preset": "openai", "api": "responses"} if preset == "responses" else {"preset": preset}
    entry = {"engine_id": "mine", **way, "model": "tiny-1b", "unpriced": True, "max_output": 16, **changes}
    default = [{"engine_id": "mine", "max_tokens": 100, "timeout_s": 5}]
    engine = load_models({"engines": [entry], "policies": {"default": default}}).engine("mine")
    assert isinstance(engine, HttpEngine)
    return engine


def environ_of(preset: Provider) -> Mapping[str, str]:
    variable = facts_of(preset).key_variable
    return {variable: KEY} if variable else {}


@contextlib.asynccontextmanager
async def connected(
    preset: Provider, *scenes: Scene, **changes: object
) -> AsyncIterator[tuple[ChatModel, ModelServer]]:
    """A model in front of its provider. Afterwards no task of it runs and no connection of it is open."""
    async with playing(*scenes) as server:
        before = asyncio.all_tasks()
        model = build_chat_model(engine_of(preset, base_url=f"{server.url}/v1", **changes), environ=environ_of(preset))
        yield model, server
        # Before the client is closed: what it still held would be a leak of every call.
        await _until_nothing_is_left(server, before)
        await model.close()  # type: ignore[attr-defined]


async def _until_nothing_is_left(server: ModelServer, before: set[asyncio.Task[Any]]) -> None:
    # The tasks of the server's side are gone with their connections.
    until = time.monotonic() + 60
    while server.open or asyncio.all_tasks() - before - {asyncio.current_task()}:
        assert time.monotonic() < until, f"left behind: {server.open}, {asyncio.all_tasks() - before}"
        await asyncio.sleep(0.005)


async def ask(model: ChatModel, request: ChatRequest = REQUEST, *, timeout_s: float = 60) -> Any:
    return await model.complete(request, request_id="r", timeout_s=timeout_s)


async def test_reply_is_whole_and_its_usage_is_what_the_provider_counted(preset: Provider) -> None:
    async with connected(preset, reply(preset, "Hello ", "world")) as (model, server):
        chunks = [chunk async for chunk in model.stream(REQUEST, request_id="r", timeout_s=60)]
    answer = chunks[-1].reply
    assert answer is not None
    assert "".join(chunk.text for chunk in chunks) == answer.text == "Hello world"
    assert (answer.finish_reason, answer.engine, answer.model) == ("stop", "mine", "tiny-1b")
    cached = 5 if preset in ("openai", "responses", "openrouter", "groq", "anthropic") else 0
    assert (answer.usage.tokens_in, answer.usage.tokens_out, answer.usage.tokens_cached) == (11, 7, cached)
    assert len(server.calls) == 1


async def test_request_holds_what_the_provider_takes_and_nothing_else(preset: Provider) -> None:
    async with connected(preset, reply(preset, "x")) as (model, server):
        await ask(model)
    (asked,) = server.calls
    sent = asked.document
    limits = {"groq": "max_completion_tokens", "openai": "max_completion_tokens", "responses": "max_output_tokens"}
    limit = limits.get(preset, "max_tokens")
    assert {name: sent[name] for name in sent if name.startswith("max_")} == {limit: 16}
    assert ("seed" in sent) == ("seed" in facts_of(preset).capabilities and preset != "responses")
    if preset == "anthropic":
        assert asked.path == "/v1/messages"
        assert (sent["system"], [m["role"] for m in sent["messages"]]) == ("Be brief.", ["user"])
        assert not {"temperature", "top_p"} & set(sent)
        assert asked.headers["anthropic-version"]
    elif preset == "responses":
        assert asked.path == "/v1/responses"
        assert sent["input"][0] == {"role": "system", "content": "Be brief."}
        assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
        assert (sent["temperature"], sent["top_p"]) == (0.2, 0.9)
    else:
        assert asked.path == "/v1/chat/completions"
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
        assert sent["stream_options"] == {"include_usage": True}
        assert (sent["temperature"], sent["top_p"]) == (0.2, 0.9)
    assert ("x-title" in asked.headers) == (preset == "openrouter")
    keys = [value for value in asked.headers.values() if KEY in value]
    assert bool(keys) == (preset != "ollama")


@pytest.mark.rule("MB-14")
async def test_tool_call_is_read_and_its_result_goes_back_in_the_provider_s_form(preset: Provider) -> None:
    request = REQUEST.model_copy(update={"tools": (READ,)})
    async with connected(preset, tool_call(preset, READ.name, '{"path": "a.py"}'), reply(preset, "done")) as found:
        model, server = found
        first = await ask(model, request)
        (use,) = first.tool_uses
        more = (
            ChatMessage(role="assistant", content=first.text, tool_uses=first.tool_uses),
            ChatMessage(role="tool", content="print(1)", tool_use_id=use.id),
        )
        second = await ask(model, request.model_copy(update={"messages": (*REQUEST.messages, *more)}))
    assert (first.text, first.finish_reason) == ("Let me see.", "tool_use")
    assert (use.name, json.loads(use.arguments)) == ("files__read", {"path": "a.py"})
    assert (second.text, second.tool_uses) == ("done", ())
    offered = server.calls[0].document["tools"][0]
    replied = server.calls[1].document["input" if preset == "responses" else "messages"]
    if preset == "anthropic":
        assert (offered["name"], offered["input_schema"]["type"]) == ("files__read", "object")
        assert replied[-2]["content"][-1]["input"] == {"path": "a.py"}
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "print(1)"}
        assert replied[-1]["content"] == [{**result, "cache_control": {"type": "ephemeral"}}]
    elif preset == "responses":
        assert (offered["name"], offered["strict"]) == ("files__read", False)
        call = {"type": "function_call", "call_id": "call_a1", "name": "files__read", "arguments": '{"path": "a.py"}'}
        result = {"type": "function_call_output", "call_id": "call_a1", "output": "print(1)"}
        assert replied[-3:] == [{"role": "assistant", "content": "Let me see."}, call, result]
    else:
        assert offered["function"]["name"] == "files__read"
        assert replied[-2]["tool_calls"][0]["function"]["name"] == "files__read"
        assert replied[-1] == {"role": "tool", "content": "print(1)", "tool_call_id": use.id}
        assert ("extra_content" in replied[-2]["tool_calls"][0]) == (preset == "google")


async def test_schema_is_sent_in_the_provider_s_form(preset: Provider) -> None:
    async with connected(preset, structured(preset, {"ok": True})) as (model, server):
        answer = await ask(model, REQUEST.model_copy(update={"json_schema": SCHEMA}))
    assert json.loads(answer.text) == {"ok": True}
    sent = server.calls[0].document
    if preset == "anthropic":
        assert sent["output_config"]["format"]["schema"]["required"] == ["ok"]
    elif preset == "responses":
        assert sent["text"]["format"]["schema"] == SCHEMA
    else:
        assert sent["response_format"]["json_schema"]["schema"] == SCHEMA


TROUBLES: list[tuple[Trouble, type[ModelError], bool]] = [
    ("rate", ModelUnavailable, False),
    ("down", ModelUnavailable, False),
    ("overloaded", ModelUnavailable, False),
    ("late_error", ModelUnavailable, False),
    ("key", ModelUnavailable, True),
    ("model", ModelUnavailable, True),
    ("credit", ModelUnavailable, True),
    ("too_long", ContextTooLarge, False),
    ("filtered", ReplyRefused, False),
]


@pytest.mark.parametrize(("kind", "error", "is_permanent"), TROUBLES, ids=[row[0] for row in TROUBLES])
async def test_error_of_the_provider_is_one_typed_error(
    preset: Provider, kind: Trouble, error: type[ModelError], is_permanent: bool
) -> None:
    async with connected(preset, trouble(preset, kind)) as (model, server):
        with pytest.raises(ModelError) as caught:
            await ask(model)
    assert type(caught.value) is error
    assert caught.value.details.get("permanent", False) is is_permanent
    assert caught.value.details["engine"] == "mine"
    assert (caught.value.details.get("retry_after_s") == 7) == (kind == "rate")
    assert len(server.calls) == 1


async def test_refused_key_says_where_to_put_one_and_never_shows_it(
    preset: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with connected(preset, trouble(preset, "key")) as (model, _):
        with pytest.raises(ModelUnavailable) as caught:
            await ask(model)
    variable = facts_of(preset).key_variable
    assert (variable or "api_key_env") in caught.value.message
    if variable is None:
        return
    shown = f"{caught.value!r} {caught.value.details} {caught.value.__cause__!r} {caplog.text}"
    assert KEY not in shown
    assert "[REDACTED]" in caught.value.message


async def test_missing_key_is_told_before_anything_is_sent(preset: Provider) -> None:
    if facts_of(preset).key_variable is None:
        pytest.skip("this provider wants no key")
    async with playing(reply(preset, "x")) as server:
        model = build_chat_model(engine_of(preset, base_url=f"{server.url}/v1"), environ={})
        with pytest.raises(ModelUnavailable, match=f"set {facts_of(preset).key_variable} to a valid key") as caught:
            await ask(model)
        await model.close()  # type: ignore[attr-defined]
    assert caught.value.details["permanent"] is True
    assert server.asked == []


HTML = b"<html><head><style>p{}</style></head><body><h1>502 Bad Gateway</h1></body></html>"


def _breaks(preset: Provider) -> dict[str, Scene]:
    whole = stream_of(preset, "some ", "text")
    begun = stream_of(preset, "some ", finish=None)
    broken = b"event: content_block_delta\ndata: {not json\n\n"
    other = b'event: message_start\ndata: {"message": 7, "type": "message_start", "choices": 7}\n\n'
    return {
        "broken JSON": Scene([*begun, broken]),
        "broken JSON at once": Scene([broken]),
        "another shape": Scene([other]),
        "null": Scene([b"event: message_start\ndata: null\n\n"]),
        "no finish": Scene(begun),
        "nothing": Scene([]),
        "cut in its middle": Scene(whole[:2], end="cut"),
        "invalid UTF-8": Scene([*begun, b'event: ping\ndata: "\xff\xfe\n\n']),
        "a page instead": Scene([HTML], content_type="text/html; charset=utf-8"),
        "JSON instead": Scene([b'{"text": "hi"}'], content_type="application/json"),
        "an error page": Scene([HTML], status=502, content_type="text/html"),
        "no end": Scene([b": " + b"x" * 65_536 + b"\n\n"], end="endless"),
        "no end in one line": Scene([b"data: ", b"x" * 65_536], end="endless"),
        "an endless error": Scene([b"x" * 65_536], status=400, end="endless"),
        "a redirect": Scene(status=307, headers={"location": "http://127.0.0.1:9/v1"}),
    }


BREAKS = list(_breaks("openai"))


@pytest.mark.parametrize("name", BREAKS)
async def test_answer_that_breaks_off_is_a_typed_error_in_time_and_leaves_nothing(preset: Provider, name: str) -> None:
    async with connected(preset, _breaks(preset)[name]) as (model, server):
        with pytest.raises(ModelUnavailable) as caught:
            await ask(model, timeout_s=30)
    assert len(server.calls) == 1
    assert server.sent_bytes < 16_000_000
    assert "engine 'mine'" in caught.value.message
    if name == "an error page":
        assert "502 Bad Gateway" in caught.value.message
        assert "<" not in caught.value.message
    if name == "a redirect":
        assert "http://127.0.0.1:9/v1" in caught.value.message


async def test_error_in_a_body_with_status_200_is_the_error_that_it_says() -> None:
    body = b'{"error": {"code": 429, "message": "You are being rate limited"}}'
    async with connected("openrouter", Scene([body], content_type="application/json")) as (model, _):
        with pytest.raises(ModelUnavailable, match="You are being rate limited; wait") as caught:
            await ask(model)
    assert (caught.value.details["status"], caught.value.details.get("permanent")) == (429, None)


async def _times_out(preset: Provider, scene: Scene) -> float:
    async with connected(preset, scene) as (model, server):
        started = time.monotonic()
        with pytest.raises(ModelTimeout, match="engine 'mine'"):
            # Less, and on a busy machine the time may be over before the server has read the request.
            await ask(model, timeout_s=3)
        took_s = time.monotonic() - started
    assert len(server.calls) == 1
    return took_s


async def test_server_that_hangs_anywhere_is_a_timeout_when_the_time_is_over(preset: Provider) -> None:
    begun = stream_of(preset, "some ", finish=None)
    silence = Scene(end="silent")
    no_body = Scene(end="hang")
    in_the_middle = Scene(begun, end="hang")
    in_an_error = Scene([b'{"err'], status=500, end="hang")
    drip = Scene([b": wait a little longer\n"], end="drip")
    scenes = (silence, no_body, in_the_middle, in_an_error, drip)
    took = await asyncio.gather(*(_times_out(preset, scene) for scene in scenes))
    assert max(took) < 8


async def test_storm_of_errors_ends_and_the_next_call_goes_through(preset: Provider) -> None:
    storm = [Scene([HTML], status=status, content_type="text/html") for status in (500, 502, 503, 429, 504)]
    async with connected(preset, *storm, reply(preset, "calm"), max_concurrency=1) as (model, server):
        for _ in storm:
            with pytest.raises(ModelUnavailable) as caught:
                await ask(model)
            assert "permanent" not in caught.value.details
        answer = await ask(model)
    assert answer.text == "calm"
    assert len(server.calls) == len(storm) + 1


async def test_many_calls_at_once_that_hang_give_everything_back(preset: Provider) -> None:
    begun = stream_of(preset, "some ", finish=None)
    async with connected(preset, Scene(begun, end="hang"), max_concurrency=3) as (model, _):
        calls = [model.complete(REQUEST, request_id=f"r{n}", timeout_s=0.3) for n in range(12)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in found] == [ModelTimeout] * 12


async def test_cut_off_and_withheld_replies_keep_their_meaning(preset: Provider) -> None:
    cut, withheld = reply(preset, "half", finish="length"), reply(preset, "no", finish="content_filter")
    async with connected(preset, cut, withheld) as (model, _):
        assert (await ask(model)).finish_reason == "length"
        with pytest.raises(ReplyRefused):
            await ask(model)


async def test_health_knows_the_model_and_names_what_there_is_instead(preset: Provider) -> None:
    async with connected(preset, reply(preset, "x")) as (model, _):
        await model.health()
    async with connected(preset, reply(preset, "x"), model="other") as (model, _):
        with pytest.raises(ModelUnavailable, match="offers tiny-1b; 'other' is not among them"):
            await model.health()


async def test_broken_use_goes_back_as_an_empty_one(preset: Provider) -> None:
    uses = (ToolUse(id="call:1", name="files__read", arguments='{"path": '),)
    more = (
        ChatMessage(role="assistant", content="", tool_uses=uses),
        ChatMessage(role="tool", content="Not executed.", tool_use_id="call:1"),
    )
    request = REQUEST.model_copy(update={"tools": (READ,), "messages": (*REQUEST.messages, *more)})
    async with connected(preset, reply(preset, "ok")) as (model, server):
        await ask(model, request)
    turn = server.calls[0].document["input" if preset == "responses" else "messages"][-2]
    if preset == "responses":
        assert turn == {"type": "function_call", "call_id": "call:1", "name": "files__read", "arguments": "{}"}
    elif preset == "anthropic":
        assert turn["content"] == [{"type": "tool_use", "id": "call_1", "name": "files__read", "input": {}}]
    else:
        assert turn["tool_calls"][0]["function"]["arguments"] == "{}"
