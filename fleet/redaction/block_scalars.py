"""Secrets of YAML that are written as a block of lines below their name (CX-70)."""

from __future__ import annotations

import re

from fleet.redaction.private_keys import MAX_BLOCK_CHARS, Block
from fleet.redaction.secret_names import names_a_secret
from fleet.redaction.secret_values import is_placeholder

_HEAD = re.compile(
    r"[ \t]*(?:[+>-][ \t]*)?(?:-[ \t]+)?[\"']?(?P<name>[\w.-]{1,80})[\"']?:[ \t]{1,8}[|>][+-]?\d?[ \t]*\r?\n"
)
_MARK = re.compile(r": {1,8}[|>]")


def next_scalar(text: str, at: int) -> Block | None:
    """The first block scalar from `at` on whose name is that of a secret; its lines without their first indent."""
    while (found := _MARK.search(text, at)) is not None:
        mark = found.start()
        line = text.rfind("\n", max(0, mark - 120), mark) + 1
        head = _HEAD.match(text, line) if line or mark < 120 else None
        if head is not None and head.end() > mark and names_a_secret(head["name"]):
            block = _lines_below(text, head.end(), indent=head.start("name") - line, told_at=line)
            if block is not None:
                return block
        at = found.end()
    return None


def _lines_below(text: str, at: int, *, indent: int, told_at: int) -> Block | None:
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
    if first < 0 or is_placeholder(text[first:end]):
        return Block(at, at, is_open=True, told_at=told_at) if is_open else None
    return Block(first, end, is_open=is_open, told_at=told_at)
