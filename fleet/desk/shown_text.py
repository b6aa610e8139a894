"""What is kept byte for byte, as people are shown it: files, their names, patches, and outputs of runs (CX-60)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fleet.redaction.redact import find_spans, placeholder, redact

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_LOOKED_AT = 8192
"""Bytes of a file in which one that is no text has a NUL, as git takes it."""


def shown_text(text: str) -> str:
    """The text without its secrets."""
    return redact(text).text


def shown_name(path: str) -> str:
    """The path without secrets in its names."""
    return "/".join(redact(name).text for name in path.split("/"))


def is_shown_as(path: str, name: str) -> bool:
    """Whether the path is the one that was asked for, by itself or as it is shown."""
    return name == path or ("[REDACTED:" in name and shown_name(path) == name)


def shown_bytes(raw: bytes) -> tuple[bytes, Mapping[str, int]]:
    """A text in UTF-8, be it damaged, without its secrets, and their places by class; other bytes as they are."""
    if b"\0" in raw[:_LOOKED_AT]:
        return raw, {}
    redacted = redact(raw.decode(errors="surrogateescape"))
    return (redacted.text.encode(errors="surrogateescape") if redacted.spans else raw), redacted.counts


def shown_lines(text: str) -> list[str]:
    """The lines of the text, as many as it has, without its secrets: one over several lines goes out of each."""
    lines = text.splitlines()
    pieces, at = list[str](), 0
    for start, end, kind in find_spans(text):
        secret = text[start:end]
        ending = "\n" if secret.splitlines(keepends=True)[-1:] != secret.splitlines()[-1:] else ""
        pieces += [text[at:start], "\n".join(placeholder(kind) for _ in secret.splitlines()), ending]
        at = end
    shown = "".join([*pieces, text[at:]]).splitlines() if pieces else lines
    return shown if len(shown) == len(lines) else [shown_text(line) for line in lines]


def shown_patch(patch: Iterable[str], old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    """The lines of a unified diff of one file, with those of both sides as `shown_lines` gives them.

    A secret that changed is seen to have changed: its lines are in the diff, and both read alike.
    """
    a = b = 0
    for number, line in enumerate(patch):
        if number < 2:
            yield line
        elif hunk := _HUNK.match(line):
            a, b = _first(hunk[1], hunk[2]), _first(hunk[3], hunk[4])
            yield line
        else:
            sign = line[:1]
            yield sign + (new[b] if sign == "+" else old[a])
            a, b = a + (sign != "+"), b + (sign != "-")


def _first(start: str, length: str | None) -> int:
    # An empty range names the line before it.
    return int(start) - (length != "0")
