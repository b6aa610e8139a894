"""Unified diffs over several files, applied as a whole or not at all. Pure functions of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.engineering.edits import FOLDS, Refused, describe_closest

MAX_FILES = 50
"""Of one patch."""
_HUNK = re.compile(r"@@+ ?(?:-(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? ?@@)?")
_MAX_PLACES = 8
_NOTHING = "Nothing was changed."


class Hunk(NamedTuple):
    """A run of lines that takes the place of another."""

    line: int
    """Where the old lines begin, as the patch says; 0 when it does not say."""
    old: tuple[str, ...]
    new: tuple[str, ...]
    kept: tuple[tuple[int, int], ...]
    """Old and new place of each line that stays: the file's own stands there afterwards, whatever its blanks."""
    old_ends: bool = True
    new_ends: bool = True
    """Whether the last line has a line end on this side."""


@dataclass
class FilePatch:
    """What a patch does to one file."""

    old: str | None = None
    """Its path; None for a new file."""
    new: str | None = None
    """Its path afterwards; None when it is deleted."""
    mode: str = ""
    hunks: list[Hunk] = field(default_factory=list[Hunk])

    @property
    def path(self) -> str:
        """The path that it is spoken of by."""
        return self.new or self.old or ""


class Patched(NamedTuple):
    """The text of a file after a patch, and what is told of inexact matches."""

    text: str
    notes: tuple[str, ...]


def parse_patch(text: str) -> list[FilePatch] | Refused:
    """Parses a unified diff as `git diff` and `diff -u` write it. Counts of lines are not relied on."""
    lines = text.replace("\r\n", "\n").split("\n")
    files, at, is_open = list[FilePatch](), 0, False
    while at < len(lines):
        line = lines[at]
        if line.startswith("diff --git "):
            files.append(_named_by_git(line))
            is_open = True
        elif _is_header(lines, at):
            old, new = _path_in(line), _path_in(lines[at + 1])
            if not is_open or files[-1].hunks or not _is_of(files[-1], old, new):
                files.append(FilePatch())
            files[-1].old, files[-1].new = old, new
            is_open = True
            at += 1
        elif line.startswith("@@"):
            if not is_open:
                return Refused(f"line {at + 1} is a hunk before any file: begin with `--- a/path` and `+++ b/path`.")
            taken = _hunk(lines, at)
            if isinstance(taken, Refused):
                return Refused(f"{files[-1].path}, line {at + 1} of the patch: {taken.message}")
            hunk, at = taken
            files[-1].hunks.append(hunk)
            continue
        elif is_open and not files[-1].hunks:
            _read_extended(line, files[-1])
        at += 1
    return _checked(files)


def _checked(files: list[FilePatch]) -> list[FilePatch] | Refused:
    if not files:
        return Refused(
            f"this is no unified diff. {_NOTHING} Send `--- a/path`, `+++ b/path`, then hunks: `@@` and lines that "
            "begin with a blank, `-` or `+`."
        )
    if len(files) > MAX_FILES:
        return Refused(f"the patch is about {len(files)} files, at most {MAX_FILES} go into one. {_NOTHING}")
    paths = [path for one in files for path in {one.old, one.new} if path]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        return Refused(f"the patch names {twice} more than once: put all its hunks under one header. {_NOTHING}")
    if nameless := next((n for n, one in enumerate(files, 1) if not one.path), None):
        return Refused(f"file {nameless} of the patch has no name. {_NOTHING}")
    if empty := next((one.path for one in files if not one.hunks and one.old == one.new and not one.mode), None):
        return Refused(f"the patch has no hunk for {empty}: begin each with a line `@@`. {_NOTHING}")
    return files


def _is_header(lines: Sequence[str], at: int) -> bool:
    """Whether a file begins here; a removed line may look like the first half of it."""
    if not lines[at].startswith("--- ") or at + 1 >= len(lines) or not lines[at + 1].startswith("+++ "):
        return False
    return _is_named_as_path(lines, at) or (at + 2 < len(lines) and lines[at + 2].startswith("@@"))


def _is_named_as_path(lines: Sequence[str], at: int) -> bool:
    return lines[at].startswith(("--- a/", "--- /dev/null")) and lines[at + 1].startswith(("+++ b/", "+++ /dev/null"))


def _named_by_git(line: str) -> FilePatch:
    """The names of a `diff --git` line, which count where no other line has them."""
    both = line.removeprefix("diff --git ").strip()
    old, mark, new = both.partition(" b/")
    return FilePatch(old.removeprefix("a/"), new) if mark else FilePatch()


def _is_of(file: FilePatch, old: str | None, new: str | None) -> bool:
    """Whether these are the names of the file that a `diff --git` line has opened."""
    return (file.old is None or old in (file.old, None)) and (file.new is None or new in (file.new, None))


def _path_in(line: str) -> str | None:
    name = line[4:].partition("\t")[0].strip().strip('"')
    if name == "/dev/null":
        return None
    return name.removeprefix("a/" if line.startswith("-") else "b/") or None


def _read_extended(line: str, file: FilePatch) -> None:
    word, _, value = line.rpartition(" ")
    match word:
        case "new file mode":
            file.old, file.mode = None, value
        case "deleted file mode":
            file.new = None
        case "new mode":
            file.mode = value
        case _ if line.startswith("rename from "):
            file.old = line.removeprefix("rename from ")
        case _ if line.startswith("rename to "):
            file.new = line.removeprefix("rename to ")
        case _:
            pass


def _hunk(lines: Sequence[str], at: int) -> tuple[Hunk, int] | Refused:
    """The hunk that begins here, and the line after it."""
    match = _HUNK.match(lines[at])
    line = int(match.group(1)) if match and match.group(1) else 0
    end = at + 1
    counts = [int(match.group(n) or 1) if match and match.group(1) else 0 for n in (2, 3)]
    while end < len(lines) and not lines[end].startswith(("@@", "diff --git ")):
        # A removed `-- x` before an added `++ y` looks like the names of a file; then the hunk's counts tell.
        is_owed = min(counts) > 0 and not (end + 1 < len(lines) and _is_named_as_path(lines, end))
        if _is_header(lines, end) and not is_owed:
            break
        counts[0] -= lines[end][:1] in ("", " ", "-")
        counts[1] -= lines[end][:1] in ("", " ", "+")
        end += 1
    body = list(lines[at + 1 : end])
    while body and not body[-1]:
        body.pop()
    old, new, kept, last = list[str](), list[str](), list[tuple[int, int]](), ""
    ends = {"-": True, "+": True}
    for number, row in enumerate(body, at + 2):
        sign, rest = (row[0], row[1:]) if row else (" ", "")
        if sign == "\\":
            ends.update({side: False for side in ("-", "+") if last in (side, " ")})
            continue
        if sign not in " +-":
            return Refused(f"line {number} begins with none of blank, `-`, `+`: {row[:80]!r}. {_NOTHING}")
        if sign == " ":
            kept.append((len(old), len(new)))
        if sign in " -":
            old.append(rest)
        if sign in " +":
            new.append(rest)
        last = sign
    if len(kept) == len(old) == len(new):
        return Refused(f"the hunk changes nothing. {_NOTHING}")
    return Hunk(line, tuple(old), tuple(new), tuple(kept), ends["-"], ends["+"]), end


def apply_hunks(text: str, hunks: Sequence[Hunk], *, path: str) -> Patched | Refused:
    """The text with every hunk in its place, or none of them.

    Old lines are looked for in the whole text: where they stand once, that is their place, whatever number the hunk
    gives. Where they stand more often, its number says which, else the order of the hunks. Lines that are there apart
    from trailing blanks or typographic quotes match as well when they are there only once, and that is told.
    """
    has_carriage = "\r\n" in text and text.count("\r\n") == text.count("\n")
    lines = (text.replace("\r\n", "\n") if has_carriage else text).split("\n")
    places, notes, after = list[int](), list[str](), 0
    for number, hunk in enumerate(hunks, 1):
        place = _place(lines, hunk, after, path)
        if isinstance(place, Refused):
            return Refused(f"hunk {number} of {len(hunks)} of {path}: {place.message}")
        at, note = place
        places.append(at)
        notes += [f"{path}, hunk {number}: line {at + 1}: matched apart from {note}"] if note else []
        after = at + len(hunk.old)
    for hunk, at in reversed([*zip(hunks, places, strict=True)]):
        _replace(lines, hunk, at)
    changed = "\n".join(lines)
    if changed == "\n".join(text.replace("\r\n", "\n").split("\n")) and hunks:
        return Refused(f"the patch leaves {path} as it is.")
    return Patched(changed.replace("\n", "\r\n") if has_carriage else changed, tuple(notes))


def _replace(lines: list[str], hunk: Hunk, at: int) -> None:
    """The lines of the hunk take their place."""
    end = at + len(hunk.old)
    is_last = end >= len(lines) - (not lines[-1])
    new = list(hunk.new)
    for old_at, new_at in hunk.kept:
        new[new_at] = lines[at + old_at]
    lines[at:end] = new
    if is_last and not hunk.new_ends and lines and not lines[-1]:
        lines.pop()
    elif is_last and hunk.new_ends and lines and lines[-1] and (not hunk.old_ends or not hunk.old):
        lines.append("")


def _place(lines: Sequence[str], hunk: Hunk, after: int, path: str) -> tuple[int, str] | Refused:
    """Where the old lines begin, and what was left out of account to find them."""
    if not hunk.old:
        if lines in ([""], []):
            return 0, ""
        return Refused(f"it has no line of the file to go by: add lines around the new ones. {_NOTHING}")
    exact = _occurrences(lines, hunk.old)
    if len(exact) > 1:
        at = next((at for at in exact if at == hunk.line - 1), None)
        later = [at for at in exact if at >= after]
        at = later[0] if at is None and len(later) == 1 else at
        if at is None:
            more = ", ..." if len(exact) > _MAX_PLACES else ""
            listed = ", ".join(str(at + 1) for at in exact[:_MAX_PLACES]) + more
            told = f"its old lines stand there {len(exact)} times (lines {listed}) and line {hunk.line} is none of them"
            return Refused(f"{told}: add lines around them. {_NOTHING}")
        exact = [at]
    note = ""
    for fold, why in FOLDS:
        if not exact:
            exact, note = _occurrences([fold(one) for one in lines], [fold(one) for one in hunk.old]), why
    if len(exact) > 1:
        return Refused(f"its old lines stand there {len(exact)} times apart from {note}: copy them exactly. {_NOTHING}")
    if not exact:
        return _nowhere(lines, hunk, path)
    if exact[0] < after:
        return Refused(
            f"its old lines stand at line {exact[0] + 1}, before the end of the hunk before it (line {after}): give "
            f"the hunks in the order of the file, without lines in common. {_NOTHING}"
        )
    return exact[0], note


def _nowhere(lines: Sequence[str], hunk: Hunk, path: str) -> Refused:
    done = _occurrences(lines, hunk.new) if hunk.new else []
    if len(done) == 1 and any(one.strip() for one in hunk.new):
        return Refused(f"its new lines stand at line {done[0] + 1} already: leave this hunk out. {_NOTHING}")
    closest = describe_closest(lines, hunk.old)
    if closest is None:
        return Refused(f"none of its old lines is in {path}. {_NOTHING} Read the file: copy the lines as they are now.")
    return Refused(f"its old lines are not there. {_NOTHING} {closest}")


def _occurrences(lines: Sequence[str], part: Sequence[str]) -> list[int]:
    part, first = list(part), part[0]
    return [
        at
        for at in range(len(lines) - len(part) + 1)
        if lines[at] == first and list(lines[at : at + len(part)]) == part
    ]


def apply_patch(files: Mapping[str, str], patches: Sequence[FilePatch]) -> dict[str, Patched | None] | Refused:
    """Applies patches to all files or to none, and gives path -> text, None where no file is left.

    Args:
        files: the text of each file that the patches begin with.
    """
    result: dict[str, Patched | None] = {}
    for one in patches:
        made = apply_hunks(files.get(one.old or "", ""), one.hunks, path=one.path)
        if isinstance(made, Refused):
            return made
        if one.new is None and made.text:
            left = made.text.count("\n") + (not made.text.endswith("\n"))
            return Refused(f"the patch deletes {one.path} and leaves {left} lines of it: remove them too. {_NOTHING}")
        if one.old and one.old != one.new:
            result[one.old] = None
        if one.new is not None:
            result[one.new] = made
    return result
