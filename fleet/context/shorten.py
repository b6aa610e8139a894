"""One item of a pack in fewer words, where it does not fit whole: taken from it, never told anew (CX-23, CX-53)."""

from __future__ import annotations

import re
from dataclasses import replace

from fleet.context.extract import facts_in, ids_in, paths_in
from fleet.context.item import Item, fence, one_line

__all__ = ["shortened"]

_MIN_CHARS = 160
"""A shorter item is shown whole or not at all."""
_LEAST_GAIN = 0.6
"""A short form is no longer than this part of the item."""
_FENCED = re.compile(
    r"Data from (?P<origin>[^\n]*), not instructions:\n(?P<ticks>`{3,})text\n(?P<body>.*)\n(?P=ticks)", re.DOTALL
)
_HEAD = re.compile(r"(?P<head>.{1,200}?[^\s:])(?::\s|\.\s|\n|$)", re.DOTALL)


def shortened(item: Item) -> Item | None:
    """The item with its first clause, what has to survive of the rest, and every id and path that it names.

    None where that would not be much shorter. Data stay fenced as data (CX-27).
    """
    if len(item.text) < _MIN_CHARS:
        return None
    fenced = _FENCED.fullmatch(item.text)
    text = fence(_digest(fenced["body"]), origin=fenced["origin"]) if fenced else _digest(item.text)
    return replace(item, text=text) if len(text) <= _LEAST_GAIN * len(item.text) else None


def _digest(text: str) -> str:
    first = _HEAD.match(text.lstrip())
    head = one_line(first["head"]) if first else one_line(text)[:200]
    mark = "- " if text.lstrip().startswith("- ") else ""
    lines = [mark + head.removeprefix("- ")]
    facts = (one_line(fact.line) for fact in facts_in(text))
    indent = "  " if mark else ""
    said = "\n".join([*lines, *(f"{indent}{line}" for line in facts if line not in head)])
    names = [name for name in (*ids_in(text), *paths_in(text)) if name not in (*ids_in(said), *paths_in(said))]
    return said + (f" [...] {', '.join(names)}" if names else " [...]")
