"""How far a work session has come: replies, and what came of each call. Pure; every step gives a new state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from fleet.engineering.terms import SessionTerms
from fleet.engineering.tools import SessionCall, call_of
from fleet.kernel.digest import digest_of_json
from fleet.kernel.ids import Digest
from fleet.models.chat import TokenUsage, ToolUse
from fleet.models.replies.session_reply import SessionReply

MAX_CALLS = 8
"""Calls of one reply that are made; the model is told of the others."""
ANSWERED_AT = 3
"""The same call on the same files with the same result is answered from the record from this time on."""

SeenKind = Literal["result", "failure", "edit", "refused", "problem", "skipped", "note", "review"]
"""What came of a use: something seen, a command that failed, changed files, an edit that was refused, no call at all,
one that was not made, a note, the review before the end."""


class SessionEnding(StrEnum):
    """Why a session is over. Its head is what it submits, whatever the reason."""

    SUBMITTED = "submitted"
    TURNS_USED = "turns_used"
    TOKENS_USED = "tokens_used"
    TIME_USED = "time_used"
    CONTEXT_USED = "context_used"
    BUDGET_USED = "budget_used"
    SAME_CALL = "same_call"
    SAME_FAILURE = "same_failure"
    BACK_AND_FORTH = "back_and_forth"
    REFUSED_EDITS = "refused_edits"
    NO_USABLE_REPLY = "no_usable_reply"
    STOPPED = "stopped"
    """A person ended it."""
    SUMMARISED_AGAIN = "summarised_again"
    """Its summary was hardly written when there was no room any more: it goes in a circle of summaries."""
    COUNCIL_OVER = "council_over"
    """The time or the tokens of its council are used."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What carrying a call out came to."""

    kind: SeenKind
    text: str
    """What the model is shown, without secrets, within the limits."""
    head: Digest
    """The files afterwards."""
    failure: Digest | None = None
    """Equal for failures that say the same; None where nothing failed."""
    brief: str = ""
    """What stands for it once it is masked; "" where it is never masked."""
    output: Digest | None = None
    """Blob of the whole output that `read` shows by id."""
    wall_ms: int = 0
    sandbox_ms: int = 0
    ends: bool = False
    """The submission was accepted."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the model is told of one use."""

    use: ToolUse
    kind: SeenKind
    text: str
    head: Digest
    call: SessionCall | None = None
    failure: Digest | None = None
    result: Digest | None = None
    """Of what was shown, for the comparison of repetitions."""
    brief: str = ""
    output: Digest | None = None
    is_repeat: bool = False
    """It was answered from the record."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply, and what came of its uses in their order."""

    reply: SessionReply | None
    """None when the engine gave none."""
    problem: str = ""
    """What the model is told instead of results where nothing of the reply was a call."""
    seen: tuple[Seen, ...] = ()
    said: str = ""
    """Words of ours after the last result: where the session stands, and a nudge. They never change again."""
    heard: str = ""
    """What people said before this reply."""
    is_summary: bool = False
    """The reply takes the place of all turns before it."""
    facts: str | None = None
    """What the program adds to a summary; None until that is on record."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a session has used, as it is on record."""

    prompt_tokens: int = 0
    """Cached ones count a tenth."""
    output_tokens: int = 0
    wall_ms: int = 0
    sandbox_ms: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """Everything that the next step depends on; the same records give the same state after a crash."""

    terms: SessionTerms
    base: Digest
    """The tree it began with."""
    head: Digest
    """The tree after the last call."""
    turns: tuple[Turn, ...] = ()
    spent: Spent = Spent()
    masked: frozenset[tuple[int, int]] = frozenset()
    """Turn and place of the results that are no longer shown in full."""
    nudged: frozenset[str] = frozenset()
    """Patterns that the model was told of: once each."""
    ended: SessionEnding | None = None
    summary: str = ""
    """The engineer's words with its submission."""
    notes: tuple[str, ...] = field(default=())
    heard: str = ""
    """What people said since the last reply: it stands before the next one."""
    too_long: int = 0
    """How often in a row the engine found the prompt too long."""

    @property
    def seen(self) -> Iterator[Seen]:
        """All that was seen, oldest first."""
        return (one for turn in self.turns for one in turn.seen)

    @property
    def pending(self) -> ToolUse | None:
        """The use of the last reply that comes next."""
        last = self.turns[-1] if self.turns else None
        if last is None or last.reply is None or len(last.seen) == len(last.reply.uses):
            return None
        return last.reply.uses[len(last.seen)]

    @property
    def summarised(self) -> int:
        """Number of the turn that is the last summary; 0 when there is none."""
        return max((number for number, turn in enumerate(self.turns, 1) if turn.is_summary), default=0)

    @property
    def is_reviewed(self) -> bool:
        """Whether a submission was answered with its review."""
        return any(one.kind == "review" for one in self.seen)

    @property
    def is_tested(self) -> bool:
        """Whether the tests, or a command that names tests, ran on the files as they are now."""
        return any(one.head == self.head and one.call is not None and _is_test(one.call) for one in self.seen)

    @property
    def heads(self) -> tuple[Digest, ...]:
        """The files as they were, each time that they changed."""
        found = [self.base]
        for one in self.seen:
            if one.head != found[-1]:
                found.append(one.head)
        return tuple(found)

    def output_of(self, output_id: str) -> Digest | None:
        """The blob of an output that was cut, by the id that the model was told."""
        return dict(self.outputs()).get(output_id)

    def outputs(self) -> Iterator[tuple[str, Digest]]:
        """The kept outputs by their ids, oldest first."""
        kept = (one.output for one in self.seen if one.output is not None)
        return ((f"o{number}", output) for number, output in enumerate(kept, 1))

    @property
    def next_output(self) -> str:
        """The id of the next output that is kept."""
        return f"o{sum(1 for _ in self.outputs()) + 1}"


def _is_test(call: SessionCall) -> bool:
    return call.name == "tests" or (call.name == "run" and "test" in call.text("command"))


def begin(terms: SessionTerms, base: Digest) -> Session:
    """Nothing was said or done yet."""
    return Session(terms, base, base)


def with_reply(state: Session, reply: SessionReply, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The reply is there; nothing of it was carried out."""
    return _with_turn(spending(state, usage, latency_ms=latency_ms), Turn(reply))


def without_reply(state: Session, problem: str, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The engine gave no reply that could be read; `problem` is what the model is told of it."""
    return _with_turn(spending(state, usage, latency_ms=latency_ms), Turn(None, problem))


def _with_turn(state: Session, turn: Turn) -> Session:
    return replace(state, turns=(*state.turns, replace(turn, heard=state.heard)), heard="")


def with_summary(state: Session, text: str, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The summary is there; what the program adds is not."""
    turn = Turn(SessionReply(text=text), is_summary=True)
    return _with_turn(spending(state, usage, latency_ms=latency_ms), turn)


def with_facts(state: Session, facts: str) -> Session:
    """The summary of the last turn is whole."""
    return replace(state, turns=(*state.turns[:-1], replace(state.turns[-1], facts=facts)))


def with_heard(state: Session, text: str) -> Session:
    """People said this; the engineer reads it before its next reply, and in every prompt from then on."""
    return replace(state, heard="\n\n".join(part for part in (state.heard, text) if part))


def spending(state: Session, usage: TokenUsage, *, latency_ms: int) -> Session:
    """The session has used these tokens and this time."""
    cached = min(usage.tokens_cached, usage.tokens_in)
    spent = replace(
        state.spent,
        prompt_tokens=state.spent.prompt_tokens + usage.tokens_in - cached + cached // 10,
        output_tokens=state.spent.output_tokens + usage.tokens_out,
        wall_ms=state.spent.wall_ms + latency_ms,
    )
    return replace(state, spent=spent)


def with_outcome(state: Session, call: SessionCall, outcome: Outcome) -> Session:
    """The pending call was carried out."""
    use = state.pending
    assert use is not None, "nothing is pending"
    seen = Seen(
        use,
        outcome.kind,
        outcome.text,
        outcome.head,
        call=call,
        failure=outcome.failure,
        result=digest_of_json(outcome.text),
        brief=outcome.brief,
        output=outcome.output,
    )
    spent = replace(
        state.spent,
        wall_ms=state.spent.wall_ms + outcome.wall_ms,
        sandbox_ms=state.spent.sandbox_ms + outcome.sandbox_ms,
    )
    state = replace(with_seen(state, seen), head=outcome.head, spent=spent)
    return replace(state, ended=SessionEnding.SUBMITTED, summary=call.text("summary")) if outcome.ends else state


def with_seen(state: Session, seen: Seen) -> Session:
    """The pending use has this answer."""
    last = state.turns[-1]
    return replace(state, turns=(*state.turns[:-1], replace(last, seen=(*last.seen, seen))))


def settled(state: Session) -> Session:
    """Uses that need nothing to be carried out have their answers, up to the first one that does."""
    while (use := state.pending) is not None and (seen := _known(state, use)) is not None:
        state = with_seen(state, seen)
        if seen.kind == "note" and seen.call is not None:
            state = replace(state, notes=(*state.notes, seen.call.text("text")))
    return state


def _known(state: Session, use: ToolUse) -> Seen | None:
    """What the model is told without anything being carried out; None when the call has to be made."""
    if state.ended is not None:
        return Seen(use, "skipped", "Not executed: the session was over.", state.head)
    if len(state.turns[-1].seen) >= MAX_CALLS:
        return Seen(use, "skipped", f"Not executed: a reply may hold {MAX_CALLS} calls; ask again.", state.head)
    call = call_of(use, state.terms.outside)
    if not isinstance(call, SessionCall):
        return Seen(use, "problem", call.text, state.head)
    if call.name == "note":
        return Seen(use, "note", "Kept.", state.head, call=call)
    same = [
        (number, one)
        for number, turn in enumerate(state.turns, 1)
        for one in turn.seen
        if one.call is not None and one.call.digest == call.digest and one.head == state.head and one.kind != "edit"
    ]
    if call.name != "submit" and len(same) + 1 >= ANSWERED_AT and len({one.result for _, one in same}) == 1:
        one = same[-1][1]
        text = f"You made this very call in turn {same[0][0]}, and the files are as they were: its result is the same."
        return replace(one, use=use, text=text, is_repeat=True, output=None, brief="")
    if call.name in ("run", "tests", "search") and state.spent.sandbox_ms >= state.terms.sandbox_s * 1000:
        text = "Not executed: the time in the sandbox is used. Read and edit still work; then submit."
        return Seen(use, "skipped", text, state.head, call=call)
    return None
