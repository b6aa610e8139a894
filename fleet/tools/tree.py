"""Content-addressed file trees: the recorded state of a workspace (RC-36)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from fleet.digest import digest_of
from fleet.errors import InvalidInput
from fleet.ids import Digest

__all__ = ["FileEntry", "Mode", "Tree", "check_path", "decode_tree", "encode_tree", "tree_digest"]

Mode = Literal["100644", "100755", "120000", "160000"]
"""Git's modes: file, executable file, symbolic link (the blob is its target), submodule (the blob is its commit id)."""


class FileEntry(NamedTuple):
    """One file of a tree: its mode and the digest of its bytes in the blob store."""

    mode: Mode
    blob: Digest


# A part that is empty, `.`, `..` or `.git` in any case; or NUL. One search a path: trees have tens of thousands.
_FORBIDDEN = re.compile(r"\0|(?:^|/)(?:\.{0,2}|\.git)(?:/|\Z)", re.ASCII | re.IGNORECASE)

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


def encode_tree(tree: Tree) -> bytes:
    """The canonical bytes of a tree: sorted by path, so equal trees have equal digests."""
    rows = [(check_path(path), entry.mode, entry.blob) for path, entry in sorted(tree.items())]
    # The bytes of `canonical_json`, which would look into each of these strings for what has no form in JSON.
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()


def tree_digest(tree: Tree) -> Digest:
    """The tree's digest: that of its canonical bytes."""
    return digest_of(encode_tree(tree))


def decode_tree(data: bytes) -> dict[str, FileEntry]:
    """The tree that `encode_tree` wrote; InvalidInput when the bytes are no tree."""
    try:
        return {check_path(path): FileEntry(mode, Digest(blob)) for path, mode, blob in json.loads(data)}
    except (ValueError, TypeError) as error:
        raise InvalidInput("these bytes are no tree manifest") from error
