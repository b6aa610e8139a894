"""A model server for a whole fleet: a team without mistakes, behind the OpenAI wire format."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fleet.kernel.errors import InvalidInput
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.prompts.prompt import kind_of
from tests.support.openai_server import FakeOpenAIServer, Scripted, served_in_thread
from tests.support.team_models import GOOD_REPLIES, ballot


@contextlib.contextmanager
def served_team() -> Iterator[FakeOpenAIServer]:
    """A server that answers each kind of work as a team without mistakes does, and `hello` to all else."""
    with served_in_thread() as server:
        server.answer = team_answer
        yield server


def team_answer(request: dict[str, Any]) -> Scripted:
    """The reply to one chat request; equal requests get equal replies."""
    messages = tuple(ChatMessage(role=m["role"], content=str(m["content"])) for m in request["messages"])
    asked = ChatRequest(messages=messages)
    try:
        kind = kind_of(asked)
    except InvalidInput:
        return Scripted("hello")
    if kind == "vote":
        shown = messages[-1].content
        return Scripted(ballot(*(label for label in "ABC" if f"Candidate {label}:" in shown)))
    reply = GOOD_REPLIES.get(kind, "hello")
    if isinstance(reply, list):
        seed = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).digest()[0]
        reply = reply[seed % len(reply)]
    assert isinstance(reply, str)
    return Scripted(reply)
