"""`/v1` over real HTTP, asked by the official `openai` client (AP-122)."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from fleet.kernel.errors import (
    ContextTooLarge,
    FleetError,
    ModelTimeout,
    ModelUnavailable,
    ReplyRefused,
    StoreUnavailable,
)
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage, ToolUse
from fleet.models.memory import ScriptedChatModel
from fleet.models.routing.budget import BudgetLimits, Spend
from tests.support.llm_front import LlmFront, llm_front
from tests.support.sandbox import eventually

ASK: list[Any] = [{"role": "user", "content": "Say hello."}]
PATH = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tiny", "messages": ASK}
TOKEN = {"Authorization": "Bearer dev-token"}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "getWeather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def reply(text: str = "Hi.", **values: Any) -> ChatReply:
    """A reply as an engine gives it."""
    usage = TokenUsage(tokens_in=11, tokens_out=7, tokens_cached=5)
    plain = {"text": text, "finish_reason": "stop", "usage": usage, "engine": "tiny", "model": "tiny-1b"}
    return ChatReply(**{**plain, **values})


@dataclass
class Dripping:
    """A model that gives its pieces one by one, all of them or until it is aborted."""

    pieces: list[str]
    pause_after: int | None = None
    """Number of pieces after which nothing more comes until the abort."""
    fails: BaseException | None = None
    """How it ends after its pieces."""
    aborts: dict[str, asyncio.Event] = field(default_factory=dict)

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        async for chunk in self.stream(request, request_id=request_id, timeout_s=timeout_s, tag=tag):
            if chunk.reply is not None:
                return chunk.reply
        raise AssertionError("it ends with a reply")

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        aborted = self.aborts.setdefault(request_id, asyncio.Event())
        said = ""
        for number, piece in enumerate(self.pieces):
            if number == self.pause_after:
                await aborted.wait()
                yield ChatChunk(reply=reply(said, finish_reason="abort", usage=TokenUsage(tokens_in=3, tokens_out=2)))
                return
            said += piece
            yield ChatChunk(text=piece)
        if self.fails is not None:
            raise self.fails
        yield ChatChunk(reply=reply(said))

    async def abort(self, request_id: str) -> None:
        self.aborts[request_id].set()

    async def health(self) -> None: ...


async def streamed(at: LlmFront, **values: Any) -> list[Any]:
    """All chunks of a streamed reply."""
    async with at.client() as client:
        stream = await client.chat.completions.create(**{**BODY, **values}, stream=True)
        return [chunk async for chunk in stream]


@pytest.mark.rule("AP-122")
async def test_models_are_those_that_the_caller_may_use():
    async with llm_front() as at:
        found: dict[str, list[str]] = {}
        for who in ("dev", "root"):
            async with at.client(who) as client:
                found[who] = [model.id async for model in client.models.list()]
        async with at.client() as client:
            one = await client.models.retrieve("tiny")
            for name in ("paid", "tape", "nothing", "recorded:/etc"):
                with pytest.raises(openai.NotFoundError) as caught:
                    await client.models.retrieve(name)
                if "/" not in name:
                    assert caught.value.code == "model_not_found"
        assert found == {"dev": ["tiny", "plain", "mock"], "root": ["tiny", "plain", "paid", "mock"]}
        assert (one.id, one.object, one.model_extra) == ("tiny", "model", {"max_model_len": 4096})


async def test_mock_is_not_offered_unless_it_is_named():
    async with llm_front(also=()) as at, at.client() as client:
        assert [model.id async for model in client.models.list()] == ["tiny", "plain"]
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="mock", messages=ASK)
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="paid", messages=ASK)


@pytest.mark.rule("AP-122")
async def test_plain_request_reaches_the_model_as_it_was_asked_and_its_reply_comes_back_whole():
    async with llm_front(ScriptedChatModel.of(reply("Grüße 👋", revision="r1"))) as at, at.client() as client:
        found = await client.chat.completions.create(
            model="tiny",
            messages=[
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello ünï."}]},
                {"role": "assistant", "content": "What?"},
                {"role": "user", "content": "Again."},
            ],
            temperature=0.2,
            top_p=0.9,
            max_completion_tokens=50,
            stop="END",
            seed=7,
            user="somebody",
            prompt_cache_key="round-1",
            extra_headers={"X-Fleet-Priority": "batch"},
        )
        (asked,) = at.model.requests
        assert [(m.role, m.content) for m in asked.messages] == [
            ("system", "Be short."),
            ("user", "Say\nhello ünï."),
            ("assistant", "What?"),
            ("user", "Again."),
        ]
        sampling = asked.sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == ("0.2", "0.9", 50)
        assert (sampling.stop, sampling.seed) == (("END",), 7)
        assert at.model.tags == [CallTag(tenant="user:dev", priority="batch", affinity="user:dev/round-1")]
        (choice,) = found.choices
        assert (choice.message.content, choice.message.role, choice.finish_reason) == ("Grüße 👋", "assistant", "stop")
        assert choice.message.tool_calls is None
        assert found.usage is not None
        assert found.usage.model_dump(exclude_none=True) == {
            "prompt_tokens": 11,
            "completion_tokens": 7,
            "total_tokens": 18,
            "prompt_tokens_details": {"cached_tokens": 5},
        }
        assert (found.model, found.object, found.system_fingerprint) == ("tiny", "chat.completion", "r1")
        assert found.id == at.model.begun[0] == found._request_id
        assert found.created > 1_700_000_000


async def test_values_that_are_left_out_are_those_of_openai_and_of_the_engine():
    async with llm_front() as at, at.client() as client:
        for _ in range(2):
            await client.chat.completions.create(**BODY)
        await client.chat.completions.create(**BODY, max_tokens=1_000_000, stop=["a", "b"])
        long = [{"role": "user", "content": "word " * 2000}]
        await client.chat.completions.create(model="tiny", messages=long)
        first, second, third, fourth = (request.sampling for request in at.model.requests)
        assert (first.temperature, first.top_p, first.max_tokens, first.stop) == ("1.0", "1.0", 1000, ())
        assert first.seed != second.seed
        assert (third.max_tokens, third.stop) == (1000, ("a", "b"))
        assert fourth.max_tokens < 4096 - 3334 < 1000, "what the context of 4,096 tokens leaves"
        assert at.model.tags[0] == CallTag(tenant="user:dev", priority="person")


@pytest.mark.rule("AP-122")
async def test_streamed_reply_comes_in_pieces_with_usage_at_the_end():
    pieces = ["Grü", "ße ", "👋", "\n", "data: [DONE]\n\n", "end"]
    async with llm_front(Dripping(pieces)) as at:
        chunks = await streamed(at, stream_options={"include_usage": True})
        *texts, ending, last = chunks
        assert [c.choices[0].delta.content for c in texts] == ["", *pieces]
        assert texts[0].choices[0].delta.role == "assistant"
        assert (ending.choices[0].finish_reason, ending.usage) == ("stop", None)
        assert last.choices == []
        assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (11, 7)
        assert {c.id for c in chunks} == set(at.model.begun)
        assert {c.model for c in chunks} == {"tiny"}
        assert all(c.usage is None for c in await streamed(at))


async def test_streamed_bytes_are_events_that_end_with_done():
    async with llm_front() as at, httpx2.AsyncClient() as client:
        response = await client.post(at.url + PATH, json={**BODY, "stream": True}, headers=TOKEN)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"] == at.model.begun[0]
        frames = response.text.split("\n\n")
        assert frames[-2:] == ["data: [DONE]", ""]
        assert all(frame.startswith("data: ") for frame in frames[:-1])


async def test_long_stream_is_whole_and_two_clients_are_served_at_once():
    many = [f"{n} " for n in range(5000)]
    async with llm_front(Dripping(many)) as at:
        found = await asyncio.gather(streamed(at), streamed(at))
        for chunks in found:
            assert "".join(c.choices[0].delta.content or "" for c in chunks) == "".join(many)
        assert len({c.id for chunks in found for c in chunks}) == 2
        assert not at.spending.is_holding


async def test_text_that_the_engine_gives_at_the_end_alone_is_streamed_too():
    async with llm_front(ScriptedChatModel.of(reply(""))) as at:
        *_, ending = await streamed(at)
        assert ending.choices[0].finish_reason == "stop"

    class Late(Dripping):
        async def stream(self, request: ChatRequest, **_: Any) -> AsyncIterator[ChatChunk]:
            yield ChatChunk(text="be", reply=reply("begun and ended", finish_reason="length"))

    async with llm_front(Late([])) as at:
        chunks = await streamed(at)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "begun and ended"
        assert chunks[-1].choices[0].finish_reason == "length"


class Verdict(BaseModel):
    """A structured reply."""

    verdict: bool
    reason: str


@pytest.mark.rule("AP-122")
async def test_structured_reply_has_the_form_of_its_schema():
    async with llm_front() as at, at.client() as client:
        work: Any = [{"role": "user", "content": "Work: review\nIs it good?"}]
        found = await client.chat.completions.parse(model="mock", messages=work, response_format=Verdict)
        assert found.choices[0].message.parsed == Verdict(verdict=True, reason="Checked by evidence.")
        await client.chat.completions.create(**BODY, response_format={"type": "json_object"})
        await client.chat.completions.create(**BODY, response_format={"type": "text"})
        assert [request.json_schema for request in at.model.requests] == [{"type": "object"}, None]


@pytest.mark.rule("AP-122")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_tools_pass_through_both_ways(is_streamed: bool):
    uses = (
        ToolUse(id="call-1", name="getWeather", arguments='{"city": "Köln"}'),
        ToolUse(id="c2", name="b", arguments=""),
    )
    asks = reply("", finish_reason="tool_use", tool_uses=uses)
    async with llm_front(ScriptedChatModel.of(asks, "Rain.")) as at, at.client() as client:
        values = {**BODY, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": True}
        if is_streamed:
            called = [
                (call.id, call.function.name, call.function.arguments)
                for chunk in await streamed(at, **{k: v for k, v in values.items() if k not in BODY})
                for call in chunk.choices[0].delta.tool_calls or ()
            ]
        else:
            choice = (await client.chat.completions.create(**values)).choices[0]
            assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
            called = [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()]
        assert called == [(use.id, use.name, use.arguments) for use in uses]
        (offer,) = at.model.requests[0].tools
        assert (offer.name, offer.parameters) == ("getWeather", TOOL["function"]["parameters"])

        calls = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in called]
        said: Any = [*ASK, {"role": "assistant", "content": None, "tool_calls": calls}]
        said.append({"role": "tool", "tool_call_id": "call-1", "content": "12 degrees"})
        answer = await client.chat.completions.create(model="tiny", messages=said, tools=[TOOL], tool_choice="none")
        assert answer.choices[0].message.content == "Rain."
        assert at.model.requests[1].tools == ()
        *_, assistant, tool = at.model.requests[1].messages
        assert assistant.tool_uses == uses
        assert (tool.role, tool.content, tool.tool_use_id) == ("tool", "12 degrees", "call-1")


@pytest.mark.rule("AP-122", "AP-1")
async def test_caller_without_a_known_token_is_nobody():
    async with llm_front() as at, at.client("stranger") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(**BODY)
        assert caught.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()
        assert at.model.begun == []


FAILURES: list[tuple[FleetError, type[openai.APIStatusError], int, str]] = [
    (
        ContextTooLarge("engine 'tiny' at http://10.0.0.7:1/v1: 9000 tokens"),
        openai.BadRequestError,
        400,
        "context_length_exceeded",
    ),
    (ReplyRefused("the model refused"), openai.InternalServerError, 502, "content_filter"),
    (
        ModelUnavailable("engine at http://10.0.0.7:1/v1 is down", engine="tiny"),
        openai.InternalServerError,
        503,
        "model_unavailable",
    ),
    (ModelUnavailable("3 wait", queued=True, retry_after_s=9), openai.InternalServerError, 503, "model_unavailable"),
    (
        ModelTimeout("engine at http://10.0.0.7:1/v1 hangs", engine="tiny"),
        openai.InternalServerError,
        504,
        "model_timeout",
    ),
    (FleetError("prompt was: Say hello."), openai.InternalServerError, 500, "internal_error"),
    (StoreUnavailable("no store"), openai.InternalServerError, 503, "store_unavailable"),
]


@pytest.mark.rule("AP-122", "AP-7", "AP-43", "AP-44")
@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(("error", "cls", "status", "code"), FAILURES, ids=lambda v: getattr(v, "code", None))
async def test_failure_of_the_model_is_the_exception_that_clients_know(
    error: FleetError, cls: type[openai.APIStatusError], status: int, code: str, is_streamed: bool
):
    async with llm_front(ScriptedChatModel.of(error)) as at, at.client() as client:
        with pytest.raises(cls) as caught:
            await client.chat.completions.create(**BODY, stream=is_streamed)
        found = caught.value
        assert (found.status_code, found.code) == (status, code)
        assert isinstance(found.body, dict)
        assert set(found.body) == {"message", "type", "param", "code"}
        assert "10.0.0.7" not in found.message
        assert "Say hello" not in found.message
        is_later = error.retry.value == "later"
        assert found.response.headers["x-should-retry"] == str(is_later).lower()
        assert ("retry-after" in found.response.headers) == is_later
        if "retry_after_s" in error.details:
            assert found.response.headers["retry-after"] == "9"


@pytest.mark.parametrize(
    "fails", [ModelUnavailable("the engine at http://10.0.0.7:1 went away"), RuntimeError("Say hello.")]
)
async def test_failure_in_the_middle_of_a_stream_is_its_last_frame(fails: Exception):
    async with llm_front(Dripping(["one ", "two "], fails=fails)) as at, at.client() as client:
        stream = await client.chat.completions.create(**BODY, stream=True)
        texts: list[str] = []

        async def read() -> None:
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content or "")

        with pytest.raises(openai.APIError) as caught:
            await read()
        assert texts == ["", "one ", "two "]
        assert "10.0.0.7" not in str(caught.value)
        assert "hello" not in str(caught.value)
        # Its prompt and the pieces that came are paid for.
        assert (await at.spending.of("user:dev")).spent.output_tokens == 2
        assert (await at.spending.of("user:dev")).spent.tokens > 2


async def test_reply_that_the_engine_broke_off_is_not_given_as_a_whole_one():
    async with llm_front(ScriptedChatModel.of(reply("half", finish_reason="abort"))) as at, at.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(**BODY)
        assert caught.value.status_code == 503
        with pytest.raises(openai.APIError):
            await streamed(at)


@pytest.mark.rule("AP-122")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_client_that_goes_away_ends_its_request_at_the_engine(is_streamed: bool):
    model = Dripping(["one ", "two ", "three"], pause_after=2)
    async with llm_front(model) as at:
        body = {**BODY, "stream": is_streamed}
        async with httpx2.AsyncClient(timeout=20) as client:
            if is_streamed:
                async with client.stream("POST", at.url + PATH, json=body, headers=TOKEN) as response:
                    lines = response.aiter_lines()
                    seen = ""
                    while "two" not in seen:
                        seen = await anext(lines)
            else:
                asking = asyncio.create_task(client.post(at.url + PATH, json=body, headers=TOKEN))
                await eventually(lambda: bool(at.model.begun))
                asking.cancel()
        await eventually(lambda: at.model.aborted == at.model.begun)
        # What the engine counted until then is what the call cost.
        await eventually(lambda: not at.spending.is_holding)
        assert (await at.spending.of("user:dev")).spent.tokens == 5
        assert (await at.spending.of("user:dev")).reserved == Spend()


async def test_engine_that_does_not_end_an_aborted_request_is_left_and_its_reservation_stays():
    class Deaf(Dripping):
        async def abort(self, request_id: str) -> None:
            raise ModelUnavailable("no answer")

    async with llm_front(Deaf(["one"], pause_after=0), abort_grace_s=0.05) as at, httpx2.AsyncClient() as client:
        asking = asyncio.create_task(client.post(at.url + PATH, json=BODY, headers=TOKEN))
        await eventually(lambda: bool(at.model.begun))
        asking.cancel()
        await eventually(lambda: at.model.aborted == at.model.begun)
    assert (await at.spending.of("user:dev")).reserved.output_tokens == 1000
    assert (await at.spending.of("user:dev")).spent == Spend()


@pytest.mark.rule("AP-122", "MB-22", "AP-31")
async def test_call_is_reserved_before_and_settled_after_and_refused_when_no_budget_holds_it():
    async with llm_front(ScriptedChatModel.of(reply()), limits=BudgetLimits(tokens=150)) as at:
        async with at.client(max_retries=2) as client:
            await client.chat.completions.create(**BODY, max_tokens=100)
            spent = await at.spending.of("user:dev")
            assert (spent.spent.tokens, spent.spent.calls, spent.spent.cost_microusd) == (18, 1, 25)
            assert spent.reserved == Spend()
            with pytest.raises(openai.ConflictError) as caught:
                await client.chat.completions.create(**BODY, max_tokens=140)
            assert (caught.value.code, caught.value.type) == ("budget_exceeded", "insufficient_quota")
            # The client was told not to come again: it would have by itself after a 409.
            assert len(at.model.begun) == 1
        async with at.client("root") as client:
            await client.chat.completions.create(**BODY, max_tokens=140)


@pytest.mark.rule("AP-122", "AP-9", "AP-40")
async def test_principal_over_the_rate_is_told_when_to_come_again():
    async with llm_front(rate={"requests_per_minute": 2}) as at, at.client() as client:
        for _ in range(2):
            await client.chat.completions.create(**BODY)
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**BODY)
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
        async with at.client("root") as other:
            await other.chat.completions.create(**BODY)


@pytest.mark.rule("AP-9")
async def test_principal_has_so_many_answers_open_and_no_more():
    async with llm_front(Dripping(["one", "two"], pause_after=1), rate={"streams": 1}) as at, at.client() as client:
        stream = await client.chat.completions.create(**BODY, stream=True)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(**BODY)
        await stream.close()
        await eventually(lambda: not at.spending.is_holding)
        again = await client.chat.completions.create(**BODY, stream=True)
        await again.close()
        await eventually(lambda: len(at.model.aborted) == 2)


async def test_stream_that_waits_for_its_engine_says_that_it_lives():
    async with (
        llm_front(Dripping(["one"], pause_after=0), heartbeat_s=1) as at,
        httpx2.AsyncClient() as client,
        client.stream("POST", at.url + PATH, json={**BODY, "stream": True}, headers=TOKEN) as response,
    ):
        assert response.status_code == 200
        assert await anext(response.aiter_lines()) == ": still here"


BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"model": None}, "invalid_type", "model"),
    ({"messages": []}, "invalid_value", "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value", "messages.0"),
    ({"messages": [{"content": "x"}]}, "missing_required_parameter", "messages.0"),
    ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages.0.content"),
    ({"messages": [{"role": "user", "content": 7}]}, "invalid_type", "messages.0.content"),
    ({"messages": [{"role": "user", "content": []}]}, "invalid_value", "messages.0.content"),
    ({"messages": [{"role": "assistant"}]}, "missing_required_parameter", "messages.0"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]},
        "unsupported_content",
        "messages.0.content",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]},
        "invalid_type",
        "messages.0.content.0.text",
    ),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "invalid_value", "messages.0.tool_call_id"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"temperature": 2.5}, "invalid_value", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"top_p": 0}, "invalid_value", "top_p"),
    ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "invalid_value", None),
    ({"n": 2}, "unsupported_value", "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "invalid_value", "stop"),
    ({"stop": ""}, "invalid_value", "stop"),
    ({"seed": 2**80}, "invalid_value", "seed"),
    ({"stream": "yes"}, "invalid_type", "stream"),
    ({"stream_options": {"include_usage": True}}, "invalid_value", None),
    ({"response_format": {"type": "xml"}}, "invalid_value", "response_format"),
    ({"response_format": {"type": "json_schema"}}, "missing_required_parameter", "response_format.json_schema"),
    ({"tools": [{"type": "function", "function": {"name": "bad name"}}]}, "invalid_value", "tools.0.function.name"),
    ({"tool_choice": "required"}, "unsupported_value", "tool_choice"),
    ({"tool_choice": {"type": "function", "function": {"name": "x"}}}, "unsupported_value", "tool_choice"),
    ({"frequency_penalty": 0.5}, "unsupported_parameter", "frequency_penalty"),
    ({"logprobs": True}, "unsupported_parameter", "logprobs"),
    ({"modalities": ["text", "audio"]}, "unsupported_parameter", "modalities"),
    ({"approved": True}, "unknown_parameter", "approved"),
    ({"model": "mock", "tools": [TOOL]}, "invalid_value", "tools"),
    ({"model": "plain", "response_format": {"type": "json_object"}}, "invalid_value", "response_format"),
    (
        {
            "model": "mock",
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"minimum": 0.5}}},
        },
        "invalid_value",
        "response_format",
    ),
]


@pytest.mark.rule("AP-122", "GL-7", "GL-15")
async def test_wrong_body_is_a_bad_request_that_names_its_field():
    async with llm_front() as at, httpx2.AsyncClient() as client:
        for changes, code, param in BAD:
            response = await client.post(at.url + PATH, json=BODY | changes, headers=TOKEN)
            told = (changes, response.text)
            assert response.status_code == 400, told
            error = response.json()["error"]
            assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error"), told
        both = await client.post(at.url + PATH, json={**BODY, "top_p": 2, "n": 3}, headers=TOKEN)
        assert all(name in both.json()["error"]["message"] for name in ("top_p", "n"))
        assert at.model.begun == []
        assert (await at.spending.of("user:dev")).used == Spend()


async def test_values_that_ask_for_nothing_are_accepted():
    neutral: dict[str, Any] = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "logprobs": False,
        "modalities": ["text"],
        "n": 1,
        "tools": [],
        "stop": None,
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "response_format": None,
        "temperature": -0.0,
        "tool_choice": "auto",
    }
    async with llm_front() as at, httpx2.AsyncClient() as client:
        response = await client.post(at.url + PATH, json=BODY | neutral, headers=TOKEN)
        assert response.status_code == 200, response.text


@pytest.mark.rule("AP-122", "AP-9", "AP-20", "AP-34", "AP-35")
@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"model": "tiny", "model": "mock", "messages": []}', "application/json", 400),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', "application/json", 400),
        (b'{"model": "tiny", "messages": [], "\\udfff": 1}', "application/json", 400),
        (b'{"model": "tiny", "messages": [], "temperature": NaN}', "application/json", 400),
        (b'{"model": "tiny", "messages": [], "temperature": 1e999}', "application/json", 400),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b" " * 1_048_577, "application/json", 413),
        (b'{"model": "tiny"}', "text/plain", 415),
    ],
    ids=lambda v: str(v)[:24] if not isinstance(v, bytes) else f"{len(v)}-{v[:12]!r}",
)
async def test_body_that_is_none_is_refused_in_the_same_shape(content: bytes, kind: str, status: int):
    async with llm_front() as at, httpx2.AsyncClient() as client:
        response = await client.post(at.url + PATH, content=content, headers={**TOKEN, "Content-Type": kind})
        assert response.status_code == status, response.text
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", PATH, 405), ("POST", "/v1/embeddings", 404), ("GET", "/v1", 404)]
)
async def test_unknown_address_is_refused_in_the_same_shape(method: str, path: str, status: int):
    async with llm_front() as at, httpx2.AsyncClient() as client:
        response = await client.request(method, at.url + path, headers=TOKEN)
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_unknown_priority_is_refused():
    async with llm_front() as at, httpx2.AsyncClient() as client:
        headers = {**TOKEN, "X-Fleet-Priority": "first"}
        response = await client.post(at.url + PATH, json=BODY, headers=headers)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "X-Fleet-Priority")


@pytest.mark.rule("CX-60", "CX-74")
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_secrets_are_taken_out_before_the_model_sees_them_and_the_caller_is_told(is_streamed: bool):
    token = "ghp_" + "a1B2c3D4e5" * 4
    call = {"id": "c1", "type": "function", "function": {"name": "get", "arguments": json.dumps({"password": "p w"})}}
    tool = {
        "type": "function",
        "function": {"name": "get", "description": f"uses {token}", "parameters": {"default": {"secret": "s3cr3t x"}}},
    }
    body = {
        **BODY,
        "stream": is_streamed,
        "messages": [
            {"role": "user", "content": f"push with {token}"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "PASSWORD=hunter2"},
        ],
        "tools": [tool],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"const": {"pwd": "p w"}}}},
    }
    async with llm_front() as at, httpx2.AsyncClient() as client:
        response = await client.post(at.url + PATH, json=body, headers=TOKEN)
        assert response.status_code == 200, response.text
        assert response.headers["X-Fleet-Redactions"] == "GITHUB=2, KEY_VALUE=4"
        (asked,) = at.model.requests
        seen = asked.model_dump_json()
        assert not any(secret in seen for secret in (token, "p w", "hunter2", "s3cr3t"))
        assert asked.messages[0].content == "push with [REDACTED:GITHUB]"
        assert json.loads(asked.messages[1].tool_uses[0].arguments) == {"password": "[REDACTED:KEY_VALUE]"}
        assert (asked.messages[2].tool_use_id, asked.messages[1].tool_uses[0].id) == ("c1", "c1")
        plain = await client.post(at.url + PATH, json=BODY, headers=TOKEN)
        assert "X-Fleet-Redactions" not in plain.headers
        refused = await client.post(at.url + PATH, json={**body, "model": token}, headers=TOKEN)
        assert (refused.status_code, token in refused.text) == (404, False)
    # A provider may quote a key in what it answers.
    async with llm_front(ScriptedChatModel.of(ContextTooLarge(f"too long for key {token}"))) as at:
        async with httpx2.AsyncClient() as client:
            failed = await client.post(at.url + PATH, json={**BODY, "stream": is_streamed}, headers=TOKEN)
        assert "[REDACTED:GITHUB]" in failed.text
        assert token not in failed.text


@pytest.mark.rule("AP-122")
async def test_neither_prompts_nor_replies_are_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    secret = "the-launch-code-is-0000"
    async with httpx2.AsyncClient() as client:
        for fails in (
            None,
            RuntimeError(secret),
            ModelUnavailable(secret),
            ContextTooLarge(secret),
            FleetError(secret),
        ):
            async with llm_front(Dripping([secret], fails=fails)) as at:
                for is_streamed in (False, True):
                    body = {**BODY, "messages": [{"role": "user", "content": secret}], "stream": is_streamed}
                    await client.post(at.url + PATH, json=body, headers=TOKEN)
                    await client.post(at.url + PATH, json={**body, "temperature": secret}, headers=TOKEN)
    ours = [r for r in caplog.records if not r.name.startswith(("httpx2", "httpcore2"))]
    assert any(record.name == "fleet.desk.chat" for record in ours)
    assert secret not in "".join(f"{record.getMessage()} {record.exc_text or ''}" for record in ours)
    out, err = capfd.readouterr()
    assert secret not in out + err


@pytest.mark.rule("AP-11")
async def test_description_of_the_interface_holds_requests_and_replies():
    async with llm_front() as at, httpx2.AsyncClient() as client:
        document = (await client.get(at.url + "/v1/openapi.json")).json()
        assert document["openapi"].startswith("3.1")
        assert document["servers"] == [{"url": "/v1"}]
        assert set(document["paths"]) == {"/models", "/models/{model_id}", "/chat/completions"}
        known = document["components"]["schemas"]
        assert {"ChatCompletionBody", "ChatCompletion", "ErrorBody", "UserMessage"} <= set(known)
        for name in json.dumps(document).split('"#/components/schemas/')[1:]:
            assert name.split('"')[0] in known
