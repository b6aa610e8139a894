"""As much of a summary as a pack has room for: some of every part, in whole lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from fleet.context.budget import estimate_tokens
from fleet.models.routing.fair_queue import fair_shares

_PART = re.compile(r"^(?=## )", re.MULTILINE)


def outline_of(text: str, *, tokens: int, count: Callable[[str], int] = estimate_tokens) -> str:
    """The text itself where it fits. Else each of its parts in as many of its first lines as its share allows.

    Short parts stay whole, and long ones share what that leaves. A part of which lines are missing says how many. The
    headings and these words may take a little more than `tokens`.

    Args:
        count: tokens of a text, by the tokenizer of the model that reads it.
    """
    if count(text) <= tokens:
        return text
    parts = [part.strip().splitlines() for part in _PART.split(text) if part.strip()]
    shares = fair_shares([sum(map(count, part)) for part in parts], tokens)
    return "\n\n".join("\n".join(_first(part, share, count)) for part, share in zip(parts, shares, strict=True)) + "\n"


def _first(lines: Sequence[str], share: int, count: Callable[[str], int]) -> list[str]:
    kept, used = [lines[0]], count(lines[0])
    for line in lines[1:]:
        used += count(line)
        if used > share:
            return [*kept, f"({len(lines) - len(kept)} more lines are left out)"]
        kept.append(line)
    return kept
