"""Recording a model once, replaying it anywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from fleet.kernel.errors import ModelTimeout, ModelUnavailable
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Reasoning, Sampling, TokenUsage
from fleet.models.engine_config import MockEngine
from fleet.models.engines.recorded import (
    RecordedChatModel,
    RecordingChatModel,
    ToolVersions,
    place_of,
    present_toolchain,
    read_about,
)
from fleet.models.memory import ReplyRule, ScriptedChatModel


def request(text: str = "write add", *, seed: int = 0) -> ChatRequest:
    system = ChatMessage(role="system", content="Work: draft\nRules.")
    return ChatRequest(messages=(system, ChatMessage(role="user", content=text)), sampling=Sampling(seed=seed))


async def test_recording_is_replayed_in_another_folder(tmp_path: Path) -> None:
    live = RecordingChatModel(ScriptedChatModel.of("reply"), tmp_path / "a")
    await live.complete(request(), request_id="r", timeout_s=60)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    reply = await RecordedChatModel(tmp_path / "b").complete(request(), request_id="other", timeout_s=60)
    assert (reply.text, reply.engine, reply.model, reply.revision) == ("reply", "recorded", "script", "1")


async def test_first_recording_wins_and_the_model_is_not_asked_again(tmp_path: Path) -> None:
    first, second = ScriptedChatModel.of("first"), ScriptedChatModel.of("second")
    await RecordingChatModel(first, tmp_path).complete(request(), request_id="r", timeout_s=60)
    reply = await RecordingChatModel(second, tmp_path).complete(request(), request_id="r", timeout_s=60)
    assert reply.text == "first"
    assert not second.calls


async def test_two_writers_of_one_request_agree_on_one_reply(tmp_path: Path) -> None:
    models = [RecordingChatModel(ScriptedChatModel.of(f"reply {n}"), tmp_path) for n in range(8)]
    replies = await asyncio.gather(*(model.complete(request(), request_id="r", timeout_s=60) for model in models))
    replayed = await RecordedChatModel(tmp_path).complete(request(), request_id="r", timeout_s=60)
    assert {reply.text for reply in replies} == {replayed.text}
    assert [path.suffix for path in tmp_path.rglob("*") if path.is_file()] == [".json"]


async def test_redaction_runs_before_anything_is_written(tmp_path: Path) -> None:
    inner = ScriptedChatModel.of("the key is s3cret")
    model = RecordingChatModel(inner, tmp_path, redact=lambda text: text.replace("s3cret", "[gone]"))
    reply = await model.complete(request("use s3cret"), request_id="r", timeout_s=60)
    (path,) = tmp_path.rglob("*.json")
    assert "s3cret" not in path.read_text()
    assert reply.text == "the key is [gone]"
    replayed = await RecordedChatModel(tmp_path).complete(request("use s3cret"), request_id="r", timeout_s=60)
    assert replayed.text == reply.text


@pytest.mark.rule("MB-45")
async def test_recording_keeps_thoughts_for_its_replay_and_drops_them_whole_with_a_secret(tmp_path: Path) -> None:
    thought = Reasoning(engine="thinker", form="reasoning", id="rs_1", text="Hm.", opaque="sealed")
    secret = Reasoning(engine="thinker", form="reasoning", id="rs_2", text="It is s3cret.", opaque="sealed too")
    for name, thoughts, kept in (("a", (thought,), (thought,)), ("b", (thought, secret), ())):
        inner = ScriptedChatModel.of(
            ChatReply(
                text="x", finish_reason="stop", usage=TokenUsage(), engine="thinker", model="m", reasoning=thoughts
            )
        )
        model = RecordingChatModel(inner, tmp_path / name, redact=lambda text: text.replace("s3cret", "[gone]"))
        await model.complete(request(), request_id="r", timeout_s=60)
        replayed = await RecordedChatModel(tmp_path / name).complete(request(), request_id="r", timeout_s=60)
        assert replayed.reasoning == kept


async def test_error_of_the_model_is_not_recorded(tmp_path: Path) -> None:
    model = RecordingChatModel(ScriptedChatModel.of(ModelTimeout("late"), "then"), tmp_path)
    with pytest.raises(ModelTimeout):
        await model.complete(request(), request_id="r", timeout_s=60)
    reply = await model.complete(request(), request_id="r", timeout_s=60)
    assert reply.text == "then"


async def test_reply_is_kept_under_session_and_turn_and_never_given_to_another_question(tmp_path: Path) -> None:
    first, again = "st-slugs-abc123/co-fkirjfcsnwkis", "st-slugs-abc123-2/co-aaaaaaaaaaaaa"
    live = RecordingChatModel(ScriptedChatModel.of("look", "edit"), tmp_path)
    await live.complete(request("line 1\nexit 0, 3 passed"), request_id=f"{first}/draft/d-1/2#1", timeout_s=60)
    await live.complete(request("line 1\nexit 1, 3 failed"), request_id=f"{first}/draft/d-1/3#1", timeout_s=60)
    kept = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")}
    assert kept == {"co/draft/d-1/2", "co/draft/d-1/3"}
    model = RecordedChatModel(tmp_path)
    reply = await model.complete(request("line 1\nexit 0, 3 passed"), request_id=f"{again}/draft/d-1/2#1", timeout_s=60)
    assert reply.text == "look"
    with pytest.raises(ModelUnavailable) as caught:
        await model.complete(request("line 1\nexit 0, 4 passed"), request_id=f"{again}/draft/d-1/2#1", timeout_s=60)
    assert caught.value.details["place"] == "co/draft/d-1/2"
    told = str(caught.value)
    assert "differs at message 2 (user), line 2:\n  recorded: exit 0, 3 passed\n  asked:    exit 0, 4 passed" in told


async def test_recording_says_under_which_terms_and_with_which_tools_it_was_made(tmp_path: Path) -> None:
    engine = MockEngine(kind="mock", engine_id="able", model="m", unpriced=True, max_context=64_000, strategy="session")
    live = RecordingChatModel(ScriptedChatModel.of("x"), tmp_path, engine=engine)
    await live.complete(request(), request_id="r", timeout_s=60)
    about = read_about(tmp_path)
    assert about is not None
    assert (about.strategy, about.max_context, about.toolchain) == ("session", 64_000, present_toolchain())
    other = about.model_copy(update={"toolchain": ToolVersions(python="2.7", pytest="3.0")})
    (tmp_path / "recording.json").write_text(other.model_dump_json())
    with pytest.raises(ModelUnavailable, match=r"recorded with Python 2\.7 and pytest 3\.0"):
        await RecordedChatModel(tmp_path).complete(request("another"), request_id="r", timeout_s=60)


@pytest.mark.parametrize(
    ("request_id", "place"),
    [
        ("st-a-1/co-fkirjfcsnwkis/draft/developer-001/12#1", "co/draft/developer-001/12"),
        ("st-a-1/co-fkirjfcsnwkis/draft/developer-001/12#2", "co/draft/developer-001/12/call-2"),
        ("st-a-1/docs/0123456789abcdef/document#1", "docs/tree/document"),
        ("../../etc/x y", "_/_/etc/x_y"),
        ("r", "r"),
    ],
)
def test_place_names_nothing_that_another_run_calls_otherwise(request_id: str, place: str) -> None:
    assert place_of(request_id) == place


async def test_miss_names_digest_work_folder_how_to_record_and_where_the_nearest_differs(tmp_path: Path) -> None:
    inner = ScriptedChatModel([ReplyRule(lambda asked: True, ["x"])])
    await RecordingChatModel(inner, tmp_path).complete(request("the task takes 5 steps"), request_id="r", timeout_s=60)
    (tmp_path / "broken.json").write_text("{")
    asked = request("the task takes 7 steps")
    with pytest.raises(ModelUnavailable) as caught:
        await RecordedChatModel(tmp_path).complete(asked, request_id="r", timeout_s=60)
    message, details = str(caught.value), caught.value.details
    assert asked.digest in message
    assert "Work: draft" in message
    assert "--record" in message
    assert str(tmp_path) in message
    assert "7 steps" in details["nearest"]
    assert details["permanent"] is True


async def test_changed_recording_is_refused(tmp_path: Path) -> None:
    await RecordingChatModel(ScriptedChatModel.of("x"), tmp_path).complete(request(), request_id="r", timeout_s=60)
    (path,) = tmp_path.rglob("*.json")
    other = path.with_name(f"{request(seed=2).digest.hex}.json")
    other.write_bytes(path.read_bytes())
    with pytest.raises(ModelUnavailable, match="another request"):
        await RecordedChatModel(tmp_path).complete(request(seed=2), request_id="r", timeout_s=60)
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        await RecordedChatModel(tmp_path).complete(request(), request_id="r", timeout_s=60)


async def test_health_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="--record"):
        await RecordedChatModel(tmp_path).health()
