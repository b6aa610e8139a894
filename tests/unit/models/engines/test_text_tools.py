"""Tools for a model that has none of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, TokenUsage, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.factory import ChatModels, TextToolsChatModel, build_chat_model
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.memory import ScriptedChatModel
from fleet.models.profiles import load_models
from fleet.models.replies.tool_calls import TextToolForm, offer_of
from tests.support.openai_server import Scripted, serving

READ = offer_of("files", "read", description="One file.", parameters={"properties": {"path": {"type": "string"}}})
REQUEST = ChatRequest(messages=(ChatMessage(role="user", content="go"),), tools=(READ,))
CALL = '{"tool": "files", "op": "read", "args": {"path": "a.py"}}'
BLOCK = "=== CALL files read\n=== ARG path\na.py\n=== END"


def engine(**changes: object) -> HttpEngine:
    return HttpEngine.model_validate(
        {"engine_id": "tiny", "kind": "local", "model": "auto", "base_url": "http://h/v1", "unpriced": True, **changes}
    )


@pytest.mark.rule("MB-14")
@pytest.mark.parametrize(("form", "text"), [("json", CALL), ("blocks", BLOCK)])
async def test_model_without_tools_is_told_of_them_and_its_call_is_read(form: TextToolForm, text: str) -> None:
    async with serving(Scripted(f"I look.\n{text}\n")) as server:
        model = build_chat_model(engine(base_url=server.base_url, tool_form=form), environ={})
        chunks = [chunk async for chunk in model.stream(REQUEST, request_id="r", timeout_s=60)]
        answer = await model.complete(REQUEST, request_id="r", timeout_s=60)
        await model.health()
        await model.abort("nobody")
        await model.close()  # type: ignore[attr-defined]
    assert "tools" not in server.requests[0]
    assert "You may use these tools." in server.requests[0]["messages"][0]["content"]
    assert chunks[-1].reply is not None
    assert chunks[-1].reply.tool_uses == answer.tool_uses
    assert (answer.text, answer.finish_reason) == ("I look.", "tool_use")
    assert json.loads(answer.tool_uses[0].arguments) == {"path": "a.py"}


@pytest.mark.rule("MB-14")
async def test_model_with_tools_is_offered_them_natively() -> None:
    async with serving(Scripted(CALL)) as server:
        model = build_chat_model(engine(base_url=server.base_url, capabilities=["tools"]), environ={})
        answer = await model.complete(REQUEST, request_id="r", timeout_s=60)
        await model.close()  # type: ignore[attr-defined]
    assert server.requests[0]["tools"][0]["function"]["name"] == "files__read"
    assert (answer.text, answer.tool_uses) == (CALL, ())


async def test_request_without_tools_passes_unchanged_and_so_does_an_answer_without_calls() -> None:
    model = TextToolsChatModel(ScriptedChatModel.of(CALL, "no call"), "json")
    plain = await model.complete(REQUEST.model_copy(update={"tools": ()}), request_id="r", timeout_s=60)
    assert (plain.text, plain.tool_uses) == (CALL, ())
    assert (await model.complete(REQUEST, request_id="r", timeout_s=60)).text == "no call"
    await model.close()


async def test_answer_of_an_object_is_its_text_alone() -> None:
    inner = ScriptedChatModel.of('{"answer": "it is in a.py"}')
    answer = await TextToolsChatModel(inner, "object").complete(REQUEST, request_id="r", timeout_s=60)
    assert (answer.text, answer.finish_reason) == ("it is in a.py", "stop")
    assert inner.calls[0].json_schema is not None


async def test_call_in_a_reply_that_was_cut_off_is_not_read() -> None:
    usage = TokenUsage(tokens_in=1, tokens_out=1)
    cut = ChatReply(text=CALL, finish_reason="length", usage=usage, engine="e", model="m")
    model = TextToolsChatModel(ScriptedChatModel.of(cut), "json")
    assert (await model.complete(REQUEST, request_id="r", timeout_s=60)).tool_uses == ()


async def test_recording_holds_the_request_as_it_was_made_and_the_call_as_it_was_read(tmp_path: Path) -> None:
    model = RecordingChatModel(TextToolsChatModel(ScriptedChatModel.of(CALL), "json"), tmp_path)
    first = await model.complete(REQUEST, request_id="r", timeout_s=60)
    again = await RecordedChatModel(tmp_path).complete(REQUEST, request_id="r", timeout_s=60)
    assert first.tool_uses == again.tool_uses != ()


async def test_recording_holds_no_secret_in_the_arguments_of_a_call(tmp_path: Path) -> None:
    inner = TextToolsChatModel(ScriptedChatModel.of(CALL), "json")
    model = RecordingChatModel(inner, tmp_path, redact=lambda text: text.replace("a.py", "[secret]"))
    use = ToolUse(id="1", name="files__read", arguments='{"path": "a.py"}')
    messages = (*REQUEST.messages, ChatMessage(role="assistant", content="", tool_uses=(use,)))
    answer = await model.complete(REQUEST.model_copy(update={"messages": messages}), request_id="r", timeout_s=60)
    assert answer.tool_uses[0].arguments == '{"path": "[secret]"}'
    (kept,) = tmp_path.rglob("*.json")
    assert "a.py" not in kept.read_text()


def test_key_in_a_store_needs_a_process_that_has_one() -> None:
    config = load_models(
        {
            "engines": [
                {"engine_id": "g", "preset": "groq", "model": "m", "unpriced": True, "api_key": "secret://g-k"}
            ],
            "policies": {"default": [{"engine_id": "g", "max_tokens": 1, "timeout_s": 1}]},
        }
    )
    with pytest.raises(ModelUnavailable, match="secret://g-k, and this process has no secret store"):
        ChatModels(config, environ={})["g"]
