"""A model server for a whole fleet: a team without mistakes, behind the OpenAI wire format."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from fleet.engineering.tools import OFFERS
from fleet.kernel.errors import InvalidInput
from fleet.models.chat import ChatMessage, ChatRequest
from fleet.models.prompts.prompt import kind_of
from fleet.models.prompts.tool_text import tool_uses_in
from tests.support.openai_server import FakeOpenAIServer, Scripted, served_in_thread
from tests.support.team_models import GOOD_REPLIES, ballot

_CODE, _CODE_AGAIN = '"""The text as a slug."""', '"""The text as a slug in lower case."""'


@contextlib.contextmanager
def served_team() -> Iterator[FakeOpenAIServer]:
    """A server that answers each kind of work as a team without mistakes does, and `hello` to all else."""
    with served_in_thread() as server:
        server.answer = team_answer
        yield server


def call_of_engineer(name: str, **arguments: str) -> str:
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
    call_of_engineer("read", path="textkit/words.py") + call_of_engineer("read", path="textkit/__init__.py"),
    call_of_engineer("write", path="textkit/slugs.py", content=_SLUG)
    + call_of_engineer("run", command="printf '\nfrom textkit.slugs import slugify as slugify\n' >> textkit/words.py"),
    call_of_engineer(
        "run", command="printf '\nfrom textkit.slugs import slugify as slugify\n' >> textkit/__init__.py; exit 3"
    )
    + call_of_engineer("write", path="tests/test_slugs.py", content=_TEST),
    call_of_engineer("tests"),
    call_of_engineer("submit", summary="slugify is in textkit/slugs.py, with a test"),
    call_of_engineer("submit", summary="slugify is in textkit/slugs.py, with a test"),
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


def engineers_at_work(request: dict[str, Any]) -> Scripted:
    """As `engineers_answer`, with calls in JSON, of developers whose fourth reply never comes."""
    messages = request["messages"]
    if not str(messages[0]["content"]).startswith("Work: engineer"):
        return team_answer(request)
    turn = sum(message["role"] == "assistant" for message in messages)
    uses = tool_uses_in(ENGINEER[min(turn, 3)], "blocks", OFFERS).uses
    calls = (json.dumps({"tool": use.name, "args": json.loads(use.arguments)}) for use in uses)
    return Scripted("\n".join(calls), hang=turn >= 3)


_HASTY = _SLUG.replace("text.lower()", "text")
_EXPORTED = (
    "<<<<<<< SEARCH\n    return len(words(text))\n=======\n    return len(words(text))\n\n\n"
    "from textkit.slugs import slugify as slugify\n>>>>>>> REPLACE\n"
)


def _in_one_reply(slug: str) -> str:
    """A change over three files, with this text of the module."""
    test = _TEST.replace("from textkit import", "from textkit.slugs import")
    files = {"textkit/slugs.py": slug, "textkit/words.py": _EXPORTED, "tests/test_slugs.py": test}
    return "\n".join(f"file: {path}\n```python\n{text}```" for path, text in files.items())


_MENDER: tuple[str, ...] = (
    call_of_engineer("read", path="textkit/slugs.py"),
    call_of_engineer("edit", path="textkit/slugs.py", old='+", text)', new='+", text.lower())'),
    call_of_engineer("tests"),
    call_of_engineer("submit", summary="slugs are in lower case"),
    call_of_engineer("submit", summary="slugs are in lower case"),
)


def hasty_answer(request: dict[str, Any]) -> Scripted:
    """As `team_answer`, of developers whose first change in one reply fails its own test; shown that, they mend it."""
    messages = request["messages"]
    first = str(messages[0]["content"])
    if first.startswith("Work: engineer"):
        turn = sum(message["role"] == "assistant" for message in messages)
        return Scripted(_MENDER[min(turn, len(_MENDER) - 1)])
    if not first.startswith("Work: change"):
        return team_answer(request)
    is_shown = any("They were measured, and this fails" in str(message["content"]) for message in messages)
    return Scripted(_in_one_reply(_SLUG if is_shown else _HASTY))


def _task(title: str, kind: str, refs: list[str], needs: list[int], *paths: str) -> dict[str, Any]:
    return {
        "title": title,
        "description": f"{title}: {', '.join(paths)}.",
        "role": "developer",
        "kind": kind,
        "estimated_hours": 2,
        "priority": 1,
        "keywords": ["slug", "text"],
        "depends_on": needs,
        "acceptance_refs": refs,
        "paths": list(paths),
    }


_CRITERIA = ["ac-1", "ac-2", "ac-3"]
_TASKS = (
    _task("Add slugify in a module of its own", "code", _CRITERIA, [], "textkit/slugs.py", "textkit/words.py"),
    _task("Describe slugify in the readme", "docs", ["ac-1"], [0], "README.md"),
    _task("Make file names of titles", "code", ["ac-2"], [0], "textkit/names.py", "tests/test_names.py"),
)
_NAMES = (
    "from textkit.slugs import slugify\n\n\ndef file_name(title: str) -> str:\n"
    '    """The name of a file for this title."""\n    return f"{slugify(title)}.txt"\n'
)
_NAMES_TEST = (
    "from textkit.names import file_name\n\n\ndef test_file_name():\n"
    '    assert file_name("Hello World") == "hello-world.txt"\n'
)
_DONE = (call_of_engineer("submit", summary="done as asked"), call_of_engineer("submit", summary="done as asked"))
_WORK: dict[str, tuple[str, ...]] = {
    "Add slugify": ENGINEER,
    "Describe slugify": (
        call_of_engineer("read", path="README.md"),
        call_of_engineer("run", command="printf '\n`slugify` makes the slug of a title.\n' >> README.md"),
        *_DONE,
    ),
    "Make file names": (
        call_of_engineer("files", glob="textkit/*.py"),
        call_of_engineer("write", path="textkit/names.py", content=_NAMES)
        + call_of_engineer("write", path="tests/test_names.py", content=_NAMES_TEST),
        call_of_engineer("tests"),
        *_DONE,
    ),
}
"""What an engineer writes turn by turn, by the first words of its task."""


def several_tasks_answer(request: dict[str, Any]) -> Scripted:
    """As `engineers_answer`, with a plan of three tasks: several files, a readme alone, and new files on the first."""
    messages = request["messages"]
    first = str(messages[0]["content"])
    if first.startswith("Work: derive"):
        return Scripted(json.dumps({"tasks": list(_TASKS)}))
    if not first.startswith("Work: engineer"):
        return team_answer(request)
    told = "\n".join(str(message["content"]) for message in messages[:2])
    work = next(turns for title, turns in _WORK.items() if f"Task: {title}" in told)
    turn = sum(message["role"] == "assistant" for message in messages)
    return Scripted(work[min(turn, len(work) - 1)])


def with_native_calls(request: dict[str, Any]) -> Scripted:
    """As `engineers_answer`, of a model that calls its tools natively, in the wire format of vLLM and llama.cpp too."""
    said = engineers_answer(request)
    if not str(request["messages"][0]["content"]).startswith("Work: engineer"):
        return said
    turn = sum(message["role"] == "assistant" for message in request["messages"])
    calls = [
        # Ids are the model's; the arguments come in two pieces, as servers send them.
        {"index": n, "id": f"call_{turn}_{n}", "function": {"name": use.name, "arguments": use.arguments[:7]}}
        for n, use in enumerate(tool_uses_in(said.text, "blocks", OFFERS).uses)
    ]
    rest = [
        {"index": n, "function": {"arguments": use.arguments[7:]}}
        for n, use in enumerate(tool_uses_in(said.text, "blocks", OFFERS).uses)
    ]
    usage = {"prompt_tokens": 900, "completion_tokens": 50, "prompt_tokens_details": {"cached_tokens": 800}}
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Next step."}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": rest}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {"choices": [], "usage": usage},
    ]
    common = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
    lines = [f"data: {json.dumps({**common, **chunk})}\n\n" for chunk in chunks]
    return Scripted(raw="".join([*lines, "data: [DONE]\n\n"]).encode())


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
    if kind in {"draft", "repair"} and any(_CODE in message.content for message in messages):
        # Whoever is asked again changes something: a draft that changes nothing is none.
        reply = reply.replace(_CODE, _CODE_AGAIN)
    return Scripted(reply)
