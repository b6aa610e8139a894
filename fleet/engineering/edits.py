"""Replacements in one text: exact, or exact apart from what models get wrong about white space. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_AROUND = 3
_SHOWN_LINES = 12
_MAX_PLACES = 8
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00a0": " "})


class Replacement(NamedTuple):
    """`new` takes the place of `old`, which is there once, or of each one with `is_all`."""

    old: str
    new: str
    is_all: bool = False


@dataclass(frozen=True, slots=True)
class Edited:
    """The new text, and what the model is told: notes on inexact matches, and the new lines with some around them."""

    text: str
    notes: tuple[str, ...]
    shown: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed; `message` says why and what to send instead."""

    message: str


class _Place(NamedTuple):
    start: int
    end: int
    new: str
    note: str = ""


def edit_text(text: str, edits: Sequence[Replacement], *, path: str) -> Edited | Refused:
    """The text with all replacements, made in their order, or none of them.

    A text that is not there as it stands is looked for line by line without regard to trailing blanks, then to
    typographic quotes, then to an indentation that differs by the same amount in every line. Such a match counts only
    when it is the only one, and is told. Nothing is ever matched by likeness.
    """
    old_text, notes = text, list[str]()
    for number, edit in enumerate(edits, 1):
        found = _places(text, edit, path)
        if isinstance(found, str):
            which = f"edit {number} of {len(edits)}: " if len(edits) > 1 else ""
            return Refused(f"{which}{found} Nothing was changed.")
        for place in reversed(found):
            text = text[: place.start] + place.new + text[place.end :]
        notes += [place.note for place in found if place.note]
    if text == old_text:
        return Refused(f"the edits leave {path} as it is. Nothing was changed.")
    return Edited(text, tuple(notes), changed_lines(old_text, text))


def _places(text: str, edit: Replacement, path: str) -> list[_Place] | str:
    """Where the replacement goes, in the order of the text; else why it goes nowhere."""
    old, new = _with_ends_of(text, edit.old), _with_ends_of(text, edit.new)
    if not old:
        return "`old` is empty: to make a file or to replace a whole one, use write."
    if old == new:
        return "`old` and `new` are the same."
    exact = _occurrences(text, old)
    if len(exact) == 1 or (exact and edit.is_all):
        return [_Place(start, start + len(old), new) for start in exact]
    if exact:
        lines = [text.count("\n", 0, start) + 1 for start in exact[:_MAX_PLACES]]
        listed = ", ".join(map(str, lines)) + (", ..." if len(exact) > _MAX_PLACES else "")
        return f"`old` is in {path} {len(exact)} times (lines {listed}): add lines around it, or give all."
    for fold, why in FOLDS:
        folded = _folded_places(text, old, new, fold, why)
        if folded:
            return _only(folded, path)
    shifted = _shifted_places(text, old, new)
    if shifted:
        return _only(shifted, path)
    return _nothing_found(text, old, new, path)


def _only(found: list[_Place], path: str) -> list[_Place] | str:
    if len(found) == 1:
        return found
    return (
        f"`old` is in {path} {len(found)} times apart from white space: copy it exactly as it is, with lines around it."
    )


def _with_ends_of(text: str, part: str) -> str:
    """The part with the line ends of the text, where all of those are alike."""
    plain = part.replace("\r\n", "\n")
    return plain.replace("\n", "\r\n") if "\r\n" in text and text.count("\r\n") == text.count("\n") else plain


def _occurrences(text: str, part: str) -> list[int]:
    """Where the part begins, without overlaps."""
    found, at = list[int](), text.find(part)
    while at >= 0:
        found.append(at)
        at = text.find(part, at + len(part))
    return found


def _without_trailing(line: str) -> str:
    return line.rstrip()


def _without_quotes(line: str) -> str:
    return line.translate(_QUOTES).rstrip()


FOLDS: tuple[tuple[Callable[[str], str], str], ...] = (
    (_without_trailing, "trailing blanks"),
    (_without_quotes, "typographic quotes"),
)
"""What a line may differ in and still match where nothing else does, and how that is told."""


def _split(part: str) -> tuple[list[str], bool]:
    """The lines of a part that is matched by whole lines, and whether it ends with a line end."""
    lines = part.split("\n")
    ends = len(lines) > 1 and not lines[-1].strip()
    return (lines[:-1] if ends else lines), ends


def _spans(text: str) -> list[tuple[int, int]]:
    """Begin and end of each line, its line end left out."""
    found, at = list[tuple[int, int]](), 0
    for line in text.split("\n"):
        found.append((at, at + len(line)))
        at += len(line) + 1
    return found


def _folded_places(text: str, old: str, new: str, fold: Callable[[str], str], why: str) -> list[_Place]:
    wanted, ends = _split(old)
    wanted = [fold(line) for line in wanted]
    if not any(wanted):
        return []
    spans = _spans(text)
    folded = [fold(text[start:end]) for start, end in spans]
    places = [at for at in range(len(folded) - len(wanted) + 1) if folded[at : at + len(wanted)] == wanted]
    return [_whole_lines(text, spans, at, len(wanted), new, ends=ends, why=why) for at in places]


def _whole_lines(
    text: str, spans: list[tuple[int, int]], at: int, count: int, new: str, *, ends: bool, why: str
) -> _Place:
    start, end = spans[at][0], spans[at + count - 1][1]
    if text[start:end].endswith("\r") and not new.endswith("\r"):
        end -= 1
    # A part that ended its last line loses that line end here, as the place does.
    new = new.removesuffix("\n").removesuffix("\r") if ends else new
    return _Place(start, end, new, f"line {at + 1}: matched apart from {why}")


def _shifted_places(text: str, old: str, new: str) -> list[_Place]:
    wanted, ends = _split(old)
    if not any(line.strip() for line in wanted):
        return []
    spans = _spans(text)
    lines = [text[start:end].rstrip() for start, end in spans]
    bare, stripped = [line.strip() for line in wanted], [line.strip() for line in lines]
    found: list[_Place] = []
    for at in range(len(lines) - len(wanted) + 1):
        if stripped[at : at + len(wanted)] != bare:
            continue
        moved = _moved(lines[at : at + len(wanted)], wanted, new)
        if moved is not None:
            found.append(_whole_lines(text, spans, at, len(wanted), moved, ends=ends, why="indentation"))
    return found


def _moved(present: Sequence[str], wanted: Sequence[str], new: str) -> str | None:
    """The new text, indented as the present lines are against the wanted ones; None when that is no one amount."""
    shifts = {_shift(_indent(a), _indent(b)) for a, b in zip(present, wanted, strict=True) if b.strip()}
    if len(shifts) != 1 or (shift := shifts.pop()) is None:
        return None
    more, less = shift
    lines: list[str] = []
    for line in new.split("\n"):
        if not line.strip():
            lines.append(line)
        elif line.startswith(less):
            lines.append(more + line[len(less) :])
        else:
            return None
    return "\n".join(lines)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _shift(present: str, wanted: str) -> tuple[str, str] | None:
    """What has to be put before a line, and what taken away there."""
    if present.endswith(wanted):
        return present[: len(present) - len(wanted)], ""
    if wanted.endswith(present):
        return "", wanted[: len(wanted) - len(present)]
    return None


def _nothing_found(text: str, old: str, new: str, path: str) -> str:
    if new.strip() and len(_occurrences(text, new)) == 1 and len(new.strip()) > 20:
        line = text.count("\n", 0, text.find(new)) + 1
        return f"`new` is in {path} already (line {line}) and `old` is not: nothing is to be done."
    lines, wanted = text.split("\n"), _split(old)[0]
    at = _closest(lines, wanted)
    if at is None:
        return f"`old` is not in {path}, and no line of it is. Read the file: copy the lines as they are now."
    return f"`old` is not in {path}. {_describe(lines, wanted, at)}"


def describe_closest(lines: Sequence[str], part: Sequence[str]) -> str | None:
    """Describes the lines most like the part, and where they first differ; None when no line is there."""
    at = _closest(lines, part)
    return None if at is None else _describe(lines, part, at)


def _describe(lines: Sequence[str], wanted: Sequence[str], at: int) -> str:
    end = min(len(lines), at + len(wanted))
    shown = [f"{number:>6}  {lines[number - 1]}" for number in range(at + 1, min(end, at + _SHOWN_LINES) + 1)]
    first = next((n for n in range(end - at) if lines[at + n].rstrip() != wanted[n].rstrip()), None)
    differs = ""
    if first is not None:
        differs = (
            f"\nFirst difference, line {at + first + 1}:\n  file:  {lines[at + first][:300]!r}\n"
            f"  yours: {wanted[first][:300]!r}"
        )
    listed = "\n".join(shown)
    return f"Closest are lines {at + 1}-{end}:\n{listed}{differs}\nCopy the lines from the file as it is now."


def _closest(lines: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where most of the wanted lines stand at their distance from each other; None when none is there at all."""
    where: dict[str, list[int]] = {}
    for offset, line in enumerate(wanted):
        if line.strip():
            where.setdefault(line.strip(), []).append(offset)
    votes: Counter[int] = Counter()
    for at, line in enumerate(lines):
        for offset in where.get(line.strip(), ())[:4]:
            if at >= offset:
                votes[at - offset] += 1
    return min(votes, key=lambda at: (-votes[at], at)) if votes else None


def changed_lines(old: str, new: str) -> str:
    """The part of the new text that differs, with some lines around it and their numbers."""
    before, after = old.split("\n"), new.split("\n")
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    start, end = max(0, head - _AROUND), min(len(after), len(after) - tail + _AROUND)
    return numbered(after[start:end], first=start + 1, most=60)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def numbered(lines: Sequence[str], *, first: int, most: int) -> str:
    """The lines with their numbers; of more than `most` the first and the last."""
    rows = [f"{number:>6}  {line.rstrip(chr(13))}" for number, line in enumerate(lines, first)]
    if len(rows) <= most:
        return "\n".join(rows)
    half = most // 2
    return "\n".join([*rows[:half], f"        ... {len(rows) - 2 * half} lines ...", *rows[-half:]])
