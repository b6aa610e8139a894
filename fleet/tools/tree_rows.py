"""The rows in which two listings of trees differ, found without reading those that they share.

A listing is the canonical JSON of `[[path, mode, digest], ...]`, sorted by path (`encode_tree`). Two of them are
compared as bytes, first at both ends, then row by row, so that following some changed files costs little in a tree of
any size.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["differing_rows"]

_BETWEEN = b'"],["'
"""Stands between two rows. Within a text JSON writes a backslash before a quotation mark, so that only the path `],[`
looks the same, and before that one there is a bracket. Whoever looks from the start finds the row's end before it."""


def differing_rows(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The rows of each listing that the other has not, as listings of their own."""
    before, after = (_rows(part) for part in _without_ends(old, new))
    shared = set(before).intersection(after)
    return _listing(row for row in before if row not in shared), _listing(row for row in after if row not in shared)


def _rows(listing: bytes) -> list[bytes]:
    """Each row without the brackets and quotation marks around it."""
    return listing[3:-3].split(_BETWEEN) if len(listing) > 2 else []


def _listing(rows: Iterable[bytes]) -> bytes:
    joined = _BETWEEN.join(rows)
    return b'[["' + joined + b'"]]' if joined else b"[]"


def _without_ends(old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The part of each listing that holds every row in which they differ, as listings of their own."""
    least = min(len(old), len(new))
    before = _last(new, _shared(old, new, least))
    start = before + 3 if before >= 0 else 1
    # What is shared at the end may reach back to the last shared row at most, or rows would be counted twice.
    tail = _shared_end(old, new, least - max(before, 1))
    found = _first(new, len(new) - tail)
    end = found + 2 if found >= 0 else len(new) - 1
    return b"[" + old[start : end + len(old) - len(new)] + b"]", b"[" + new[start:end] + b"]"


def _last(rows: bytes, end: int) -> int:
    at = rows.rfind(_BETWEEN, 0, end)
    return _last(rows, at) if at > 0 and rows[at - 1 : at] == b"[" else at


def _first(rows: bytes, start: int) -> int:
    at = rows.find(_BETWEEN, start)
    return _first(rows, at + 1) if at > 0 and rows[at - 1 : at] == b"[" else at


def _shared(old: bytes, new: bytes, most: int) -> int:
    """How many bytes are the same from the start on."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if old[least:middle] == new[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least


def _shared_end(old: bytes, new: bytes, most: int) -> int:
    """How many bytes are the same at the end."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if old[len(old) - middle : len(old) - least] == new[len(new) - middle : len(new) - least]:
            least = middle
        else:
            most = middle - 1
    return least
