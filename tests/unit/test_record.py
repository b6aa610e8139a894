"""Recording by files: a model behind an address, replies that are kept for the new request, and those that are not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import ANY

import pytest

from fleet.engineering.tools import OFFERS
from fleet.models.chat import ChatMessage, ChatReply, ChatRequest, Sampling, TokenUsage, ToolUse
from fleet.models.engine_config import HttpEngine
from fleet.models.engines.openai import OpenAIChatModel
from fleet.models.engines.recorded import RecordedChatModel, RecordingChatModel
from fleet.models.memory import ScriptedChatModel
from scripts.played_model import AGAIN, MODEL, PlayedModel, served
from scripts.record import ENGINE, Recalled, put_in_place

RULES = "Work: engineer\nCall a tool."
BLOCK = "I look.\n=== CALL read\n=== ARG path\na.py\n=== END\n"


def asked(
    *, rules: str = RULES, result: str = "exit 0", standing: str = "[turn 1 of 60; 2 % of the tokens used]"
) -> ChatRequest:
    use = ToolUse(id="call-1", name="run", arguments='{"command": "ls"}')
    messages = (
        ChatMessage(role="system", content=rules),
        ChatMessage(role="user", content="Task: add slugify"),
        ChatMessage(role="assistant", content="", tool_uses=(use,)),
        ChatMessage(role="tool", content=f"{result}\n\n{standing}", tool_use_id="call-1"),
    )
    return ChatRequest(messages=messages, sampling=Sampling(max_tokens=16_000, seed=2), tools=OFFERS)


async def ask(address: str, request: ChatRequest, *, timeout_s: float = 20) -> ChatReply:
    engine = HttpEngine.model_validate({**ENGINE, "base_url": address})
    model = OpenAIChatModel(engine, base_url=address, model="auto")
    try:
        return await model.complete(request, request_id="st-a-1/co-fkirjfcsnwkis/draft/d-1/2#1", timeout_s=timeout_s)
    finally:
        await model.close()


@contextmanager
def writing(folder: Path, text: str) -> Iterator[list[str]]:
    """Whoever plays the model: reads the first request once it is there, and puts this reply beside it."""
    read = list[str]()

    def play() -> None:
        for _ in range(200):
            for path in folder.glob("*.request.txt"):
                read.append(path.read_text())
                path.with_name(path.name.replace("request", "reply")).write_text(text)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=play)
    thread.start()
    yield read
    thread.join()


async def recorded(folder: Path, request: ChatRequest) -> None:
    use = ToolUse(id="call-1", name="tests", arguments="{}")
    reply = ChatReply(
        text="now the tests", tool_uses=(use,), finish_reason="tool_use", usage=TokenUsage(), engine="e", model=MODEL
    )
    model = RecordingChatModel(ScriptedChatModel.of(reply), folder)
    await model.complete(request, request_id="st-a-1/co-fkirjfcsnwkis/draft/d-1/2#1", timeout_s=60)


async def test_reply_in_a_file_is_the_reply_of_a_model_with_native_tools(tmp_path: Path) -> None:
    with served(PlayedModel(tmp_path, Recalled(None))) as address, writing(tmp_path, BLOCK) as read:
        reply = await ask(address, asked())
    assert (reply.text, reply.model, reply.finish_reason) == ("I look.", MODEL, "tool_use")
    assert [(use.name, use.arguments) for use in reply.tool_uses] == [("read", '{"path": "a.py"}')]
    assert reply.usage.tokens_in > 100
    # Of a conversation only what is new.
    assert "exit 0" in read[0]
    assert RULES not in read[0]


async def test_reply_is_kept_for_a_request_that_differs_in_its_frame_only(tmp_path: Path) -> None:
    await recorded(tmp_path / "replies", asked())
    played = PlayedModel(tmp_path / "asked", Recalled(tmp_path / "replies"))
    changed = asked(rules=f"{RULES} Be brief.", standing="[turn 1 of 60; 7 % of the tokens used]")
    with served(played) as address:
        same, kept = await ask(address, asked()), await ask(address, changed)
    assert [reply.text for reply in (same, kept)] == ["now the tests"] * 2
    assert [use.name for use in kept.tool_uses] == ["tests"]
    assert not list((tmp_path / "asked").iterdir())
    ((difference, times),) = played.differences.items()
    assert (times, difference.splitlines()[2:]) == (1, ["-Call a tool.", "+Call a tool. Be brief."])


async def test_request_that_asks_something_else_waits_for_who_looks_at_the_difference(tmp_path: Path) -> None:
    await recorded(tmp_path / "replies", asked())
    folder = tmp_path / "asked"
    with served(PlayedModel(folder, Recalled(tmp_path / "replies"))) as address, writing(folder, AGAIN) as read:
        reply = await ask(address, asked(result="exit 1"))
        # The same difference once more needs nobody.
        assert await ask(address, asked(result="exit 1")) == reply.model_copy(update={"latency_ms": ANY})
    assert reply.text == "now the tests"
    assert "-exit 0\n+exit 1" in read[0]
    # The recording itself answers the question that it was asked, and no other.
    with pytest.raises(
        Exception, match=r"differs at message 4 \(tool\), line 1:\n  recorded: exit 0\n  asked:    exit 1"
    ):
        await RecordedChatModel(tmp_path / "replies").complete(
            asked(result="exit 1"), request_id="st-b-1/co-aaaaaaaaaaaaa/draft/d-1/2#1", timeout_s=1
        )


async def test_request_that_nobody_waits_for_any_more_is_marked(tmp_path: Path) -> None:
    with served(PlayedModel(tmp_path, Recalled(None))) as address:
        with pytest.raises(Exception, match="time"):
            await ask(address, asked(), timeout_s=0.5)
        for _ in range(100):
            if (tmp_path / "0001.gone").exists():
                return
            await asyncio.sleep(0.05)
    pytest.fail("the request still waits")


def test_fresh_recording_replaces_the_old_one_but_for_requests_that_are_the_same(tmp_path: Path) -> None:
    fresh, kept = tmp_path / "fresh", tmp_path / "kept"
    for folder, names in ((kept, ("a/1/same", "a/2/old", "b/1/gone")), (fresh, ("a/1/same", "a/2/new"))):
        for name in names:
            path = folder / f"{name}.json"
            path.parent.mkdir(parents=True)
            path.write_text(folder.name)
        (folder / "recording.json").write_text(folder.name)
    put_in_place(fresh, kept)
    found = {path.relative_to(kept).as_posix(): path.read_text() for path in kept.rglob("*") if path.is_file()}
    assert found == {"a/1/same.json": "kept", "a/2/new.json": "fresh", "recording.json": "fresh"}
    assert not (kept / "b").exists()
