"""Secrets of several lines: private keys (CX-62), and blocks of YAML below the name of a secret (CX-70)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from fleet.redaction.secret_names import names_a_secret
from fleet.redaction.secret_values import is_placeholder

MAX_BLOCK_CHARS = 64 << 10
"""A block is looked at so far behind its first line and no further (CX-75)."""
_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|Private-Lines: \d{1,4}\b")
_END = re.compile(r"-----END (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: ?[0-9a-f]*")
_MATERIAL = re.compile(r"[A-Za-z0-9+/=]{32,}")
_BREAK = re.compile(r"\\+[nr]|\r?\n")
_SHORT = re.compile(r"[\s>+|#*\-\"'bBrRuU(.,;\\]*[A-Za-z0-9+/=]{0,31}[\\\"',;)\s]*\Z")
_HEADER = re.compile(r"[\s>+|#*\-\"']*(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID)[:,]")
_TAIL = re.compile(r"[\\\"',;)\s+]*\Z")
_SCALAR = re.compile(
    r"[ \t]*(?:[+>-][ \t]*)?(?:-[ \t]+)?[\"']?(?P<name>[\w.-]{1,80})[\"']?:[ \t]{1,8}[|>][+-]?\d?[ \t]*\r?\n"
)
_SCALAR_MARK = re.compile(r": {1,8}[|>]")


class SecretBlock(NamedTuple):
    """Where a secret of several lines stands, and where the text begins that tells so.

    `is_open` when text that is still to come may belong to it; without an extent it is only a beginning so far. Without
    `is_secret` all of its lines together tell that it holds none, and a part of them may tell something else.
    """

    start: int
    end: int
    is_open: bool
    told_at: int
    is_secret: bool = True


def blocks(text: str) -> Iterable[tuple[SecretBlock, str]]:
    """The blocks with their class, in no order, those that hold no secret among them."""
    for look, kind in ((next_key, "PRIVATE_KEY"), (next_scalar, "KEY_VALUE")):
        for block in each_block(look, text):
            yield block, kind


def each_block(look: Callable[[str, int], SecretBlock | None], text: str) -> Iterable[SecretBlock]:
    """The blocks of one kind, in order."""
    at = 0
    while (block := look(text, at)) is not None:
        yield block
        # Within a block that holds no secret there may be one that does.
        at = block.end if block.is_secret else block.start


def next_key(text: str, at: int) -> SecretBlock | None:
    """The first private key from `at` on: up to its last line, or as far as what looks like a key goes on.

    A first line that something else follows is no more than that line.
    """
    begin = _BEGIN.search(text, at)
    if begin is None:
        return None
    limit = begin.end() + MAX_BLOCK_CHARS
    end, is_open = _end_of_key(text, begin.end(), min(len(text), limit))
    return SecretBlock(begin.start(), end, is_open=is_open and len(text) < limit, told_at=begin.start())


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
    """Says whether a last line follows on what stands before it in its line.

    Two marks side by side are code about keys.
    """
    return bool(_MATERIAL.search(text)) or (not is_first and bool(_SHORT.match(text)))


def _material(line: str) -> int:
    """How far the key goes in this line; 0 when there is none of it."""
    end = 0
    for match in _MATERIAL.finditer(line):
        if end and any(quote in line[end : match.start()] for quote in "\"'"):
            break
        end = match.end()
    return end


def next_scalar(text: str, at: int) -> SecretBlock | None:
    """The first block scalar from `at` on whose name is that of a secret; its lines without their first indent."""
    while (match := _SCALAR_MARK.search(text, at)) is not None:
        mark = match.start()
        line = text.rfind("\n", max(0, mark - 120), mark) + 1
        head = _SCALAR.match(text, line) if line or mark < 120 else None
        if head is not None and head.end() > mark and names_a_secret(head["name"]):
            block = _lines_below(text, head.end(), indent=head.start("name") - line, told_at=line)
            if block is not None:
                return block
        at = match.end()
    return None


def _lines_below(text: str, at: int, *, indent: int, told_at: int) -> SecretBlock | None:
    first, end, limit = -1, -1, at + MAX_BLOCK_CHARS
    is_open = True
    while at < min(len(text), limit):
        stop = text.find("\n", at, limit)
        is_whole = stop >= 0
        stop = stop if is_whole else min(len(text), limit)
        line = text[at:stop].rstrip()
        depth = len(line) - len(line.lstrip(" \t+>"))
        if line and depth <= indent:
            is_open = not is_whole
            break
        if line:
            first, end = (at + depth if first < 0 else first), at + len(line)
        at = stop + 1
    is_open = is_open and len(text) < limit
    if first < 0:
        return SecretBlock(at, at, is_open=True, told_at=told_at) if is_open else None
    is_secret = not is_placeholder(text[first:end])
    return SecretBlock(first, end, is_open=is_open, told_at=told_at, is_secret=is_secret)
