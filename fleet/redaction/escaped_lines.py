"""Lines within strings of JSON and of programs, whose breaks are written as escapes (CX-70)."""

from __future__ import annotations

import re

_PIECE = re.compile(r'\\\\|\\[nr]|\\"|"|\n')
_AS = {"\\\\": "\\\\", "\\n": " \n", "\\r": " \n", '\\"': "  ", '"': "\n", "\n": "\0"}
"""Each is as long as what it stands for. A real line break ends a line of the view, and none begins after it."""


def escaped_lines(text: str) -> str | None:
    """The text, as long as it is, with the lines of its strings as lines; None where no string has two."""
    if "\\n" not in text:
        return None
    return _PIECE.sub(lambda piece: _AS[piece[0]], text)
