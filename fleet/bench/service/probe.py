"""Probes an engine: asks the exercises of `fleet/bench/probe.py` one after the other, and says what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fleet.bench.probe import (
    Exercise,
    after_fix_reply,
    call_exercises,
    edit_exercises,
    fix_exercise,
    recall_exercise,
)
from fleet.kernel.clock import Clock
from fleet.kernel.errors import ContextTooLarge, ModelError, Retry
from fleet.models.chat import ChatReply, ChatRequest, TokenUsage
from fleet.models.port import ChatModel
from fleet.models.probed import ExerciseScore, ProbedEngine

_TIMEOUT_S = 600
_LEAST_RECALL = 2_000
_RECALL_PERCENT = 90
_LEAST_REPLY = 200
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Probing:
    """An engine as it is probed: in its own form of calls where it has one, and with calls as text."""

    engine_id: str
    model: str
    """As its entry names it; `auto` takes the name that its replies tell."""
    window: int
    """Tokens that its entry promises."""
    most: int
    """Tokens of the longest prompt that the probe may send; a larger window counts as far as it was tried."""
    output: int
    """Tokens of its longest reply."""
    text: ChatModel
    native: ChatModel | None
    told: Told


async def probe_engine(given: Probing, clock: Clock) -> ProbedEngine:
    """What the engine did. An exercise that it cannot answer is one that came out wrong.

    Raises:
        ModelUnavailable, ModelTimeout: it does not answer at all.
    """
    return await _Probe(given, clock).run()


class _Probe:
    def __init__(self, given: Probing, clock: Clock) -> None:
        self._is, self._clock = given, clock
        self._usage = TokenUsage()
        self._last: ChatReply | None = None
        self._asked = 0

    async def run(self) -> ProbedEngine:
        native = await self._score("calls in its own form", call_exercises(), self._is.native)
        text = await self._score("calls as text", call_exercises(), self._is.text)
        assert text is not None, "every engine can be asked in words"
        calls_natively = native is not None and native.percent >= text.percent
        model = self._is.native if calls_natively and self._is.native else self._is.text
        edits = await self._score("edits", edit_exercises(), model)
        assert edits is not None
        window, facts, is_smaller = await self._recalled()
        fixes = await self._fixed(model)
        assert self._last is not None, "an engine that answers nothing has raised"
        return ProbedEngine(
            engine_id=self._is.engine_id,
            model=self._last.model if self._is.model == "auto" else self._is.model,
            revision=self._last.revision,
            probed_at=datetime.fromtimestamp(self._clock.now_ms() // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            window=window,
            is_smaller=is_smaller,
            native_calls=native,
            text_calls=text,
            edits=edits,
            facts=facts,
            fixes=fixes,
            tokens=self._usage.tokens_in + self._usage.tokens_out,
        )

    async def _ask(self, model: ChatModel, request: ChatRequest, *, room: int | None = None) -> ChatReply | None:
        """The reply; None where the engine refuses this very request, or answers nothing that can be read.

        Args:
            room: tokens that the prompt leaves of the window; a third of the window without it.
        """
        self._asked += 1
        most = max(_LEAST_REPLY, min(self._is.output, self._is.window // 3 if room is None else room))
        sampling = request.sampling.model_copy(update={"max_tokens": most})
        request = request.model_copy(update={"sampling": sampling})
        try:
            reply = await model.complete(request, request_id=f"probe-{self._asked}", timeout_s=_TIMEOUT_S)
        except ModelError as error:
            if error.retry is Retry.LATER:
                raise
            return None
        self._usage, self._last = self._usage + reply.usage, reply
        return reply

    async def _score(self, what: str, exercises: Sequence[Exercise], model: ChatModel | None) -> ExerciseScore | None:
        if model is None:
            return None
        right = 0
        for exercise in exercises:
            reply = await self._ask(model, exercise.request)
            right += reply is not None and exercise.is_right(reply.text, reply.tool_uses)
        self._is.told(f"{what}: {right} of {len(exercises)}")
        return ExerciseScore(right=right, of=len(exercises))

    async def _recalled(self) -> tuple[int, ExerciseScore, bool]:
        """The window that holds, what was recalled in it, and whether a longer one failed: it is halved then."""
        first = window = min(self._is.window, self._is.most)
        while True:
            prompt = window * _RECALL_PERCENT // 100
            exercise = recall_exercise(prompt)
            try:
                reply = await self._ask(self._is.text, exercise.request, room=window - prompt)
            except ContextTooLarge:
                reply = None
            right = exercise.right(reply.text) if reply is not None else 0
            if right == len(exercise.answers) or window // 2 < _LEAST_RECALL:
                break
            self._is.told(f"a prompt of {window} tokens: {right} of {len(exercise.answers)} facts; trying the half")
            window //= 2
        self._is.told(f"a prompt of {window} tokens: {right} of {len(exercise.answers)} facts")
        facts = ExerciseScore(right=right, of=len(exercise.answers))
        return (window if facts.percent == 100 else 0), facts, window < first

    async def _fixed(self, model: ChatModel) -> ExerciseScore:
        state = fix_exercise()
        while not state.is_over:
            reply = await self._ask(model, state.request)
            if reply is None:
                break
            state = after_fix_reply(state, reply.text, reply.tool_uses)
        self._is.told(f"a short session: {'mended' if state.is_mended else 'not mended'} in {state.turns} turns")
        return ExerciseScore(right=int(state.is_mended), of=1)
