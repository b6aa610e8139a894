"""Loops and stalls in an act loop, by the patterns of MB-40."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from fleet.models.acting.state import ActState, Observation, ObservationKind

_WINDOW = 20
_SAME_RESULT, _SAME_FAILURE, _SAME_DENIAL = 4, 3, 3
_UNUSABLE = 3
_ALTERNATING = 6
_NOTHING_NEW = 5
"""Uses in a row without a new result; beyond MB-40, since what an exploring agent cannot find costs tokens too."""


class Ending(StrEnum):
    """Why an act loop is over. The first is the only one that the model chose."""

    FINISHED = "finished"
    STEPS_USED = "steps_used"
    TOKENS_USED = "tokens_used"
    TIME_USED = "time_used"
    REPEATED_RESULT = "repeated_result"
    REPEATED_FAILURE = "repeated_failure"
    REPEATED_DENIAL = "repeated_denial"
    ALTERNATING_CALLS = "alternating_calls"
    NO_USABLE_REPLY = "no_usable_reply"
    NOTHING_NEW = "nothing_new"

    @property
    def is_stuck(self) -> bool:
        """Whether it is a pattern of MB-40, which goes on record as such."""
        return self in _STUCK


_STUCK = frozenset(
    {
        Ending.REPEATED_RESULT,
        Ending.REPEATED_FAILURE,
        Ending.REPEATED_DENIAL,
        Ending.ALTERNATING_CALLS,
        Ending.NO_USABLE_REPLY,
    }
)


def pattern_in(state: ActState) -> Ending | None:
    """The pattern that shows that going on is of no use; None while it may be."""
    if len(state.turns) >= _UNUSABLE and all(turn.reply is None for turn in state.turns[-_UNUSABLE:]):
        return Ending.NO_USABLE_REPLY
    made = [seen for seen in state.observations if seen.kind != "skipped"]
    recent = made[-_WINDOW:]
    if _most(recent, "denial") >= _SAME_DENIAL:
        return Ending.REPEATED_DENIAL
    if _most(recent, "failure", "problem") >= _SAME_FAILURE:
        return Ending.REPEATED_FAILURE
    if _most(recent, "result") >= _SAME_RESULT:
        return Ending.REPEATED_RESULT
    if _alternates(recent):
        return Ending.ALTERNATING_CALLS
    if len(recent) >= _NOTHING_NEW and not any(_is_new(seen) for seen in recent[-_NOTHING_NEW:]):
        return Ending.NOTHING_NEW
    return None


def _most(seen: Sequence[Observation], *kinds: ObservationKind) -> int:
    counts = Counter(one.digest for one in seen if one.kind in kinds)
    return max(counts.values(), default=0)


def _alternates(seen: Sequence[Observation]) -> bool:
    last = [one.digest for one in seen[-_ALTERNATING:]]
    return len(last) == _ALTERNATING and len(set(last[::2])) == len(set(last[1::2])) == 1 and last[0] != last[1]


def _is_new(seen: Observation) -> bool:
    return seen.kind == "result" and not seen.is_repeat
