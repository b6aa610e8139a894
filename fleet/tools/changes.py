"""What differs between two trees, by path and by line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from fleet.tools.tree import Tree

__all__ = ["LineChanges", "PathChange", "changed_lines", "changed_paths"]


class PathChange(BaseModel):
    """One path that two trees do not have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1)]
    change: Literal["added", "modified", "removed"]


class LineChanges(NamedTuple):
    """Numbers (from 1) of the lines of the new text that are new or changed, and how many old ones are gone."""

    added: tuple[int, ...]
    removed: int


def changed_paths(old: Tree, new: Tree) -> list[PathChange]:
    """Every path whose mode or content differs, sorted by path."""
    differing = sorted({path for path, _ in old.items() ^ new.items()})
    return [PathChange(path=path, change=_kind(path, old, new)) for path in differing]


def _kind(path: str, old: Tree, new: Tree) -> Literal["added", "modified", "removed"]:
    if path not in old:
        return "added"
    return "modified" if path in new else "removed"


def changed_lines(old: str, new: str) -> LineChanges:
    """Which lines of the new text the old one lacks; lines end at newlines alone, as compilers count them."""
    before, after = _lines(old), _lines(new)
    # What is equal at both ends is most of a file, and costs the matcher the square of it.
    head = _common(before, after)
    before, after = before[head:], after[head:]
    tail = _common(before[::-1], after[::-1])
    before, after = before[: len(before) - tail], after[: len(after) - tail]
    added: list[int] = []
    removed = 0
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            added += range(head + c + 1, head + d + 1)
            removed += b - a
    return LineChanges(tuple(added), removed)


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
