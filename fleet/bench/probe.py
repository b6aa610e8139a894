"""The exercises of a probe: what an engine is asked, and whether its answer is right. Pure functions.

Whoever asks says how long a reply may be: a model that reasons first must not be cut off before its first word.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fleet.engineering.edits import Edited, Replacement, edit_text
from fleet.engineering.tools import OFFERS, SessionCall, call_of
from fleet.models.chat import AS_LONG_AS_FITS, ChatMessage, ChatRequest, Sampling, ToolOffer, ToolUse
from fleet.models.replies.tool_calls import ToolProblem

_SYSTEM = "You are an engineer who works in a repository with tools. Every reply calls exactly one tool."
_BY_NAME = {offer.name: offer for offer in OFFERS}
CHARS_PER_TOKEN = 4
"""Of the filler, whose words most vocabularies hold; an engine that counts more tokens is told to be the smaller."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """One question with one right answer."""

    name: str
    request: ChatRequest
    is_right: Callable[[str, Sequence[ToolUse]], bool]
    """Of the reply's words and its uses of tools."""


_CONTENTS: tuple[tuple[str, str], ...] = (
    ("greet.py", 'def greet(name):\n    """Says "hello"."""\n    return f\'hello, {name}\'\n'),
    (
        "split.py",
        'import re\n\nWORDS = re.compile(r"\\w+\\\\?\\s*")\n\n\ndef lines(text):\n    return text.split("\\n")\n',
    ),
    ("Makefile", 'test:\n\t@echo "$$HOME" && pytest -q\n\nclean:\n\trm -rf build/*.o\n'),
    ("data.json", '{\n  "name": "a \\"b\\" c",\n  "path": "C:\\\\temp",\n  "rows": [1, null, {"x": []}]\n}\n'),
    (
        "run.sh",
        "#!/bin/sh\nfor f in *.txt; do\n  sed 's/\\t/  /g' \"$f\" | awk '{print $1}' > \"${f%.txt}.o\"\ndone\n",
    ),
    ("page.html", "<p class='a'>1 &lt; 2 &amp; \"q\"</p>\n<script>let s = `x ${1 + 1} </b>`;</script>\n"),
)


def call_exercises() -> tuple[Exercise, ...]:
    """Six files that are to be written with `write`, whose contents JSON and shells like to break."""
    return tuple(_written(path, content) for path, content in _CONTENTS)


def _written(path: str, content: str) -> Exercise:
    question = f"Make the file {path} with the tool write. Its content is exactly this, between the lines of =====:\n"

    def is_right(_: str, uses: Sequence[ToolUse]) -> bool:
        call = _only_call(uses)
        return (
            call is not None
            and call.name == "write"
            and call.text("path").removeprefix("./") == path
            and call.text("content").rstrip("\n") == content.rstrip("\n")
        )

    return Exercise(f"call/{path}", _request(f"{question}=====\n{content}=====", ("read", "write", "edit")), is_right)


def _only_call(uses: Sequence[ToolUse]) -> SessionCall | None:
    if len(uses) != 1:
        return None
    call = call_of(uses[0])
    return None if isinstance(call, ToolProblem) else call


def _request(question: str, tools: Sequence[str], *, system: str = _SYSTEM) -> ChatRequest:
    return ChatRequest(
        messages=(ChatMessage(role="system", content=system), ChatMessage(role="user", content=question)),
        sampling=Sampling(max_tokens=AS_LONG_AS_FITS, seed=1),
        tools=tuple(_BY_NAME[name] for name in tools),
    )


_RATES = 33
_EDITED = (3, 9, 14, 20, 26, 31)


def _rates_file() -> str:
    """A module of 200 lines, in which most lines stand more than once."""
    parts = ['"""Rates by region."""', ""]
    for number in range(_RATES):
        rate = 1 + number * 7 % 40
        parts += [
            "",
            f"def rate_{number}(amount):",
            f"    factor = {rate}",
            "    if amount < 0:",
            '        raise ValueError("amount must not be negative")',
            "    return amount * factor // 100",
        ]
    return "\n".join(parts) + "\n"


def edit_exercises() -> tuple[Exercise, ...]:
    """Six replacements in a file whose functions look alike: what is replaced must be told apart."""
    text = _rates_file()
    return tuple(_edited(text, number) for number in _EDITED)


def _edited(text: str, number: int) -> Exercise:
    rate = 1 + number * 7 % 40
    old = f"def rate_{number}(amount):\n    factor = {rate}\n"
    right = text.replace(old, old.replace(f"factor = {rate}\n", f"factor = {rate + 50}\n"))
    question = (
        f"This is src/rates.py:\n\n{text}\nIn the function rate_{number} the factor must be {rate + 50}. Change that "
        "and nothing else, with the tool edit."
    )

    def is_right(_: str, uses: Sequence[ToolUse]) -> bool:
        call = _only_call(uses)
        if call is None or call.name != "edit":
            return False
        made = edit_text(text, replacements_of(call), path="src/rates.py")
        return isinstance(made, Edited) and made.text == right

    return Exercise(f"edit/rate_{number}", _request(question, ("read", "edit", "write")), is_right)


def replacements_of(call: SessionCall) -> list[Replacement]:
    """What a call of `edit` asks for."""
    edits = call.args.get("edits")
    given = edits if isinstance(edits, list) else [call.args]
    rows = [row for row in given if isinstance(row, dict)]
    return [Replacement(str(row.get("old", "")), str(row.get("new", "")), bool(row.get("all"))) for row in rows]


_FACTS = (("harbour", 2, "7134"), ("library", 50, "2908"), ("observatory", 95, "5561"))
"""What is told of which place, after so many hundredths of the prompt."""


class RecallPrompt(NamedTuple):
    """A long prompt with facts in it."""

    request: ChatRequest
    answers: tuple[str, ...]

    def right(self, text: str) -> int:
        """How many of the facts the reply names."""
        return sum(answer in text for answer in self.answers)


def recall_exercise(tokens: int) -> RecallPrompt:
    """A prompt of about this many tokens that asks for three facts: from its beginning, its middle and its end."""
    rows = max(10, tokens * CHARS_PER_TOKEN // 64)
    lines = [f"Entry {n:>6}: the keeper of house {n * 7919 % 9973} saw nothing unusual." for n in range(rows)]
    for place, percent, code in _FACTS:
        lines[min(rows - 1, rows * percent // 100)] = f"Note: the code of the {place} is {code}."
    asked = ", ".join(place for place, _, _ in _FACTS)
    question = "\n".join([*lines, "", f"What are the codes of: {asked}? Answer with the three numbers alone."])
    request = ChatRequest(
        messages=(ChatMessage(role="user", content=question),), sampling=Sampling(max_tokens=AS_LONG_AS_FITS, seed=1)
    )
    return RecallPrompt(request, tuple(code for _, _, code in _FACTS))


_BROKEN = (
    '"""Sums of a basket."""\n\n\ndef total(prices):\n    """The sum of the prices."""\n    result = 0\n'
    "    for price in prices[1:]:\n        result += price\n    return result\n"
)
_MENDED = "for price in prices:"
_TEST_SAYS = (
    "1 failed\nFAILED tests/test_basket.py::test_total - assert total([2, 3, 4]) == 9: it is 7\n"
    "tests/test_basket.py:4: AssertionError"
)
MAX_FIX_TURNS = 6


class FixState(NamedTuple):
    """A short session about one failing test: the file as it is, and what was said."""

    text: str
    messages: tuple[ChatMessage, ...]
    turns: int = 0
    is_over: bool = False
    is_mended: bool = False

    @property
    def request(self) -> ChatRequest:
        """What the engine is asked next."""
        tools: tuple[ToolOffer, ...] = tuple(_BY_NAME[name] for name in ("read", "edit", "write", "tests", "submit"))
        return ChatRequest(messages=self.messages, sampling=Sampling(max_tokens=AS_LONG_AS_FITS, seed=1), tools=tools)


def fix_exercise() -> FixState:
    """The beginning of the short session."""
    task = (
        "A test fails in this repository: tests/test_basket.py::test_total. The function is in basket.py. Read it, "
        "mend it, run the tests, and submit."
    )
    return FixState(_BROKEN, (ChatMessage(role="system", content=_SYSTEM), ChatMessage(role="user", content=task)))


def after_fix_reply(state: FixState, text: str, uses: Sequence[ToolUse]) -> FixState:
    """The session after this reply; it is over when it was submitted, or took too many turns."""
    said = ChatMessage(role="assistant", content=text, tool_uses=tuple(uses))
    messages, file, is_over = [*state.messages, said], state.text, False
    for use in uses:
        told, file, ends = _answered(use, file)
        is_over = is_over or ends
        messages.append(ChatMessage(role="tool", content=told, tool_use_id=use.id))
    if not uses:
        messages.append(ChatMessage(role="user", content="Call a tool."))
    turns = state.turns + 1
    return FixState(file, tuple(messages), turns, is_over or turns >= MAX_FIX_TURNS, is_over and _is_mended(file))


def _is_mended(text: str) -> bool:
    # What an engine wrote is never run here: the one line that is wrong can hardly be right in another way.
    return _MENDED in text or "sum(prices)" in text


def _answered(use: ToolUse, file: str) -> tuple[str, str, bool]:
    """What the session tells, the file after it, and whether it is over."""
    call = call_of(use)
    if isinstance(call, ToolProblem):
        return call.text, file, False
    path = call.text("path").removeprefix("./")
    match call.name:
        case "submit":
            return "Submitted.", file, True
        case "tests":
            return ("1 passed" if _is_mended(file) else _TEST_SAYS), file, False
        case "read" | "edit" | "write" if path != "basket.py":
            return f"There is no file {path}; the file is basket.py.", file, False
        case "read":
            return "\n".join(f"{n:>6}  {line}" for n, line in enumerate(file.split("\n"), 1)), file, False
        case "write":
            return "Wrote basket.py.", call.text("content"), False
        case "edit":
            made = edit_text(file, replacements_of(call), path="basket.py")
            return (made.shown, made.text, False) if isinstance(made, Edited) else (made.message, file, False)
        case _:
            return json.dumps({"problem": "no such tool here"}), file, False
