"""What came of a tool call, and what of it a model is shown (RT-23, RT-66)."""

from __future__ import annotations

import re

from pydantic import JsonValue

from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen, OutcomeKind
from fleet.policy.runs.spec import Artifact, EgressDecision

EXCERPT_CHARS = 10_000
"""Characters of an output that a model is shown."""
_HEAD, _TAIL = 6_000, 4_000
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class ToolOutcome(Frozen):
    """How a call that was allowed ended. A non-zero exit is an outcome; a broken sandbox is an exception instead."""

    outcome: OutcomeKind
    reason: str = "ok"
    """`ok`, a reason of the run (RC-14..RC-19), or the tool's own word for what failed."""
    exit_code: int | None = None
    """Of the program; the HTTP status of an http call; None where there is neither."""
    content: JsonValue = None
    """The result as data, of the form that the tool documents."""
    text: str = ""
    """The same for people and models: at most EXCERPT_CHARS, plain, redacted."""
    output: Digest | None = None
    """Blob of the whole output; None when `text` is all of it."""
    artifacts: tuple[Artifact, ...] = ()
    tree_out: Digest | None = None
    """The workspace after the call; None when the call changed nothing."""
    run_log: Digest | None = None
    """Log of the run behind the call."""
    unmet: tuple[str, ...] = ()
    """Isolation that the run behind the call lacked (RC-32)."""
    egress: tuple[EgressDecision, ...] = ()
    """What the run behind the call asked for outside."""


def plain_text(text: str) -> str:
    """The text without terminal control sequences, other control characters, and characters that turn its order."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text.replace("\r\n", "\n")))


def excerpt_of(text: str) -> str:
    """At most EXCERPT_CHARS characters: the first 6,000 and the last 4,000, and between them how many were left out."""
    plain = plain_text(text)
    if len(plain) <= EXCERPT_CHARS:
        return plain
    left_out = f"\n[... {len(plain) - EXCERPT_CHARS + 60} characters left out ...]\n"
    return plain[: _HEAD - len(left_out)] + left_out + plain[-_TAIL:]
