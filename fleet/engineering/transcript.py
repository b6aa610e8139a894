"""The conversation of a session as its engine is shown it: append only, old results masked in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fleet.engineering.state import Seen, Session, Turn
from fleet.engineering.summary import asked_for_summary, words_of
from fleet.engineering.terms import BYTES_PER_TOKEN
from fleet.models.chat import ChatMessage, ToolUse, thought_text
from fleet.models.routing.routing import estimate_tokens

_KEPT = 10
"""Of the newest results, which are never masked."""
_SMALL = 200
"""Tokens up to which a result is not worth masking."""
_NO_WORDS = "(no words)"


def messages_of(state: Session) -> tuple[ChatMessage, ...]:
    """The messages after the first prompt. What was sent once stays as it was, but for results that are masked."""
    since = state.summarised
    numbered = [(number, turn) for number, turn in enumerate(state.turns, 1) if number >= since]
    turns = (message for number, turn in numbered for message in _messages(turn, number, state))
    return (*turns, *_heard(state.heard))


def messages_for(state: Session, *, is_summary: bool) -> tuple[ChatMessage, ...]:
    """The messages of the next question: for the next reply, or for a summary of them all."""
    return asked_for_summary(messages_of(state)) if is_summary else messages_of(state)


def _heard(text: str) -> Iterator[ChatMessage]:
    if text:
        yield ChatMessage(role="user", content=text)


def _messages(turn: Turn, number: int, state: Session) -> Iterator[ChatMessage]:
    if turn.is_summary:
        # What people said stands in the facts, with all that they said before.
        yield ChatMessage(role="assistant", content=words_of(turn.reply.text if turn.reply is not None else ""))
        yield ChatMessage(role="user", content=_joined(turn.facts or "", turn.said))
        return
    yield from _heard(turn.heard)
    if turn.reply is None:
        yield ChatMessage(role="user", content=_joined(turn.problem, turn.said))
        return
    # No engine writes more than it may; what one sends beyond that is not read to it again and again.
    most = 2 * BYTES_PER_TOKEN * state.terms.output
    uses = tuple(_kept(use, most) for use in turn.reply.uses)
    text = turn.reply.text if turn.reply.text.strip() or uses else _NO_WORDS
    text = text if len(text) <= most else f"{text[:most]}\n[... {len(text) - most} more characters are left out ...]"
    yield ChatMessage(role="assistant", content=text, tool_uses=uses, reasoning=turn.reply.reasoning)
    if not uses:
        yield ChatMessage(role="user", content=_joined(turn.problem, turn.said))
        return
    for place, seen in enumerate(turn.seen):
        text = masked_text(seen) if (number, place) in state.masked else seen.text
        is_last = place == len(uses) - 1
        yield ChatMessage(role="tool", content=_joined(text, turn.said if is_last else ""), tool_use_id=seen.use.id)


def _kept(use: ToolUse, most: int) -> ToolUse:
    if len(use.arguments) <= most:
        return use
    told = json.dumps({"left_out": f"{len(use.arguments)} characters of arguments"})
    return use.model_copy(update={"arguments": told})


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


def masked_text(seen: Seen) -> str:
    """What stands for a result that is no longer shown."""
    name, about = (seen.call.name, seen.call.about) if seen.call is not None else (seen.use.name, "")
    return f"[result of {name} {about!r}: {seen.brief}]" if about else f"[result of {name}: {seen.brief}]"


def prompt_tokens(state: Session) -> int:
    """An upper guess of the next prompt."""
    return state.terms.prompt + sum(map(_tokens, messages_of(state)))


def _tokens(message: ChatMessage) -> int:
    return estimate_tokens(message.content) + sum(
        estimate_tokens(text)
        for text in (
            *(use.name + use.arguments for use in message.tool_uses),
            *(thought_text(part) for part in message.reasoning),
        )
    )


def masks_of(state: Session) -> frozenset[tuple[int, int]]:
    """The results that are masked from now on: none until the prompt is long, then enough of the oldest at once.

    Edits, notes, the newest results and those of the last tests stay.
    """
    used = prompt_tokens(state)
    if used <= state.terms.mask_above:
        return state.masked
    return _masked(state, used - state.terms.mask_down_to)


def all_masked(state: Session) -> frozenset[tuple[int, int]]:
    """Everything that may be masked is, because the engine found the prompt too long."""
    return _masked(state, state.terms.window)


def _masked(state: Session, too_much: int) -> frozenset[tuple[int, int]]:
    found = set(state.masked)
    for place, seen in _maskable(state):
        if too_much <= 0:
            break
        too_much -= estimate_tokens(seen.text) - estimate_tokens(masked_text(seen))
        found.add(place)
    return frozenset(found)


def _maskable(state: Session) -> Iterator[tuple[tuple[int, int], Seen]]:
    since = state.summarised
    placed = [
        ((number, place), seen)
        for number, turn in enumerate(state.turns, 1)
        for place, seen in enumerate(turn.seen)
        if number > since
    ]
    tests = [at for at, seen in placed if seen.call is not None and seen.call.name == "tests"][-1:]
    for at, seen in placed[: max(0, len(placed) - _KEPT)]:
        if seen.brief and at not in state.masked and at not in tests and estimate_tokens(seen.text) > _SMALL:
            yield at, seen
