"""Models for whole stories: replies by kind of work, recorded ones with exceptions, and one that counts its calls."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest
from fleet.models.engines.recorded import RecordedChatModel
from fleet.models.memory import Outcome, ScriptedChatModel
from fleet.models.port import ChatModel
from fleet.models.prompts.prompt import kind_of
from scripts.examples import BUNDLED

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
REPLIES = DEMO / "replies"

RECORDED = f"recorded:{REPLIES}"
"""The model profile of the demo."""

GOOD = "```python\nimport re\n\n\ndef slugify(text: str) -> str:\n    " + (
    '"""The text as a slug."""\n    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))\n```\n'
)
WRONG = '```python\ndef slugify(text: str) -> str:\n    """The text, not as a slug."""\n    return text\n```\n'
TESTS = (
    "```python\nfrom textkit.words import slugify\n\n\n"
    'def test_ac_1():\n    assert slugify("Hello, World!") == "hello-world"\n\n\n'
    'def test_ac_2():\n    assert slugify("a   b") == "a-b"\n\n\n'
    'def test_ac_3():\n    assert slugify("!!!") == ""\n```\n'
)


def demo_story() -> dict[str, Any]:
    """The text of the example story."""
    return yaml.safe_load((DEMO / "story.yaml").read_text())


def demo_repository(folder: Path) -> Path:
    """A fresh copy of the example repository below `folder`, with the same commit id everywhere."""
    return BUNDLED.repository(folder / "repo")


def _proposal(risk: str) -> str:
    criteria = [{"ac": f"ac-{n}", "how": "a test checks it"} for n in (1, 2, 3)]
    return json.dumps(
        {
            "summary": "slugify joins the runs of letters and digits with hyphens",
            "interface": "def slugify(text: str) -> str",
            "path": "textkit/words.py",
            "criteria": criteria,
            "risk": risk,
        }
    )


def _derived() -> str:
    task = {
        "title": "Add slugify to the words module",
        "description": "Add slugify(text) to textkit/words.py.",
        "role": "developer",
        "kind": "code",
        "estimated_hours": 2,
        "priority": 1,
        "keywords": ["slug", "text"],
        "depends_on": [],
        "acceptance_refs": ["ac-1", "ac-2", "ac-3"],
        "paths": ["textkit/words.py"],
    }
    return json.dumps({"tasks": [task]})


def ballot(*labels: str) -> str:
    """A vote that approves these candidates in this order."""
    votes = [{"label": label, "vote": "approve", "reason": "it meets the criteria"} for label in labels]
    return json.dumps({"votes": votes} | ({"ranking": list(labels)} if len(labels) > 1 else {}))


GOOD_REPLIES: Mapping[str, Outcome | list[Outcome]] = {
    "propose": [_proposal(risk) for risk in ("none", "titles in other scripts", "very long titles")],
    "critique": json.dumps({"severity": "none", "problem": "nothing is wrong with it"}),
    "derive": _derived(),
    "draft": GOOD,
    "repair": GOOD,
    "tests": TESTS,
    "review": json.dumps({"broken_criterion": "none", "reason": "the tests pass"}),
    "document": json.dumps({"title": "Slugs", "summary": "slugify makes a slug.", "usage": "slugify(text)"}),
}
"""What a team answers that makes no mistake."""

BROKEN_REVIEW = json.dumps({"broken_criterion": "ac-2", "reason": "two hyphens stand between the words"})


def _of(kind: str) -> Any:
    return lambda request: kind_of(request) == kind


def _votes_on(last: str) -> Any:
    def matches(request: ChatRequest) -> bool:
        text = request.messages[-1].content
        return kind_of(request) == "vote" and f"Candidate {last}:" in text

    return matches


def scripted(**instead: Outcome | list[Outcome]) -> ScriptedChatModel:
    """A model without mistakes, but for the kinds of work that are answered otherwise."""
    replies: dict[str, Outcome | list[Outcome]] = {**GOOD_REPLIES, **instead}
    votes: list[tuple[Any, Outcome | list[Outcome]]] = [
        (_votes_on("C"), ballot("A", "B", "C")),
        (_votes_on("B"), ballot("A", "B")),
        (_votes_on("A"), ballot("A")),
    ]
    return ScriptedChatModel.when(*((_of(kind), what) for kind, what in replies.items()), *votes)


class EveryEngine(Mapping[str, ChatModel]):
    """One model under every engine id."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model

    def __getitem__(self, engine_id: str) -> ChatModel:
        return self.model

    def __iter__(self) -> Iterator[str]:
        return iter(("any",))

    def __len__(self) -> int:
        return 1


class CountingModel:
    """The recorded replies of the demo, or those of `inner`. `answered` counts the answers to each request of a step.

    `recorded` holds the command ids stored so far: a request whose answer is among them was `paid_again`.
    """

    def __init__(self, recorded: set[str], inner: ChatModel | None = None) -> None:
        self._inner, self._recorded = inner or RecordedChatModel(REPLIES), recorded
        self.answered: Counter[str] = Counter()
        self.paid_again: list[str] = []

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        if f"{request_id.partition('#')[0]}/finish" in self._recorded:
            self.paid_again.append(request_id)
        reply = await self._inner.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag)
        self.answered[request_id] += 1
        return reply

    async def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """See `ChatModel.stream`."""
        yield ChatChunk(reply=await self.complete(request, request_id=request_id, timeout_s=timeout_s, tag=tag))

    async def abort(self, request_id: str) -> None:
        """A replay is never under way for long."""

    async def health(self) -> None:
        """The recordings are always there."""
