"""Content-addressed file trees: the recorded state of a workspace (RC-36)."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple, get_args

from fleet.digest import digest_of
from fleet.errors import InvalidInput
from fleet.ids import Digest

__all__ = ["FileEntry", "Mode", "Tree", "check_path", "check_paths", "decode_tree", "encode_tree", "tree_digest"]

Mode = Literal["100644", "100755", "120000", "160000"]
"""Git's modes: file, executable file, symbolic link (the blob is its target), submodule (the blob is its commit id)."""
_MODES: frozenset[str] = frozenset(get_args(Mode))


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
        is_tree = _MODES.issuperset({entry.mode for entry in tree.values()})
    except (ValueError, TypeError) as error:
        raise InvalidInput("these bytes are no tree manifest") from error
    if not is_tree:
        raise InvalidInput("these bytes are no tree manifest: a mode is none of git's")
    return tree
