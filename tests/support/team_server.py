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


def _call(name: str, **arguments: str) -> str:
    """A call of a tool as labelled blocks, the form of models without tools of their own."""
    parts = "".join(f"=== ARG {name}\n{value}\n" for name, value in arguments.items())
    return f"=== CALL {name}\n{parts}=== END\n"


_SLUG = (
    'import re\n\n\ndef slugify(text: str) -> str:\n    """The text as a slug."""\n'
    '    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))\n'
)
_TEST = (
    "from textkit import slugify\n\n\ndef test_slug_of_a_title():\n"
    '    assert slugify("Hello, World!") == "hello-world"\n'
)
ENGINEER: tuple[str, ...] = (
    _call("read", path="textkit/words.py") + _call("read", path="textkit/__init__.py"),
    _call("write", path="textkit/slugs.py", content=_SLUG)
    + _call("run", command="printf '\nfrom textkit.slugs import slugify as slugify\n' >> textkit/words.py"),
    _call("run", command="printf '\nfrom textkit.slugs import slugify as slugify\n' >> textkit/__init__.py; exit 3")
    + _call("write", path="tests/test_slugs.py", content=_TEST),
    _call("tests"),
    _call("submit", summary="slugify is in textkit/slugs.py, with a test"),
    _call("submit", summary="slugify is in textkit/slugs.py, with a test"),
)
"""What an engineer writes turn by turn: two files changed, two made, one of them by a command that fails."""


def working_engine(url: str) -> dict[str, Any]:
    """An engine at this address on which developers work in sessions, as models.yaml has it."""
    return {
        "engine_id": "able",
        "kind": "openai",
        "base_url": url,
        "model": "tiny-1b",
        "unpriced": True,
        "max_context": 64_000,
        "max_output": 8_000,
        "strategy": "session",
        "tool_form": "blocks",
    }


def engineers_answer(request: dict[str, Any]) -> Scripted:
    """As `team_answer`, of a team whose developers work in sessions."""
    messages = request["messages"]
    if not str(messages[0]["content"]).startswith("Work: engineer"):
        return team_answer(request)
    turn = sum(message["role"] == "assistant" for message in messages)
    return Scripted(ENGINEER[min(turn, len(ENGINEER) - 1)])


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
