"""Recordings that leave open what a person says: the same words in each place, and all else as it was recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.kernel.errors import ModelUnavailable
from fleet.models.chat import ChatRequest
from fleet.models.engines.recorded import WORDS, RecordedChatModel
from tests.support.team_models import REPLIES

OPEN = [json.loads(path.read_text()) for path in sorted(REPLIES.glob("*.json")) if WORDS in path.read_text()]
REASON = "Say what a run is.\n\nAnd test it: `a  b`."


def said(first: str, second: str | None = None) -> ChatRequest:
    """A recorded request with these words in its two places."""
    request = ChatRequest.model_validate(OPEN[0]["request"])
    (at,) = [n for n, m in enumerate(request.messages) if WORDS in m.content]
    one, two, three = request.messages[at].content.split(WORDS)
    content = one + first + two + (first if second is None else second) + three
    messages = [m if n != at else m.model_copy(update={"content": content}) for n, m in enumerate(request.messages)]
    return request.model_copy(update={"messages": tuple(messages)})


async def answer(request: ChatRequest, folder: Path = REPLIES) -> str:
    return (await RecordedChatModel(folder).complete(request, request_id="r", timeout_s=1)).text


@pytest.mark.parametrize("reason", ["Too long a name.", REASON, "x" * 4000])
async def test_words_of_a_person_are_left_open_by_recordings_that_say_so(reason: str):
    assert await answer(said(reason)) == OPEN[0]["reply"]["text"]


async def test_request_that_differs_in_anything_else_has_no_recorded_reply(tmp_path: Path):
    warm = said(REASON).sampling.model_copy(update={"seed": 99})
    missing = [
        said("Too long a name.", "Too short a name."),
        said(""),
        said("x" * 4001),
        said(REASON).model_copy(update={"sampling": warm}),
        said(REASON).model_copy(update={"messages": said(REASON).messages[:-1]}),
    ]
    for request in missing:
        with pytest.raises(ModelUnavailable, match="no recorded reply"):
            await answer(request)
    (tmp_path / "broken.json").write_text(f"not a recording, with {WORDS}")
    # What leaves nothing open answers to nothing but itself.
    closed = {
        **OPEN[0],
        "request": said("a reason").model_dump(mode="json"),
        "request_digest": str(said("a reason").digest),
    }
    (tmp_path / f"{said('a reason').digest.hex}.json").write_text(json.dumps(closed))
    assert await answer(said("a reason"), tmp_path)
    with pytest.raises(ModelUnavailable, match="no recorded reply"):
        await answer(said("another reason"), tmp_path)


GRANTED = "- gate approve_scope granted"


async def test_gate_that_was_turned_down_and_then_granted_changes_no_recorded_reply():
    recorded = [json.loads(path.read_text()) for path in sorted(REPLIES.glob("*.json"))]
    one = next(r for r in recorded if any(GRANTED in m["content"] for m in r["request"]["messages"]))
    request = ChatRequest.model_validate(one["request"])

    def told(line: str) -> ChatRequest:
        texts = [m.content.replace(GRANTED, line + GRANTED) for m in request.messages]
        changed = [m.model_copy(update={"content": t}) for m, t in zip(request.messages, texts, strict=True)]
        return request.model_copy(update={"messages": tuple(changed)})

    assert await answer(told("- gate approve_scope rejected by role po\n" * 2)) == one["reply"]["text"]
    for line in ("- gate task_acceptance rejected by role po\n", "- gate approve_scope expired\n"):
        with pytest.raises(ModelUnavailable, match="no recorded reply"):
            await answer(told(line))
