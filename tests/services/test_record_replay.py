"""A story recorded from a server is replayed with no model at all: elsewhere, by somebody else, the server gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.kernel.ids import StoryId
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.team import ADA, team
from tests.support.team_models import REPLIES, demo_repository, demo_story

pytestmark = pytest.mark.timeout(600)
KEY = "key-of-the-test-that-nobody-may-keep-1"


@dataclass
class Replayer:
    """A server with the OpenAI wire format that knows what a real model said to each prompt of the demo."""

    known: dict[str, str] = field(default_factory=dict[str, str])
    asked: int = 0

    def __post_init__(self) -> None:
        for path in REPLIES.glob("*.json"):
            recording = json.loads(path.read_text())
            request = recording["request"]
            self.known[self.key(request["messages"], request["sampling"])] = recording["reply"]["text"]

    @staticmethod
    def key(messages: list[dict[str, Any]], sampling: dict[str, Any]) -> str:
        texts = [message["content"] for message in messages]
        return json.dumps([texts, sampling["seed"], float(sampling["temperature"]), float(sampling["top_p"])])

    def answer(self, request: Request) -> Reply:
        if request.path == "/v1/models":
            return Reply(document={"object": "list", "data": [_listed("real-1b")]})
        assert request.headers["authorization"] == f"Bearer {KEY}"
        self.asked += 1
        asked = json.loads(request.body)
        text = self.known.get(self.key(asked["messages"], asked))
        if text is None:
            return Reply(400, {"error": {"message": "this prompt was never seen"}})
        usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
        chunks = [_chunk({"content": text}), _chunk({}, "stop") | {"usage": usage}]
        body = b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"
        return Reply(raw=body, headers={"content-type": "text/event-stream", "connection": "close"})


def _listed(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "t"}


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "real-1b", "choices": [choice]}


@dataclass(frozen=True)
class Rested:
    """What a run left."""

    story_id: StoryId
    state: StoryState
    winner: str | None
    """Of the council that decided the design."""
    tree: str | None
    """Of the story's branch, when it has one."""


async def run(
    root: Path, model: str, *, environ: dict[str, str], record: Path | None = None, to_its_end: bool
) -> Rested:
    """The demo story from its text to its branch, or to the design that a person is asked to approve."""
    repo = demo_repository(root / "stage")
    async with team(root / "home", environ=environ, record_dir=record) as t:
        story_id = await t.create(demo_story())
        await t.start(story_id, repo, model=model, delegate=("po", "qa") if to_its_end else ())
        state = await t.settled(story_id, within_s=200)
        if not to_its_end:
            scope = {"gate": "approve_scope"}
            await t.desk.require(story_id, parse_command("approve", scope), principal=ADA, key=f"{story_id}/scope")
            state = await t.settled(story_id, within_s=200)
            assert t.desk.waiting_for(state) == "gate approve_design waits for role po", state.park
    design, *_ = state.councils.values()
    if not to_its_end:
        return Rested(story_id, state, design.winner, None)
    assert state.closed, state.park
    show = ["git", "-C", str(repo), "rev-parse", f"fleet/{story_id}^{{tree}}"]
    tree = subprocess.run(show, check=True, capture_output=True, text=True).stdout.strip()
    return Rested(story_id, state, design.winner, tree)


@pytest.mark.rule("MB-11", "MB-12", "GL-9", "GL-13")
@pytest.mark.parametrize("to_its_end", [False, pytest.param(True, marks=pytest.mark.wide)], ids=["design", "whole"])
async def test_recorded_story_replays_elsewhere_without_any_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to_its_end: bool
) -> None:
    server, replies = Replayer(), tmp_path / "first" / "replies"
    async with serving_http(server.answer) as address:
        environ = {"FLEET_OPENAI_BASE_URL": f"{address}/v1", "FLEET_OPENAI_MODEL": "real-1b", "OPENAI_API_KEY": KEY}
        recorded = await run(tmp_path / "first", "openai", environ=environ, record=replies, to_its_end=to_its_end)
    about = replies / "recording.json"
    kept = {str(path): path.read_text() for path in replies.rglob("*.json") if path != about}
    assert len(kept) == server.asked > 10
    for text in kept.values():
        assert json.loads(text)["reply"]["model"] == "real-1b"
        assert not any(own in text for own in (KEY, str(tmp_path), os.uname().nodename))

    elsewhere = tmp_path / "a much longer name of another place" / "kept"
    elsewhere.parent.mkdir()
    shutil.move(replies, elsewhere)
    for name, value in {"USER": "somebody-else", "HOME": str(tmp_path), "TZ": "Pacific/Auckland"}.items():
        monkeypatch.setenv(name, value)
    asked = server.asked
    replayed = await run(elsewhere.parent, f"recorded:{elsewhere}", environ={}, to_its_end=to_its_end)

    assert server.asked == asked
    assert recorded.winner is not None
    assert (replayed.story_id, replayed.winner, replayed.tree) == (recorded.story_id, recorded.winner, recorded.tree)
    assert replayed.state.tree == recorded.state.tree
