"""Private keys that go over several lines: whole, cut off, with escaped line breaks, or in a log (CX-62)."""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_BLOCK_CHARS = 64 << 10
"""A block is looked at so far behind its first line and no further (CX-75)."""
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: \d{1,4}\b")
_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: ?[0-9a-f]*")
_MATERIAL = re.compile(r"[A-Za-z0-9+/=]{32,}")
_BREAK = re.compile(r"\\+[nr]|\r?\n")
_SHORT = re.compile(r"[\s>+|#*\-\"'bBrRuU(.,;\\]*[A-Za-z0-9+/=]{0,31}[\\\"',;)\s]*\Z")
_HEADER = re.compile(r"[\s>+|#*\-\"']*(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID)[:,]")
_TAIL = re.compile(r"[\\\"',;)\s+]*\Z")


class Block(NamedTuple):
    """Where a secret of several lines stands, and where the text begins that tells so.

    `is_open` when text that is still to come may belong to it; without an extent it is only a beginning so far.
    """

    start: int
    end: int
    is_open: bool
    told_at: int


def next_key(text: str, at: int) -> Block | None:
    """The first private key from `at` on: up to its last line, or as far as what looks like a key goes on.

    A first line that something else follows is no more than that line.
    """
    begin = _BEGIN.search(text, at)
    if begin is None:
        return None
    limit = begin.end() + MAX_BLOCK_CHARS
    end, is_open = _end_of_key(text, begin.end(), min(len(text), limit))
    return Block(begin.start(), end, is_open=is_open and len(text) < limit, told_at=begin.start())


def _end_of_key(text: str, at: int, limit: int) -> tuple[int, bool]:
    """Where the key ends, and whether it is the end of the text that ended it."""
    end, seen, first = at, False, at
    while True:
        cut = _BREAK.search(text, at, limit)
        stop = cut.start() if cut else limit
        last = _END.search(text, at, stop)
        if last is not None and (seen or _leads_to_end(text[at : last.start()], is_first=at == first)):
            return last.end(), cut is None
        line = text[at:stop]
        width = _material(line)
        if width:
            end, seen = at + width, True
            if not _TAIL.match(line, width):
                return end, cut is None
        elif cut is not None and not (_SHORT.match(line) or _HEADER.match(line)):
            return end, False
        if cut is None:
            return end, True
        at = cut.end()


def _leads_to_end(text: str, *, is_first: bool) -> bool:
    """Whether a last line follows on what stands before it in its line; two marks side by side are code about keys."""
    return bool(_MATERIAL.search(text)) or (not is_first and bool(_SHORT.match(text)))


def _material(line: str) -> int:
    """How far the key goes in this line; 0 when there is none of it."""
    end = 0
    for found in _MATERIAL.finditer(line):
        if end and any(quote in line[end : found.start()] for quote in "\"'"):
            break
        end = found.end()
    return end
