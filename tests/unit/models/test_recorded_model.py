"""Recording a model once, replaying it anywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from fleet.kernel.errors import ModelTimeout, ModelUnavailable
from fleet.models.chat import ChatMessage, ChatRequest, Sampling
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.memory import Rule, ScriptedChatModel


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
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


async def test_redaction_runs_before_anything_is_written(tmp_path: Path) -> None:
    inner = ScriptedChatModel.of("the key is s3cret")
    model = RecordingChatModel(inner, tmp_path, redact=lambda text: text.replace("s3cret", "[gone]"))
    reply = await model.complete(request("use s3cret"), request_id="r", timeout_s=60)
    (path,) = tmp_path.iterdir()
    assert "s3cret" not in path.read_text()
    assert reply.text == "the key is [gone]"
    replayed = await RecordedChatModel(tmp_path).complete(request("use s3cret"), request_id="r", timeout_s=60)
    assert replayed.text == reply.text


async def test_error_of_the_model_is_not_recorded(tmp_path: Path) -> None:
    model = RecordingChatModel(ScriptedChatModel.of(ModelTimeout("late"), "then"), tmp_path)
    with pytest.raises(ModelTimeout):
        await model.complete(request(), request_id="r", timeout_s=60)
    reply = await model.complete(request(), request_id="r", timeout_s=60)
    assert reply.text == "then"


async def test_miss_names_digest_work_folder_how_to_record_and_where_the_nearest_differs(tmp_path: Path) -> None:
    inner = ScriptedChatModel([Rule(lambda asked: True, ["x"])])
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
    (path,) = tmp_path.iterdir()
    other = tmp_path / f"{request(seed=2).digest.hex}.json"
    other.write_bytes(path.read_bytes())
    with pytest.raises(ModelUnavailable, match="another request"):
        await RecordedChatModel(tmp_path).complete(request(seed=2), request_id="r", timeout_s=60)
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        await RecordedChatModel(tmp_path).complete(request(), request_id="r", timeout_s=60)


async def test_health_of_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="--record"):
        await RecordedChatModel(tmp_path).health()
