"""Unified differences of two texts, in a time that its input cannot stretch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Literal

_Opcode = tuple[Literal["replace", "delete", "insert", "equal"], int, int, int, int]
_CONTEXT = 3
_MATCHED_LINES = 2_000
"""Lines on one side up to which a smallest difference is looked for; the matcher costs their square."""


def unified_diff(old: str, new: str, *, path: str, is_new: bool = False, is_gone: bool = False) -> str:
    """What turns the old text into the new one, as `patch` reads it; "" when they are equal.

    Correct for any input. Between two texts that differ in more than 2,000 lines in a row it is one large hunk.
    """
    before, after = _lines(old), _lines(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    middle_old, middle_new = before[head : len(before) - tail], after[head : len(after) - tail]
    if not middle_old and not middle_new:
        return ""
    lead = before[max(0, head - _CONTEXT) : head]
    trail = before[len(before) - tail :][:_CONTEXT]
    offset = head - len(lead)
    names = f"--- {'/dev/null' if is_new else 'a/' + path}\n+++ {'/dev/null' if is_gone else 'b/' + path}\n"
    if max(len(middle_old), len(middle_new)) > _MATCHED_LINES:
        return names + "".join(_one_hunk(lead, middle_old, middle_new, trail, offset))
    return names + "".join(_hunks(_Framed(lead, middle_old, middle_new, trail), offset))


class _Framed(difflib.SequenceMatcher[str]):
    """Matches the middles alone: `patch` takes a hunk without lines behind it for one at the end of the file."""

    def __init__(self, lead: Sequence[str], old: Sequence[str], new: Sequence[str], trail: Sequence[str]) -> None:
        super().__init__(None, old, new, autojunk=False)
        self._lead, self._trail = len(lead), len(trail)
        self.old, self.new = [*lead, *old, *trail], [*lead, *new, *trail]

    def get_opcodes(self) -> list[_Opcode]:
        """The steps from `old` to `new`."""
        n, old, new = self._lead, len(self.old), len(self.new)
        middle: list[_Opcode] = [(tag, i + n, j + n, k + n, m + n) for tag, i, j, k, m in super().get_opcodes()]
        before: list[_Opcode] = [("equal", 0, n, 0, n)] if n else []
        after: list[_Opcode] = [("equal", old - self._trail, old, new - self._trail, new)] if self._trail else []
        return [*before, *middle, *after]


def _lines(text: str) -> list[str]:
    """Lines with their newlines; other separators end no line for `patch`."""
    *whole, rest = text.split("\n")
    return [f"{line}\n" for line in whole] + ([rest] if rest else [])


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n
    return min(len(one), len(other))


def _one_hunk(
    lead: Sequence[str], old: Sequence[str], new: Sequence[str], trail: Sequence[str], offset: int
) -> Iterator[str]:
    around = len(lead) + len(trail)
    yield f"@@ -{_range(offset, around + len(old))} +{_range(offset, around + len(new))} @@\n"
    for sign, lines in ((" ", lead), ("-", old), ("+", new), (" ", trail)):
        yield from (_line(sign, line) for line in lines)


def _hunks(matched: _Framed, offset: int) -> Iterator[str]:
    old, new = matched.old, matched.new
    for group in matched.get_grouped_opcodes(_CONTEXT):
        a, b, c, d = group[0][1], group[-1][2], group[0][3], group[-1][4]
        yield f"@@ -{_range(offset + a, b - a)} +{_range(offset + c, d - c)} @@\n"
        for tag, i, j, k, m in group:
            if tag == "equal":
                yield from (_line(" ", line) for line in old[i:j])
                continue
            yield from (_line("-", line) for line in old[i:j])
            yield from (_line("+", line) for line in new[k:m])


def _line(sign: str, line: str) -> str:
    return f"{sign}{line}" if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"


def _range(start: int, length: int) -> str:
    # An empty range names the line before it.
    return f"{start + (length > 0)},{length}"
