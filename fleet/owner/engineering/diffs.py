"""The difference of two trees as a text of bounded length, made in a time that no command can stretch."""

from __future__ import annotations

import asyncio

from fleet.kernel.ids import Digest
from fleet.trees.port import BlobStore
from fleet.trees.service import file_text, read_changes
from fleet.trees.text_diff import unified_diff
from fleet.trees.tree import Tree, changed_paths

_FILE_CHARS = 200_000
"""Of one file that is compared."""


async def tree_diff(blobs: BlobStore, old: Digest, new: Digest, *, chars: int) -> str:
    """A unified diff of the two trees within so many characters, in order of path."""
    before, after = await read_changes(blobs, old, new)
    changes = changed_paths(before, after)
    parts, room = list[str](), chars
    for number, change in enumerate(changes):
        if room <= 0:
            parts.append(f"[... {len(changes) - number} more files are left out ...]\n")
            break
        part = await _of_file(blobs, before, after, change.path)
        parts.append(part if len(part) <= room else f"{part[:room]}\n[... the rest of {change.path} is left out ...]\n")
        room -= len(part)
    return "".join(parts)


async def _of_file(blobs: BlobStore, before: Tree, after: Tree, path: str) -> str:
    old = await file_text(blobs, before, path, limit=_FILE_CHARS)
    new = await file_text(blobs, after, path, limit=_FILE_CHARS)
    if (path in before and old is None) or (path in after and new is None):
        return f"--- a/{path}\n+++ b/{path}\n[no text]\n"
    diff = await asyncio.to_thread(
        unified_diff, old or "", new or "", path=path, is_new=path not in before, is_gone=path not in after
    )
    return diff or f"--- a/{path}\n+++ b/{path}\n[only its mode, or no line]\n"
