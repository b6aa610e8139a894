"""Content-addressed file trees: the recorded state of a workspace (RC-36)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from fleet.digest import canonical_json, digest_of
from fleet.errors import InvalidInput
from fleet.ids import Digest

__all__ = ["FileEntry", "Mode", "Tree", "check_path", "decode_tree", "encode_tree", "tree_digest"]

Mode = Literal["100644", "100755", "120000", "160000"]
"""Git's modes: file, executable file, symbolic link (the blob is its target), submodule (the blob is its commit id)."""


class FileEntry(NamedTuple):
    """One file of a tree: its mode and the digest of its bytes in the blob store."""

    mode: Mode
    blob: Digest


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
    parts = path.split("/")
    if not 0 < size <= 4096 or "\0" in path or any(p in ("", ".", "..") or p.lower() == ".git" for p in parts):
        raise InvalidInput(f"{path[:80]!r} is no path inside a repository", path=path[:200])
    return path


def encode_tree(tree: Tree) -> bytes:
    """The canonical bytes of a tree: sorted by path, so equal trees have equal digests."""
    return canonical_json([[check_path(path), entry.mode, entry.blob] for path, entry in sorted(tree.items())])


def tree_digest(tree: Tree) -> Digest:
    """The tree's digest: that of its canonical bytes."""
    return digest_of(encode_tree(tree))


def decode_tree(data: bytes) -> dict[str, FileEntry]:
    """The tree that `encode_tree` wrote; InvalidInput when the bytes are no tree."""
    import json

    try:
        return {check_path(path): FileEntry(mode, Digest(blob)) for path, mode, blob in json.loads(data)}
    except (ValueError, TypeError) as error:
        raise InvalidInput("these bytes are no tree manifest") from error
