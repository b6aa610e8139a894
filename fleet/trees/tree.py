"""Content-addressed file trees: the recorded state of a workspace (RC-36)."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest
from fleet.kernel.types import ChangeKind, Frozen

Mode = Literal["100644", "100755", "120000", "160000"]
"""Git's modes: file, executable file, symbolic link (the blob is its target), submodule (the blob is its commit id)."""
MODES: frozenset[str] = frozenset(get_args(Mode))


class FileEntry(NamedTuple):
    """One file of a tree: its mode and the digest of its bytes in the blob store."""

    mode: Mode
    blob: Digest


# A part that is empty, `.`, `..` or `.git` in any case; or NUL. One search a path: trees have tens of thousands.
_FORBIDDEN = re.compile(r"\0|(?:^|/)(?:\.{0,2}|\.git)(?:/|\Z)", re.ASCII | re.IGNORECASE)

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROLS = bytes(range(0x20))
"""With quotation marks and backslashes, all that JSON writes otherwise than as it is."""

Tree = Mapping[str, FileEntry]
"""Repository-relative path with forward slashes -> entry. Directories exist through their files."""


def check_path(path: str) -> str:
    """The path itself when it may name a file of a tree.

    Raises:
        InvalidInput: absolute, empty, over 4,096 bytes, with NUL, `.`, `..` or `.git` components, or not UTF-8.
    """
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= 4096 or _FORBIDDEN.search(path):
        raise InvalidInput(f"{path[:80]!r} is no path inside a repository", path=path[:200])
    return path


def check_paths(paths: Collection[str]) -> None:
    """Return when `check_path` would let each of them pass; raise as it does for the first that it would not."""
    # What can be wrong is looked for in all of them at once, a hundred times faster than in one after the other.
    text = "/" + "/\0/".join(paths) + "/"
    doubts = (
        text.count("\0") >= max(1, len(paths)),
        any(part in text for part in ("//", "/./", "/../")) or "/.git/" in text.lower(),
        max(map(len, paths), default=0) > 1024,
        not text.isascii() and _SURROGATE.search(text),
    )
    if any(doubts):
        for path in paths:
            check_path(path)


def encode_tree(tree: Tree) -> bytes:
    """The canonical bytes of a tree: sorted by path, so equal trees have equal digests."""
    paths = sorted(tree)
    check_paths(paths)
    # The bytes of `canonical_json`, which would look into each of these strings for what has no form in JSON.
    rows = [f'{path}","{(entry := tree[path]).mode}","{entry.blob}' for path in paths]
    data = ('[["' + '"],["'.join(rows) + '"]]').encode() if rows else b"[]"
    if data.count(b'"') == 6 * len(rows) and b"\\" not in data and len(data.translate(None, _CONTROLS)) == len(data):
        return data
    whole = [(path, *tree[path]) for path in paths]
    return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()


def tree_digest(tree: Tree) -> Digest:
    """The tree's digest: that of its canonical bytes."""
    return digest_of(encode_tree(tree))


def decode_tree(data: bytes) -> dict[str, FileEntry]:
    """The tree that `encode_tree` wrote; InvalidInput when the bytes are no tree."""
    try:
        tree = {path: FileEntry(mode, Digest(blob)) for path, mode, blob in json.loads(data)}
        check_paths(tree)
        is_tree = MODES.issuperset({entry.mode for entry in tree.values()})
    except (ValueError, TypeError) as error:
        raise InvalidInput("these bytes are no tree manifest") from error
    if not is_tree:
        raise InvalidInput("these bytes are no tree manifest: a mode is none of git's")
    return tree


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
    position = _first(new, len(new) - tail)
    end = position + 2 if position >= 0 else len(new) - 1
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


class PathChange(Frozen):
    """One path that two trees do not have in common."""

    path: Annotated[str, Field(min_length=1)]
    change: ChangeKind


class LineChanges(NamedTuple):
    """Which lines of the new text are new or changed, by number from 1. It also has how many old ones are gone."""

    added: tuple[int, ...]
    removed: int


def changed_paths(old: Tree, new: Tree) -> list[PathChange]:
    """Every path whose mode or content differs, sorted by path."""
    differing = sorted({path for path, _ in old.items() ^ new.items()})
    return [PathChange(path=path, change=_kind(path, old, new)) for path in differing]


def _kind(path: str, old: Tree, new: Tree) -> ChangeKind:
    if path not in old:
        return "added"
    return "modified" if path in new else "removed"


def changed_lines(old: str, new: str) -> LineChanges:
    """Which lines of the new text the old one lacks; lines end at newlines alone, as compilers count them."""
    before, after = _lines(old), _lines(new)
    # What is equal at both ends is most of a file, and costs the matcher the square of it.
    head = _common(before, after)
    before, after = before[head:], after[head:]
    tail = _common(before[::-1], after[::-1])
    before, after = before[: len(before) - tail], after[: len(after) - tail]
    added: list[int] = []
    removed = 0
    for tag, a, b, c, d in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag != "equal":
            added += range(head + c + 1, head + d + 1)
            removed += b - a
    return LineChanges(tuple(added), removed)


def _lines(text: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
