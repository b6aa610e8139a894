"""What people see of a story's trees: files, their text, and what differs between two of them. Runs nothing.

Trees are kept byte for byte, and shown without secrets (CX-60).
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.desk.shown_text import is_shown_as, shown_lines, shown_name, shown_patch, shown_text
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest
from fleet.kernel.types import ChangeKind
from fleet.trees.port import BlobStore
from fleet.trees.service import read_changes, read_tree
from fleet.trees.tree import FileEntry, PathChange, Tree, changed_lines, changed_paths

MAX_TEXT = 200_000
"""Characters of a file that is shown or compared; comparing costs the square of what differs."""
MAX_FILES = 300
_COMPARED = 1500
"""Lines that differ at most, so that a comparison ends soon."""
_TOGETHER = 16
"""Files that are read and compared at once: no more of them than these are in memory."""


@dataclass(frozen=True, slots=True)
class FileText:
    """One file; `text` None for what is no text, or is too large to be shown."""

    path: str
    mode: str
    blob: Digest
    size_bytes: int
    text: str | None


@dataclass(frozen=True, slots=True)
class TreeDifference:
    """One path that differs. `patch` is a unified diff, None for what is no text or too large to be compared."""

    path: str
    change: ChangeKind
    added: int
    removed: int
    patch: str | None


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """What differs, by path; `left_out` counts paths over the bound."""

    old: Digest
    new: Digest
    files: tuple[TreeDifference, ...]
    left_out: int


async def file_at(blobs: BlobStore, tree: Digest, path: str) -> FileText:
    """The file of a tree, by its path or as that is shown. ArtifactNotFound when the tree has no such path."""
    path, entry = _find(await read_tree(blobs, tree), path)
    if entry is None or entry.mode == "160000":
        raise ArtifactNotFound(f"tree {tree} has no file {path[:200]!r}", path=path[:200])
    raw = await blobs.get(entry.blob)
    text = _text(raw)
    shown = None if text is None else await asyncio.to_thread(shown_text, text)
    return FileText(shown_name(path), entry.mode, entry.blob, len(raw), shown)


def _find(tree: Tree, name: str) -> tuple[str, FileEntry | None]:
    path = name if name in tree else next((path for path in sorted(tree) if is_shown_as(path, name)), name)
    return path, tree.get(path)


async def tree_changes(blobs: BlobStore, old: Digest, new: Digest, *, path: str | None = None) -> TreeChanges:
    """What the new tree has other than the old one; of one path alone when it is named."""
    before, after = await read_changes(blobs, old, new)
    changes = [c for c in changed_paths(before, after) if path is None or is_shown_as(c.path, path)]
    files: list[TreeDifference] = []
    for start in range(0, min(len(changes), MAX_FILES), _TOGETHER):
        some = changes[start : min(start + _TOGETHER, MAX_FILES)]
        entries = [(before.get(c.path), after.get(c.path)) for c in some]
        content = await _read(blobs, (entry for pair in entries for entry in pair))
        # Comparing takes the processor: beside the loop, which other requests need.
        files += await asyncio.to_thread(_all_compared, some, entries, content)
    return TreeChanges(old, new, tuple(files), max(0, len(changes) - MAX_FILES))


async def _read(blobs: BlobStore, entries: Iterable[FileEntry | None]) -> Mapping[Digest, bytes]:
    # The blob of a submodule is a commit of another repository: there is nothing to read.
    digests = list(dict.fromkeys(entry.blob for entry in entries if entry is not None and entry.mode != "160000"))
    return dict(zip(digests, await blobs.get_many(digests), strict=True))


def _all_compared(
    changes: Sequence[PathChange],
    entries: Sequence[tuple[FileEntry | None, FileEntry | None]],
    content: Mapping[Digest, bytes],
) -> list[TreeDifference]:
    return [
        _compared(change.path, change.change, _side(old, content), _side(new, content))
        for change, (old, new) in zip(changes, entries, strict=True)
    ]


def _side(entry: FileEntry | None, content: Mapping[Digest, bytes]) -> str | None:
    if entry is None:
        return ""
    return None if entry.mode == "160000" else _text(content[entry.blob])


def _text(raw: bytes) -> str | None:
    if len(raw) > 4 * MAX_TEXT or b"\0" in raw:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return text if len(text) <= MAX_TEXT else None


def _compared(path: str, change: ChangeKind, old: str | None, new: str | None) -> TreeDifference:
    path = shown_name(path)
    if old is None or new is None:
        return TreeDifference(path, change, 0, 0, None)
    a, b = old.splitlines(), new.splitlines()
    if _differing(a, b) > _COMPARED and min(len(a), len(b)) > 0:
        return TreeDifference(path, change, len(b), len(a), None)
    lines = changed_lines(old, new)
    sides = ("/dev/null" if change == "added" else f"a/{path}", "/dev/null" if change == "removed" else f"b/{path}")
    patch = shown_patch(difflib.unified_diff(a, b, *sides, lineterm="", n=3), shown_lines(old), shown_lines(new))
    return TreeDifference(path, change, len(lines.added), lines.removed, "\n".join(patch))


def _differing(a: Sequence[str], b: Sequence[str]) -> int:
    """About how many lines the two have not in common, in linear time."""
    lines = set(a)
    return len(b) + len(a) - 2 * min(len(a), sum(line in lines for line in b))
