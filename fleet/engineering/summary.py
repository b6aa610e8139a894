"""The one summary that takes the place of a conversation for which the window has no room any more. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.engineering.shown import fenced
from fleet.engineering.state import Session
from fleet.models.chat import ChatMessage

REQUEST = """The conversation no longer fits. Write a summary that takes its place; call no tool in this reply.
You will see nothing of what stands above but this summary, your notes, the whole diff and the last test results.
Use these headings:
Goal and criteria:
Decided (and why; it is not planned again):
Done, per file:
How to run the tests, and what they said last:
Open problems, with what shows them:
Next act:"""
_NONE = "(no summary was written)"


def asked_for_summary(messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """The conversation with the request for a summary at its end; what stands before it stays as it was sent."""
    if messages and messages[-1].role == "user":
        last = messages[-1]
        return (*messages[:-1], last.model_copy(update={"content": f"{last.content}\n\n{REQUEST}"}))
    return (*messages, ChatMessage(role="user", content=REQUEST))


def words_of(text: str) -> str:
    """The summary as it stands in the conversation, also where none was written."""
    return text if text.strip() else _NONE


def known_facts(state: Session, diff: str) -> str:
    """What the program knows without the engineer: what people said, the notes, the diff and the last tests."""
    return "\n\n".join(_facts(state, diff))


def _facts(state: Session, diff: str) -> Iterator[str]:
    yield "Everything above was your own summary. This is on record beside it:"
    if said := [turn.heard for turn in state.turns if turn.heard]:
        yield "\n\n".join(said)
    if state.notes:
        yield "Your notes:\n" + "\n".join(f"- {note}" for note in state.notes)
    yield f"Your changes so far:\n{fenced('diff', diff)}" if diff else "You have changed nothing so far."
    tests = [one for one in state.seen if one.call is not None and one.call.name == "tests" and not one.is_repeat]
    if tests:
        age = "on the files as they are now" if tests[-1].head == state.head else "before your last change"
        yield f"The last tests ran {age}:\n{tests[-1].text}"
    yield "Go on with the next act."
