"""The act loop: think, call a tool, observe. One pure decision over what is known so far."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.models.acting.patterns import Ending, pattern_in
from fleet.models.acting.state import ActState
from fleet.policy.rules.calls import ToolCall


@dataclass(frozen=True, slots=True)
class Think:
    """The model is to be asked for its next reply."""

    number: int
    """Of the reply, from 1."""
    is_last: bool
    """No call of it will be carried out: it is for what was found."""


@dataclass(frozen=True, slots=True)
class UseTool:
    """This call is to be carried out; the same call never comes twice."""

    turn: int
    """Of the reply that asked for it, from 1."""
    number: int
    """Of the use within the reply, from 1."""
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Ended:
    """The loop is over."""

    reason: Ending


NextAction = Think | UseTool | Ended


def next_action(state: ActState) -> NextAction:
    """What is to be done now. Every sequence of replies and results comes to an end within the limits (MB-40).

    The limits are looked at before a reply, never in the middle of one: tokens may be passed by the last reply, whose
    own bound is that of its call.
    """
    limits, turns = state.limits, state.turns
    if (used := state.pending) is not None:
        assert used.call is not None, "only calls are left pending"
        return UseTool(len(turns), len(turns[-1].observations) + 1, used.call)
    last = turns[-1].reply if turns else None
    if last is not None and not last.used:
        return Ended(Ending.FINISHED)
    if (pattern := pattern_in(state)) is not None:
        return Ended(pattern)
    if len(turns) >= limits.steps:
        return Ended(Ending.STEPS_USED)
    if state.tokens >= limits.tokens:
        return Ended(Ending.TOKENS_USED)
    if state.wall_ms >= limits.wall_s * 1000:
        return Ended(Ending.TIME_USED)
    return Think(len(turns) + 1, is_last=len(turns) + 1 == limits.steps)
