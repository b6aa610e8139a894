"""As much of a summary as a pack has room for: some of every part, in whole lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fleet.context.budget import estimate_tokens
from fleet.models import fair_shares

__all__ = ["outline_of"]

_PART = re.compile(r"^(?=## )", re.MULTILINE)


def outline_of(text: str, *, tokens: int) -> str:
    """The text itself where it fits; else each of its parts in as many of its first lines as its share allows.

    Short parts stay whole, and long ones share what that leaves. A part of which lines are missing says how many. The
    headings and these words may take a little more than `tokens`.
    """
    if estimate_tokens(text) <= tokens:
        return text
    parts = [part.strip().splitlines() for part in _PART.split(text) if part.strip()]
    shares = fair_shares([sum(map(estimate_tokens, part)) for part in parts], tokens)
    return "\n\n".join("\n".join(_first(part, share)) for part, share in zip(parts, shares, strict=True)) + "\n"


def _first(lines: Sequence[str], share: int) -> list[str]:
    kept, used = [lines[0]], estimate_tokens(lines[0])
    for line in lines[1:]:
        used += estimate_tokens(line)
        if used > share:
            return [*kept, f"({len(lines) - len(kept)} more lines are left out)"]
        kept.append(line)
    return kept
