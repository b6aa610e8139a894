"""A reply of an engineer at work: its words and the tools it asked for, as they are. Nothing of them is judged here.

What is wrong with a reply is answered in the conversation, where the engineer sees it in its place; so every reply of
an engine is one recorded answer, and none is paid for a second time.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from fleet.kernel.types import Frozen
from fleet.models.chat import FinishReason, Reasoning, ToolUse
from fleet.models.replies.tool_calls import ARGUMENTS_TOO_LONG, MAX_ARGUMENTS_CHARS
from fleet.redaction.redact import redact

MAX_TEXT_CHARS = 200_000
"""Of the words of one reply; what an engine sends beyond is cut off."""
MAX_USES = 32
"""Uses of one reply that are kept."""
MAX_REASONING_CHARS = 1_048_576


def _is_empty(value: object) -> bool:
    return not value


class SessionReply(Frozen):
    """What an engine answered in one turn."""

    text: str = ""
    is_cut: bool = False
    """It ended at its length limit, so that its last use may be half."""
    uses: tuple[ToolUse, ...] = ()
    reasoning: tuple[Reasoning, ...] = Field(default=(), exclude_if=_is_empty)
    """What the engine wants back with the reply, as it came; never shown."""


def _kept_reasoning(parts: Sequence[Reasoning]) -> tuple[Reasoning, ...]:
    """All of it or nothing: an API refuses a part of what it signed, and a secret must not be kept."""
    size = sum(len(part.text) + len(part.opaque) for part in parts)
    is_secret = any(redact(part.text).text != part.text for part in parts)
    return () if size > MAX_REASONING_CHARS or is_secret else tuple(parts)


def session_reply(
    text: str, finish_reason: FinishReason, uses: Sequence[ToolUse], reasoning: Sequence[Reasoning] = ()
) -> SessionReply:
    """The reply within what is kept of one; each use has an id of its own."""
    kept = [
        use.model_copy(
            update={
                "id": use.id or f"use-{number}",
                "name": use.name[:80] or "unnamed",
                "arguments": use.arguments if len(use.arguments) <= MAX_ARGUMENTS_CHARS else ARGUMENTS_TOO_LONG,
            }
        )
        for number, use in enumerate(uses[:MAX_USES], 1)
    ]
    return SessionReply(
        text=text[:MAX_TEXT_CHARS],
        is_cut=finish_reason == "length",
        uses=tuple(kept),
        reasoning=_kept_reasoning(reasoning),
    )
