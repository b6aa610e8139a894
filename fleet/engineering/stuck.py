"""Signs that a session makes no progress, by digests of files and failures and never by what a model thinks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice, takewhile
from typing import NamedTuple

from fleet.engineering.state import Seen, Session, SessionEnding

_WINDOW = 20
"""Turns that are looked at."""
_SAME_CALL, _SAME_CALL_ENDS = 3, 5
"""Turns with the same call on the same files."""
_SAME_FAILURE, _SAME_FAILURE_ENDS = 4, 7
_RETURNS, _RETURNS_END = 2, 4
_REFUSED, _REFUSED_END = 3, 6
_UNUSABLE = 3
_QUIET_TURNS = 12
_UNTESTED_EDITS = 5


class Nudge(NamedTuple):
    """What the model is told of a pattern, once in a session."""

    pattern: str
    text: str


def pattern_in(state: Session) -> SessionEnding | None:
    """The pattern that ends the session; None while going on may be of use."""
    if _unusable(state) >= _UNUSABLE:
        return SessionEnding.NO_USABLE_REPLY
    if _refused_edits(state) >= _REFUSED_END:
        return SessionEnding.REFUSED_EDITS
    if _same_calls(state) >= _SAME_CALL_ENDS:
        return SessionEnding.SAME_CALL
    if _heads_of_one_failure(state) >= _SAME_FAILURE_ENDS:
        return SessionEnding.SAME_FAILURE
    if _returns(state) >= _RETURNS_END:
        return SessionEnding.BACK_AND_FORTH
    return None


def nudge_for(state: Session) -> Nudge | None:
    """The first pattern that the model was not told of yet."""
    return next((nudge for nudge in _nudges(state) if nudge.pattern not in state.nudged), None)


def _nudges(state: Session) -> Iterator[Nudge]:
    if _refused_edits(state) >= _REFUSED:
        yield Nudge(
            "refused_edits",
            "Several edits in a row were refused. Read the lines as they are now and copy them, or use write with the "
            "whole file.",
        )
    if _heads_of_one_failure(state) >= _SAME_FAILURE:
        yield Nudge(
            "same_failure",
            "The same failure came back after several different changes. Read the failing code again from its start, "
            "say what you have tried, and test another explanation.",
        )
    if _returns(state) >= _RETURNS:
        yield Nudge(
            "back_and_forth",
            "The files are again as they were before: you undo your own changes. Decide which version is right and why "
            "before you change anything else.",
        )
    if _same_calls(state) >= _SAME_CALL:
        yield Nudge(
            "same_call",
            "You make the same call again and again on the same files: it can tell you nothing new. Say what you still "
            "need to know and look for that, or make the next change.",
        )
    turns, quiet = len(state.turns), _turns_without_change(state)
    if state.head == state.base and turns * 3 >= state.terms.turns and len(state.heads) == 1:
        yield Nudge(
            "nothing_changed",
            "A third of your turns is used and no file has changed. Name the smallest change that helps and make it, "
            "or submit and say why it is not possible.",
        )
    elif len(state.heads) > 1 and quiet >= _QUIET_TURNS:
        yield Nudge("quiet", f"No file has changed for {quiet} turns. Make the next change, or submit what you have.")
    if _untested_edits(state) >= _UNTESTED_EDITS:
        yield Nudge("untested", "You have changed files several times without running the tests: run them now.")


def _recent(state: Session) -> list[Seen]:
    """What was seen of the calls of the last turns that were made."""
    return [one for turn in state.turns[-_WINDOW:] for one in turn.seen if one.kind != "skipped"]


def _unusable(state: Session) -> int:
    """Replies in a row of which nothing was a call."""
    return sum(
        1
        for _ in takewhile(
            lambda turn: all(one.kind in ("problem", "skipped") for one in turn.seen),
            (turn for turn in reversed(state.turns) if not turn.is_summary),
        )
    )


def _refused_edits(state: Session) -> int:
    edits = (one for one in reversed(list(state.seen)) if one.kind in ("edit", "refused"))
    return sum(1 for _ in takewhile(lambda one: one.kind == "refused", edits))


def _same_calls(state: Session) -> int:
    """In how many turns the call was made that was made in most. Calls of one reply know nothing of each other."""
    made = Counter(
        same
        for turn in state.turns[-_WINDOW:]
        for same in {
            (one.call.digest, one.head)
            for one in turn.seen
            if one.call is not None and one.kind not in ("edit", "note", "skipped")
        }
    )
    return max(made.values(), default=0)


def _heads_of_one_failure(state: Session) -> int:
    heads: dict[object, set[object]] = {}
    for one in _recent(state):
        if one.failure is not None:
            heads.setdefault(one.failure, set()).add(one.head)
    return max(map(len, heads.values()), default=0)


def _returns(state: Session) -> int:
    """How often the files came back to what they had been."""
    heads = state.heads
    return sum(head in heads[:index] for index, head in enumerate(heads))


def _turns_without_change(state: Session) -> int:
    quiet = takewhile(lambda turn: not any(one.kind == "edit" for one in turn.seen), reversed(state.turns))
    last = list(islice(quiet, _QUIET_TURNS + 1))
    # A command changes files too, which no kind says: only the head does.
    return len(last) if all(one.head == state.head for turn in last for one in turn.seen) else 0


def _untested_edits(state: Session) -> int:
    edits = 0
    for one in reversed(list(state.seen)):
        if one.call is not None and one.call.name in ("run", "tests"):
            break
        edits += one.kind == "edit"
    return edits
