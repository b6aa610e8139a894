"""What only the adapter for the Responses API does: thoughts that go back encrypted, and what it does not take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Reasoning, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.responses import ResponsesChatModel
from tests.support.openai_server import FakeOpenAIServer, Scripted, serving
from tests.support.providers import responses_stream

ENGINE = HttpEngine(
    engine_id="thinker", kind="openai", api="responses", model="tiny-1b", base_url="http://unused/v1", unpriced=True
)
ASKED = ChatMessage(role="user", content="a")
SAID: Mapping[str, Any] = {"type": "message", "texts": ["Yes."]}


def thought(name: str, *, summary: str = "") -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": summary}] if summary else []
    return {"type": "reasoning", "id": name, "summary": parts, "encrypted_content": f"sealed {name}"}


def call(name: str, arguments: str = "{}", **more: object) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "look", "arguments": arguments, **more}


def replied(*items: Mapping[str, Any], finish: str = "stop") -> Scripted:
    return Scripted(raw=b"".join(responses_stream(items, finish)))


async def ask(server: FakeOpenAIServer, *requests: ChatRequest) -> list[ChatReply]:
    model = ResponsesChatModel(ENGINE, base_url=server.base_url, model="tiny-1b")
    try:
        return [await model.complete(request, request_id="r", timeout_s=60) for request in requests]
    finally:
        await model.close()


def after(reply: ChatReply) -> ChatRequest:
    """The next question of a conversation: each call of the reply is answered."""
    turn = ChatMessage(role="assistant", content=reply.text, tool_uses=reply.tool_uses, reasoning=reply.reasoning)
    answers = [ChatMessage(role="tool", content="seen", tool_use_id=use.id) for use in reply.tool_uses]
    return ChatRequest(messages=(ASKED, turn, *(answers or [ASKED])))


def sent(server: FakeOpenAIServer, number: int) -> list[str]:
    """The items of a request by their kinds, thoughts by their ids."""
    return [item.get("id") or item.get("type") or item["role"] for item in server.requests[number]["input"]]


@pytest.mark.rule("MB-45")
async def test_each_thought_goes_back_as_it_came_in_front_of_the_call_it_led_to() -> None:
    thoughts = replied(thought("rs_1", summary="Hm."), SAID, call("c1"), thought("rs_2"), call("c2"))
    async with serving(thoughts) as server:
        (reply,) = await ask(server, ChatRequest(messages=(ASKED,)))
        await ask(server, after(reply))
    first = Reasoning(engine="thinker", form="reasoning", id="rs_1", text="Hm.", opaque="sealed rs_1")
    second = Reasoning(engine="thinker", form="reasoning", id="rs_2", opaque="sealed rs_2", place=2)
    assert reply.reasoning == (first, second)
    kinds = ["rs_1", "assistant", "function_call", "rs_2", "function_call"]
    assert sent(server, 1) == ["user", *kinds, "function_call_output", "function_call_output"]
    assert server.requests[1]["input"][1] == thought("rs_1", summary="Hm.")
    assert server.requests[1]["input"][4] == thought("rs_2")


@pytest.mark.rule("MB-45")
async def test_thought_of_another_engine_or_one_that_nothing_follows_stays_here() -> None:
    # Cut off in its second thought, and in the arguments of its second call.
    cut = replied(thought("rs_1"), call("c1"), thought("rs_2"), call("c2", '{"a": 1}', is_half=True), finish="length")
    async with serving(cut, replied(SAID)) as server:
        (reply,) = await ask(server, ChatRequest(messages=(ASKED,)))
        foreign = Reasoning(engine="another", form="reasoning", opaque="theirs")
        more = reply.model_copy(update={"reasoning": (foreign, *reply.reasoning)})
        await ask(server, after(more))
    assert (reply.finish_reason, [use.id for use in reply.tool_uses]) == ("length", ["c1"])
    assert sent(server, 1) == ["user", "rs_1", "function_call", "function_call_output"]


@pytest.mark.rule("MB-45")
async def test_thoughts_that_the_server_cannot_read_any_more_are_left_out_and_newer_ones_go_back() -> None:
    refused = Scripted(status=400, error="The encrypted content for item rs_1 could not be verified.")
    new = replied(thought("rs_2"), call("c2"))
    async with serving(replied(thought("rs_1"), call("c1")), refused, new, replied(SAID)) as server:
        model = ResponsesChatModel(ENGINE, base_url=server.base_url, model="tiny-1b")
        old = await model.complete(ChatRequest(messages=(ASKED,)), request_id="r", timeout_s=60)
        newer = await model.complete(after(old), request_id="r", timeout_s=60)
        both = ChatRequest(messages=(*after(old).messages, *after(newer).messages[1:]))
        await model.complete(both, request_id="r", timeout_s=60)
        await model.close()
    assert [sent(server, number)[1] for number in (1, 2)] == ["rs_1", "function_call"]
    last = [name for name in sent(server, 3) if name.startswith("rs_")]
    assert last == ["rs_2"]


@pytest.mark.rule("MB-45")
@pytest.mark.parametrize(
    "refusal", ["Encrypted content is not supported with this model.", "Unknown parameter: 'include'."]
)
async def test_model_that_does_not_think_is_asked_for_it_once(refusal: str) -> None:
    async with serving(Scripted(status=400, error=refusal), replied(SAID)) as server:
        replies = await ask(server, ChatRequest(messages=(ASKED,)), ChatRequest(messages=(ASKED,)))
    assert [reply.text for reply in replies] == ["Yes.", "Yes."]
    assert ["include" in request for request in server.requests] == [True, False, False]
    assert all(request["store"] is False for request in server.requests)


async def test_fields_and_forms_that_are_refused_are_left_out_from_then_on() -> None:
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    asked = ChatRequest(messages=(ASKED,), json_schema=schema)
    refusals = [
        Scripted(status=400, error="Unsupported parameter: 'temperature' is not supported with this model."),
        Scripted(status=400, error="Invalid schema for response_format 'reply'"),
    ]
    async with serving(*refusals, replied(SAID)) as server:
        await ask(server, asked)
    forms = [request["text"]["format"]["type"] for request in server.requests]
    assert forms == ["json_schema", "json_schema", "json_object"]
    assert ["temperature" in request for request in server.requests] == [True, False, False]


async def test_call_of_another_provider_keeps_within_what_the_api_takes() -> None:
    use = ToolUse(id="x" * 100, name="look", arguments='{"a": ')
    asked = ChatMessage(role="assistant", content="", tool_uses=(use,))
    told = ChatMessage(role="tool", content="no", tool_use_id=use.id)
    async with serving(replied(SAID)) as server:
        await ask(server, ChatRequest(messages=(ASKED, asked, told)))
    called, answered = server.requests[0]["input"][1:]
    assert called["call_id"] == answered["call_id"] == "x" * 64
    assert called["arguments"] == "{}"


def test_anthropic_has_one_api() -> None:
    entry = {"engine_id": "a", "kind": "anthropic", "model": "m", "base_url": "http://u/v1", "unpriced": True}
    with pytest.raises(ValidationError, match="leave `api` out"):
        HttpEngine.model_validate({**entry, "api": "responses"})
