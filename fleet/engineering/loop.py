"""The loop of a work session: reply, call, reply. One pure decision over what is on record."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fleet.engineering.state import (
    MAX_CALLS,
    Outcome,
    Session,
    SessionEnding,
    settled,
    with_facts,
    with_outcome,
    with_reply,
    with_summary,
    without_reply,
)
from fleet.engineering.stuck import nudge_for, pattern_in
from fleet.engineering.summary import known_facts
from fleet.engineering.tools import LOOKS, TOOL_NAMES, SessionCall, call_of
from fleet.engineering.transcript import all_masked, masks_of, prompt_tokens
from fleet.kernel.ids import Digest
from fleet.models.chat import TokenUsage
from fleet.models.replies.session_reply import SessionReply

_TELL_AT = 80
"""Per cent of a budget from which on the engineer is told that little is left."""
_BETWEEN_SUMMARIES = 10
"""Turns that a summary must last; one that lasts less long ends the session as going in a circle."""
_TOO_OFTEN = 3
"""Prompts in a row that the engine found too long: masked after the first, summarised after the second."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The engine is to be asked for its next reply."""

    number: int
    """Of the turn, from 1."""
    is_summary: bool = False
    """It is asked for a summary of the conversation, which takes its place."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What the program knows is to be put beside the summary of this turn."""

    turn: int


@dataclass(frozen=True, slots=True)
class Carry:
    """This call is to be carried out on these files."""

    turn: int
    number: int
    """Of the use within its reply, from 1."""
    call: SessionCall
    head: Digest


@dataclass(frozen=True, slots=True)
class Over:
    """The session is over, and its head is what it submits."""

    reason: SessionEnding


Step = Ask | Carry | Recall | Over


def next_step(state: Session) -> Step:
    """What is wanted now. Every sequence of replies and outcomes comes to an end within the terms.

    Budgets are looked at before a reply and never end a session in the middle of one.
    """
    if state.ended is not None:
        return Over(state.ended)
    if state.turns and state.turns[-1].is_summary and state.turns[-1].facts is None:
        return Recall(len(state.turns))
    use = state.pending
    if use is not None:
        call = call_of(use, state.terms.outside)
        assert isinstance(call, SessionCall), "uses that are no call have their answer"
        return Carry(len(state.turns), len(state.turns[-1].seen) + 1, call, state.head)
    if state.too_long >= _TOO_OFTEN:
        return Over(SessionEnding.CONTEXT_USED)
    if ending := pattern_in(state) or _used_up(state):
        return Over(ending)
    is_crowded = _is_crowded(state)
    if is_crowded and (ending := _no_room(state)):
        return Over(ending)
    return Ask(len(state.turns) + 1, is_summary=is_crowded)


def looks_ahead(state: Session) -> tuple[Carry, ...]:
    """The pending call and those that follow it in its reply, as long as they only look: none needs another's outcome.

    Empty when fewer than two are left of them. A call that was made before on these files ends the row: it may get its
    answer from the record. So does one that reads an output, whose id may come of the call before.
    """
    last = state.turns[-1] if state.turns else None
    if state.pending is None or last is None or last.reply is None:
        return ()
    made = {one.call.digest for one in state.seen if one.call is not None and one.head == state.head}
    row = list[Carry]()
    for number, use in enumerate(last.reply.uses[:MAX_CALLS], 1):
        if number <= len(last.seen):
            continue
        call = call_of(use, state.terms.outside)
        if not isinstance(call, SessionCall) or not _only_looks(call) or call.digest in made:
            break
        made.add(call.digest)
        row.append(Carry(len(state.turns), number, call, state.head))
    return tuple(row) if len(row) > 1 else ()


def _only_looks(call: SessionCall) -> bool:
    return (call.name in LOOKS and not call.text("output")) or call.is_outside


def _used_up(state: Session) -> SessionEnding | None:
    terms, spent = state.terms, state.spent
    if len(state.turns) >= terms.turns:
        return SessionEnding.TURNS_USED
    if spent.prompt_tokens >= terms.prompt_tokens or spent.output_tokens >= terms.output_tokens:
        return SessionEnding.TOKENS_USED
    if spent.wall_ms >= terms.wall_s * 1000:
        return SessionEnding.TIME_USED
    return None


def _is_crowded(state: Session) -> bool:
    """Whether there is no room for a reply and what it may ask for, masked as the conversation is."""
    terms, used = state.terms, prompt_tokens(state)
    if state.too_long == _TOO_OFTEN - 1 and not state.turns[-1].is_summary:
        return True
    return used > terms.crowded_above or used + terms.output + terms.largest_result > terms.window


def _no_room(state: Session) -> SessionEnding | None:
    """Why a summary is of no use; None when it is."""
    since = len(state.turns) - state.summarised
    if state.summarised and since < _BETWEEN_SUMMARIES:
        return SessionEnding.SUMMARISED_AGAIN if since else SessionEnding.CONTEXT_USED
    if prompt_tokens(state) - state.terms.prompt < state.terms.worth_summing and not state.too_long:
        return SessionEnding.CONTEXT_USED
    return None


def after_reply(state: Session, reply: SessionReply, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The state once this reply is on record."""
    state = replace(with_reply(state, reply, usage, latency_ms=latency_ms), too_long=0)
    if not reply.uses:
        state = _with_problem(state, _without_call(state, reply))
    return _advanced(state)


def after_unusable(
    state: Session, problem: str, usage: TokenUsage, *, latency_ms: int, is_too_long: bool = False
) -> Session:
    """The state once it is on record that the engine gave no reply.

    Args:
        is_too_long: the engine found the prompt too long; from here on it is as short as it can be.
    """
    state = without_reply(state, problem, usage, latency_ms=latency_ms)
    if is_too_long:
        state = replace(state, masked=all_masked(state), too_long=state.too_long + 1)
    return _advanced(state)


def after_summary(state: Session, text: str, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The state once the summary is on record.

    Args:
        text: "" when the engine gave none: what the program knows goes on alone.
    """
    return with_summary(state, text, usage, latency_ms=latency_ms)


def after_facts(state: Session, diff: str) -> Session:
    """The state once the changes so far are on record beside the summary."""
    return _advanced(with_facts(state, known_facts(state, diff)))


def after_outcome(state: Session, call: SessionCall, outcome: Outcome) -> Session:
    """The state once the outcome of the pending call is on record."""
    return _advanced(with_outcome(state, call, outcome))


def over_budget(state: Session) -> Session:
    """The budgets around the session hold no further reply."""
    return replace(state, ended=SessionEnding.BUDGET_USED)


def _without_call(state: Session, reply: SessionReply) -> str:
    if reply.is_cut:
        return (
            "Your reply was cut off at its length limit before a tool was called. Do less at once: one call with a "
            "smaller change."
        )
    names = ", ".join((*TOOL_NAMES, *(offer.name for offer in state.terms.outside)))
    return f"Your reply called no tool. Call one of {names}; submit ends the work."


def _with_problem(state: Session, problem: str) -> Session:
    return replace(state, turns=(*state.turns[:-1], replace(state.turns[-1], problem=problem)))


def _advanced(state: Session) -> Session:
    """Answers that need no call are given; a turn that is complete ends with where the session stands."""
    state = settled(state)
    if state.pending is not None or state.ended is not None:
        return state
    nudge = nudge_for(state)
    said = "\n".join(part for part in (_cut_note(state), nudge.text if nudge else "", _standing(state)) if part)
    turn = replace(state.turns[-1], said=said)
    nudged = state.nudged | {nudge.pattern} if nudge else state.nudged
    state = replace(state, turns=(*state.turns[:-1], turn), nudged=nudged)
    return replace(state, masked=masks_of(state))


def _cut_note(state: Session) -> str:
    reply = state.turns[-1].reply
    is_cut = reply is not None and reply.is_cut and bool(reply.uses)
    return "Your reply was cut off at its length limit; what came after the last call is lost." if is_cut else ""


def _standing(state: Session) -> str:
    """Where the session stands, in one line that never changes again.

    Time is told only once it is short: how long a command took is another number in every run, and a reply that was
    recorded answers the same words only.
    """
    terms, spent = state.terms, state.spent
    used = max(
        spent.prompt_tokens * 100 // terms.prompt_tokens,
        spent.output_tokens * 100 // terms.output_tokens,
    )
    line = f"[turn {len(state.turns)} of {terms.turns}; {min(used, 100)} % of the tokens used]"
    little = max(used, len(state.turns) * 100 // terms.turns, spent.wall_ms // (terms.wall_s * 10)) >= _TELL_AT
    return f"{line} Little is left: finish, run the tests, submit." if little else line
