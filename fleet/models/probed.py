"""What a probe measured of an engine, and how an engineer is to work on it. No model is asked here."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from fleet.kernel.types import Frozen

LEAST_WINDOW = 24_000
"""Tokens of prompt and reply together below which a session has no room."""
_LEAST_CALLS_PERCENT, _CALLS_PERCENT, _EDITS_PERCENT = 80, 95, 90

Worked = Literal["draft", "assisted", "session", "cascade"]


class ExerciseScore(Frozen):
    """How many of so many exercises came out right."""

    right: Annotated[int, Field(ge=0)]
    of: Annotated[int, Field(ge=1)]

    @property
    def percent(self) -> int:
        """The right ones of a hundred."""
        return 100 * self.right // self.of


class ProbedEngine(Frozen):
    """What an engine did when it was probed, with the model that it had then."""

    engine_id: str
    model: str
    revision: str = ""
    probed_at: str
    """When, as RFC 3339 in UTC."""
    window: Annotated[int, Field(ge=0)]
    """Tokens of prompt and reply together that it really took and could recall from."""
    is_smaller: bool = False
    """Whether a longer prompt than `window` was tried and failed; else the window is as far as the probe went."""
    native_calls: ExerciseScore | None = None
    """Calls of tools in the engine's own form; None where it has none."""
    text_calls: ExerciseScore
    """Calls of tools that are written as text."""
    edits: ExerciseScore
    """Exact replacements in a file of 200 lines."""
    facts: ExerciseScore
    """Facts that stood at the beginning, in the middle and near the end of a long prompt."""
    fixes: ExerciseScore
    """Failing tests that were mended in a short session."""
    tokens: Annotated[int, Field(ge=0)]
    """Of all prompts and replies of the probe."""

    @property
    def calls(self) -> ExerciseScore:
        """Calls in the better of the two forms."""
        if self.native_calls is None or self.native_calls.percent < self.text_calls.percent:
            return self.text_calls
        return self.native_calls


class ChosenStrategy(NamedTuple):
    """How an engineer works on an engine, and why."""

    strategy: Worked
    reason: str


def choose_strategy(probed: ProbedEngine | None) -> ChosenStrategy:
    """The strategy for an engine whose entry leaves it to the probe."""
    if probed is None:
        return ChosenStrategy("draft", "it was never probed")
    if probed.window < LEAST_WINDOW:
        return ChosenStrategy("draft", f"its window is {probed.window} tokens, and a session needs {LEAST_WINDOW}")
    calls, edits = probed.calls, probed.edits
    if calls.percent < _LEAST_CALLS_PERCENT:
        return ChosenStrategy("draft", f"{calls.right} of {calls.of} calls of tools came out right")
    for score, percent, what in (
        (calls, _CALLS_PERCENT, "calls of tools"),
        (edits, _EDITS_PERCENT, "edits"),
        (probed.fixes, 100, "short sessions"),
    ):
        if score.percent < percent:
            return ChosenStrategy("assisted", f"{score.right} of {score.of} {what} came out right")
    return ChosenStrategy(
        "session", f"{calls.right} of {calls.of} calls of tools and {edits.right} of {edits.of} edits came out right"
    )
