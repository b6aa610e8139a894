"""What only the adapter for Anthropic's Messages API does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

anthropic = pytest.importorskip("anthropic", reason="extra `anthropic` is not installed")

from fleet.kernel.errors import ModelError, ModelTimeout, ModelUnavailable, ReplyRefused  # noqa: E402
from fleet.models.chat import ChatMessage, ChatRequest, Sampling  # noqa: E402
from fleet.models.engine_config import HttpEngine  # noqa: E402
from fleet.models.engines.anthropic import AnthropicChatModel, translate  # noqa: E402
from fleet.models.replies.tool_calls import offer_of  # noqa: E402
from tests.support.model_server import ModelServer, Scene, playing  # noqa: E402
from tests.support.providers import reply, stream_of, tool_call  # noqa: E402

ENGINE = HttpEngine.model_validate(
    {"engine_id": "mine", "preset": "anthropic", "model": "m", "unpriced": True, "max_output": 64}
)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
USER = ChatMessage(role="user", content="hello")
STRUCTURED = ChatRequest(messages=(USER,), json_schema=SCHEMA)


@contextlib.asynccontextmanager
async def connected(
    *scenes: Scene, engine: HttpEngine = ENGINE
) -> AsyncIterator[tuple[AnthropicChatModel, ModelServer]]:
    async with playing(*scenes) as server:
        model = AnthropicChatModel(engine, base_url=f"{server.url}/v1/", model="m", api_key="sk-test")
        yield model, server
        await model.close()


def refusal(message: str) -> Scene:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return Scene([json.dumps(error).encode()], status=400, content_type="application/json")


async def test_model_without_output_formats_is_made_to_use_a_tool_and_then_left_to_its_prompt() -> None:
    no_format = refusal("output_config.format: this model does not support structured outputs")
    no_force = refusal("tool_choice forces tool use, which thinking does not allow")
    forced = tool_call("anthropic", "reply", '{"ok": true}')
    plain = reply("anthropic", '{"ok": false}')
    async with connected(no_format, forced, no_force, plain, plain) as (model, server):
        answers = [await model.complete(STRUCTURED, request_id="r", timeout_s=60) for _ in range(3)]
    assert [json.loads(answer.text)["ok"] for answer in answers] == [True, False, False]
    assert [(answer.finish_reason, answer.tool_uses) for answer in answers] == [("stop", ())] * 3
    sent = [call.document for call in server.calls]
    assert ["output_config" in one for one in sent] == [True, False, False, False, False]
    assert [one.get("tool_choice", {}).get("name") for one in sent] == [None, "reply", "reply", None, None]


async def test_refusal_that_is_not_about_the_schema_is_not_tried_again() -> None:
    async with connected(refusal("messages: at least one message is required")) as (model, server):
        with pytest.raises(ModelUnavailable):
            await model.complete(STRUCTURED, request_id="r", timeout_s=60)
    assert len(server.calls) == 1


async def test_model_that_cannot_be_constrained_is_not_asked_to() -> None:
    free = ENGINE.model_copy(update={"capabilities": frozenset({"tools"})})
    async with connected(reply("anthropic", "{}"), engine=free) as (model, server):
        await model.complete(STRUCTURED, request_id="r", timeout_s=60)
    assert not {"output_config", "tools"} & set(server.calls[0].document)


async def test_tools_beside_a_schema_leave_the_choice_to_the_model() -> None:
    offer = offer_of("git", "status", description="d", parameters={})
    request = STRUCTURED.model_copy(update={"tools": (offer,)})
    no_format = refusal("output_config is not supported")
    async with connected(no_format, reply("anthropic", "{}")) as (model, server):
        await model.complete(request, request_id="r", timeout_s=60)
    last = server.calls[-1].document
    assert [tool["name"] for tool in last["tools"]] == ["git__status"]
    assert last["tools"][0]["input_schema"] == {"type": "object"}
    assert "tool_choice" not in last


async def test_conversation_takes_turns_and_holds_no_empty_text() -> None:
    messages = (
        ChatMessage(role="system", content="One."),
        ChatMessage(role="user", content="a"),
        ChatMessage(role="user", content="b"),
        ChatMessage(role="assistant", content=" "),
        ChatMessage(role="system", content="Two."),
    )
    sampling = Sampling(stop=("END", "\n"), max_tokens=9000)
    request = ChatRequest(messages=messages, sampling=sampling)
    only_system = ChatRequest(messages=messages[:1])
    async with connected(reply("anthropic", "x")) as (model, server):
        await model.complete(request, request_id="r", timeout_s=60)
        await model.complete(only_system, request_id="r", timeout_s=60)
    sent, bare = (call.document for call in server.calls)
    assert (sent["system"], sent["stop_sequences"], sent["max_tokens"]) == ("One.\n\nTwo.", ["END"], 64)
    assert [[block["text"] for block in turn["content"]] for turn in sent["messages"]] == [["a", "b"]]
    assert bare["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Begin."}]}]


def _changed(events: list[bytes], old: str, new: str) -> Scene:
    return Scene([event.replace(old.encode(), new.encode()) for event in events])


async def test_refusal_says_its_category() -> None:
    details = '"stop_reason": "refusal", "stop_details": {"type": "refusal", "category": "cyber", "explanation": "No."}'
    scene = _changed(stream_of("anthropic", "x"), '"stop_reason": "end_turn"', details)
    async with connected(scene) as (model, _):
        with pytest.raises(ReplyRefused, match=r"\(cyber\): No\."):
            await model.complete(ChatRequest(messages=(USER,)), request_id="r", timeout_s=60)


async def test_thinking_is_no_text_and_unknown_events_are_passed_over() -> None:
    thinking = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}}
    unknown: dict[str, Any] = {"type": "something_new", "value": 1}
    extra = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in (thinking, delta, unknown)]
    events = stream_of("anthropic", "Hello")
    async with connected(Scene([events[0], *extra, *events[1:]])) as (model, _):
        answer = await model.complete(ChatRequest(messages=(USER,)), request_id="r", timeout_s=60)
    assert answer.text == "Hello"


async def test_cumulative_counts_of_the_last_event_do_not_lose_the_cache() -> None:
    scene = _changed(stream_of("anthropic", "x"), '{"output_tokens": 7}', '{"input_tokens": 4, "output_tokens": 7}')
    async with connected(scene) as (model, _):
        usage = (await model.complete(ChatRequest(messages=(USER,)), request_id="r", timeout_s=60)).usage
    assert (usage.tokens_in, usage.tokens_out, usage.tokens_cached) == (11, 7, 5)


def test_every_exception_class_of_the_sdk_becomes_a_model_error() -> None:
    import httpx2

    request = httpx2.Request("POST", "http://t/v1/messages")
    response = httpx2.Response(418, request=request)
    classes = [value for name in anthropic.__all__ if isinstance(value := getattr(anthropic, name), type)]
    errors = [cls for cls in classes if issubclass(cls, Exception)]
    assert anthropic.APIStatusError in errors
    for cls in errors:
        error = cls.__new__(cls, "x")
        if isinstance(error, anthropic.APIError):
            error.message, error.body = "x", None
        if isinstance(error, anthropic.APIStatusError):
            error.response = response
        found = translate(error, ENGINE, "http://t/v1")
        assert isinstance(found, ModelError)
        assert found.details["engine"] == "mine"
    timeout = translate(anthropic.APITimeoutError(request), ENGINE, "u")
    assert isinstance(timeout, ModelTimeout)
