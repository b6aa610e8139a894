"""The files that a change in one reply makes of those there are. Pure functions of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.engineering.edits import Refused, Replacement, edit_text
from fleet.models.replies.change_reply import FileEdit

_PART = re.compile(
    r"^<{5,9} ?SEARCH[ \t]*\n(?P<old>.*?)^={5,9}[ \t]*\n(?P<new>.*?)^>{5,9} ?REPLACE[ \t]*$", re.MULTILINE | re.DOTALL
)
_LEFT = re.compile(r"^(?:<{5,9} ?SEARCH|>{5,9} ?REPLACE)[ \t]*$", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"^\s*(?:#|//|--|/\*|<!--)?\s*(?:\.\.\.|…)\s*(?:\(?(?:the )?(?:rest|existing|remaining|other|unchanged|same)\b.*)?$"
    r"|^\s*(?:#|//|--|/\*|<!--)\s*(?:rest|remainder) of (?:the )?(?:file|code)\b.*$",
    re.IGNORECASE | re.MULTILINE,
)
_LONG = 30
"""Lines of a present file from which on a placeholder in its replacement is told."""


class Made(NamedTuple):
    """The texts of the files that change, by path, or why there are none."""

    texts: Mapping[str, str]
    problems: tuple[str, ...]
    """What to tell the model; with any, nothing is changed."""
    notes: tuple[str, ...] = ()
    """Places that were matched apart from white space."""


def make_files(edits: Sequence[FileEdit], present: Mapping[str, str]) -> Made:
    """All edits carried out, or none of them.

    Args:
        present: text of each file that an edit names and that is there.
    """
    texts, problems, notes = dict[str, str](), list[str](), list[str]()
    for edit in edits:
        old = present.get(edit.path)
        if edit.mode == "file":
            problem = _whole_problem(edit, old)
            problems += [problem] if problem else []
            texts[edit.path] = _with_line_ends(edit.content, old)
        elif old is None and (new := _new_file(edit)) is not None:
            texts[edit.path] = new
        elif old is None:
            problems.append(f"{edit.path} does not exist, so nothing can be replaced in it: write the whole file")
        else:
            made = _replaced(edit, old)
            if isinstance(made, str):
                problems.append(made)
            else:
                texts[edit.path], told = made
                notes += [f"{edit.path}, {note}" for note in told]
    if not problems and all(present.get(path) == text for path, text in texts.items()):
        problems.append("the blocks change nothing: the files are like that already")
    return Made({} if problems else texts, tuple(problems), tuple(notes))


def _replaced(edit: FileEdit, old: str) -> tuple[str, tuple[str, ...]] | str:
    parts = [Replacement(part["old"], part["new"]) for part in _PART.finditer(edit.content)]
    if not parts or _LEFT.search(_PART.sub("", edit.content)):
        return (
            f"a part of the block for {edit.path} is not of the form: a line `<<<<<<< SEARCH`, lines of the file, a "
            "line `=======`, the new lines, a line `>>>>>>> REPLACE`"
        )
    found = edit_text(old, parts, path=edit.path)
    return found.message if isinstance(found, Refused) else (found.text, found.notes)


def _new_file(edit: FileEdit) -> str | None:
    """The text of a file that is not there yet, where the part to search for is empty."""
    parts = list(_PART.finditer(edit.content))
    return parts[0]["new"] if len(parts) == 1 and not parts[0]["old"].strip() else None


def _whole_problem(edit: FileEdit, old: str | None) -> str | None:
    if old is None or old.count("\n") < _LONG:
        return None
    left_out = _PLACEHOLDER.search(edit.content)
    if left_out is None or left_out.group(0) in old:
        return None
    line = edit.content.count("\n", 0, left_out.start()) + 1
    return (
        f"the block for {edit.path} stands for the whole file, but line {line} leaves a part of it out: write all of "
        "it, or SEARCH/REPLACE parts"
    )


def _with_line_ends(text: str, old: str | None) -> str:
    """The text with the line ends of the file that it replaces."""
    is_crlf = old is not None and "\r\n" in old and old.count("\r\n") == old.count("\n")
    return text.replace("\n", "\r\n") if is_crlf else text
