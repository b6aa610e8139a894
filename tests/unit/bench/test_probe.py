"""What a probe asks, what it makes of the answers, and which strategy follows."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet.bench.probe import call_exercises, edit_exercises, recall_exercise
from fleet.bench.service.probe import Probing, probe_engine
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import ContextTooLarge, ModelUnavailable
from fleet.models.chat import NO_TAG, CallTag, ChatChunk, ChatReply, ChatRequest, TokenUsage, ToolUse
from fleet.models.probed import ExerciseScore, ProbedEngine, choose_strategy

_WRITE = re.compile(r"Make the file (\S+) .*?=====\n(.*)=====\Z", re.DOTALL)
_EDIT = re.compile(r"In the function (rate_\d+) the factor must be (\d+)")


@dataclass
class Model:
    """A model that answers from the prompt alone. What it cannot do is said by its fields."""

    calls_tools: bool = True
    window: int = 1_000_000
    knows_place: bool = True
    is_down: bool = False
    thinks: int = 0
    """Tokens of reasoning before each reply; one that has no room for them is cut off before its first word."""
    asked: list[ChatRequest] = field(default_factory=list[ChatRequest])

    async def complete(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> ChatReply:
        """See `ChatModel.complete`."""
        self.asked.append(request)
        if self.is_down:
            raise ModelUnavailable("it is down")
        question = request.messages[-1].content
        tokens = sum(len(text) for text in request.texts) // 4
        if tokens > self.window:
            raise ContextTooLarge("too long")
        if request.sampling.max_tokens <= self.thinks:
            return self._reply(tokens, "")
        if not request.tools:
            return self._reply(tokens, " ".join(re.findall(r"the code of the \w+ is (\d+)", question)))
        if not self.calls_tools:
            return self._reply(tokens, "I would write the file.")
        return self._reply(tokens, "", self._use(request))

    def stream(
        self, request: ChatRequest, *, request_id: str, timeout_s: float, tag: CallTag = NO_TAG
    ) -> AsyncIterator[ChatChunk]:
        """Not asked for by a probe."""
        raise AssertionError

    async def abort(self, request_id: str) -> None:
        """See `ChatModel.abort`."""

    async def health(self) -> None:
        """See `ChatModel.health`."""

    def _reply(self, tokens: int, text: str, use: ToolUse | None = None) -> ChatReply:
        usage = TokenUsage(tokens_in=tokens, tokens_out=10)
        return ChatReply(
            text=text,
            finish_reason="tool_use" if use else "stop",
            usage=usage,
            engine="e",
            model="m-1",
            revision="r7",
            tool_uses=(use,) if use else (),
        )

    def _use(self, request: ChatRequest) -> ToolUse:
        name, args = self._call(request)
        return ToolUse(id=f"u{len(self.asked)}", name=name, arguments=json.dumps(args))

    def _call(self, request: ChatRequest) -> tuple[str, dict[str, Any]]:
        first, turn = request.messages[1].content, sum(m.role == "assistant" for m in request.messages)
        if written := _WRITE.search(first):
            return "write", {"path": written[1], "content": written[2]}
        if edited := _EDIT.search(first):
            old = re.search(rf"def {edited[1]}\(amount\):\n    factor = \d+\n", first)
            assert old is not None
            new = re.sub(r"factor = \d+", f"factor = {edited[2]}", old[0])
            line = "    factor = 8\n"
            return "edit", {"path": "src/rates.py", "old": old[0] if self.knows_place else line, "new": new}
        steps: list[tuple[str, dict[str, Any]]] = [
            ("read", {"path": "basket.py"}),
            ("edit", {"path": "basket.py", "old": "prices[1:]", "new": "prices"}),
            ("tests", {}),
            ("submit", {"summary": "the first price was left out"}),
        ]
        return steps[turn]


async def probed(text: Model, native: Model | None, *, window: int = 64_000, most: int = 32_000) -> ProbedEngine:
    """What the probe of this engine found."""
    told: list[str] = []
    given = Probing("able", "auto", window=window, most=most, output=8_000, text=text, native=native, told=told.append)
    found = await probe_engine(given, MemoryClock())
    assert told
    return found


async def test_model_that_can_all_of_it_gets_a_session():
    text, native = Model(), Model()
    found = await probed(text, native)
    six, three = ExerciseScore(right=6, of=6), ExerciseScore(right=3, of=3)
    assert (found.native_calls, found.text_calls, found.edits, found.facts) == (six, six, six, three)
    assert (found.fixes.right, found.window, found.is_smaller) == (1, 32_000, False)
    assert (found.model, found.revision) == ("m-1", "r7")
    assert 40_000 < found.tokens < 90_000
    assert choose_strategy(found) == (
        "session",
        "6 of 6 calls of tools and 6 of 6 edits came out right",
    )


async def test_model_that_reasons_long_before_each_reply_gets_a_session():
    text = Model(thinks=3_000)
    found = await probed(text, None, window=32_000)
    assert (found.window, choose_strategy(found).strategy) == (32_000, "session")
    asked = [(sum(len(part) for part in one.texts) // 4, one.sampling.max_tokens) for one in text.asked]
    assert max(most for _, most in asked) == 8_000
    assert all(prompt + most <= 32_000 for prompt, most in asked)


async def test_model_without_calls_drafts():
    found = await probed(Model(calls_tools=False), Model(calls_tools=False))
    assert (found.calls.right, found.edits.right, found.fixes.right) == (0, 0, 0)
    assert choose_strategy(found) == ("draft", "0 of 6 calls of tools came out right")


async def test_model_whose_own_form_fails_is_asked_for_edits_as_text():
    text, native = Model(), Model(calls_tools=False)
    found = await probed(text, native)
    assert (found.calls.right, found.edits.right) == (6, 6)
    assert len(native.asked) == len(call_exercises())


async def test_edit_of_another_place_is_wrong():
    found = await probed(Model(knows_place=False), None)
    assert found.edits.right < len(edit_exercises())
    assert choose_strategy(found).strategy == "assisted"


@pytest.mark.parametrize(
    ("calls", "edits", "fixes", "strategy"),
    [(20, 20, 1, "session"), (19, 18, 1, "session"), (18, 20, 1, "assisted"), (16, 20, 1, "assisted")]
    + [(15, 20, 1, "draft"), (20, 17, 1, "assisted"), (20, 20, 0, "assisted"), (15, 0, 0, "draft")],
)
def test_strategy_follows_from_calls_edits_and_fixes(calls: int, edits: int, fixes: int, strategy: str):
    of_twenty = [ExerciseScore(right=right, of=20) for right in (calls, edits)]
    found = ProbedEngine(
        engine_id="able",
        model="m-1",
        probed_at="2026-01-01T00:00:00Z",
        window=32_000,
        text_calls=of_twenty[0],
        edits=of_twenty[1],
        facts=of_twenty[0],
        fixes=ExerciseScore(right=fixes, of=1),
        tokens=1,
    )
    assert choose_strategy(found).strategy == strategy


async def test_window_that_is_smaller_than_the_entry_says_is_found_by_halving():
    found = await probed(Model(window=9_000), None)
    assert (found.window, found.is_smaller) == (8_000, True)
    assert choose_strategy(found).reason == "its window is 8000 tokens, and a session needs 24000"


async def test_engine_that_is_down_is_no_bad_engine():
    with pytest.raises(ModelUnavailable):
        await probed(Model(is_down=True), None)


def test_facts_stand_where_the_prompt_begins_and_ends():
    exercise = recall_exercise(20_000)
    prompt = exercise.request.messages[0].content
    assert len(prompt) // 4 in range(18_000, 22_000)
    places = [prompt.index(answer) * 100 // len(prompt) for answer in exercise.answers]
    assert places[0] < 5 < 45 < places[1] < 55 < 90 < places[2]
    assert exercise.right("7134, 5561") == 2


def test_engine_that_was_never_probed_drafts():
    assert choose_strategy(None) == ("draft", "it was never probed")
