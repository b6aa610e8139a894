"""What a run left in its folder is read back as a tree (RC-36)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest
from fleet.sandbox.backends.stamps import NO_STAMPS, Stamps, is_as_stamped
from fleet.sandbox.folders.beneath import open_beneath, read_beneath, walk_beneath
from fleet.sandbox.folders.workspace import MAX_ENTRIES, is_valid, mode_of
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Mode, Tree

CACHE_NAMES = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".coverage"})
"""Names that tools leave behind; they are not recorded wherever they lie."""
_BATCH_BYTES = 16 << 20
_BATCH_FILES = 256
_AT_ONCE = 16


class WorkspaceFull(Exception):
    """The run left more than its disk limit; never leaves the backend, which turns it into `disk_limit`."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The recorded tree, and how many entries could not be part of one (pipes, sockets, names that are not UTF-8)."""

    tree: Tree
    left_out: int


class FoundFile(NamedTuple):
    """A file or link that must be read."""

    path: str
    mode: Mode
    size: int


@dataclass(slots=True)
class _Survey:
    """What lies in a folder; `size` in bytes of content."""

    unchanged: set[str] = field(default_factory=set[str])
    others: list[FoundFile] = field(default_factory=list[FoundFile])
    size: int = 0
    left_out: int = 0


async def capture_tree(
    root: int,
    blobs: BlobStore,
    *,
    before: Tree,
    discard: Collection[str],
    max_bytes: int,
    stamps: Stamps = NO_STAMPS,
) -> Capture:
    """The files and links below `root` as a tree, all their bytes in the blob store.

    `.git`, caches and the top-level `discard` names are not read; what the tree `before` had there, and its
    submodules, go over unchanged. So does each file that still has its stamp, without being read.

    Args:
        stamps: what `write_tree` said when it wrote `before` here.

    Raises:
        WorkspaceFull: more than `max_bytes` bytes of content or MAX_ENTRIES entries.
    """
    submodules = frozenset(path for path, entry in before.items() if entry.mode == "160000")
    left = await asyncio.to_thread(_survey, root, discard, submodules, stamps)
    tree = dict(before)
    for path in before.keys() - left.unchanged:
        if path not in submodules and not is_skipped(path, discard):
            del tree[path]
    if left.size > max_bytes or len(tree) + len(left.others) > MAX_ENTRIES:
        raise WorkspaceFull(f"the run left more than {max_bytes} bytes or {MAX_ENTRIES} files")
    stored = {entry.blob for entry in before.values()}
    tree |= await read_files(root, left.others, blobs, known=stored, max_bytes=max_bytes)
    return Capture(tree, left.left_out)


async def read_files(
    root: int, files: Sequence[FoundFile], blobs: BlobStore | None, *, known: Collection[Digest] = (), max_bytes: int
) -> dict[str, FileEntry]:
    """The entry of each, when the store has its bytes.

    Args:
        blobs: None reads them and stores nothing.
        known: what the store has already.
    """
    tree: dict[str, FileEntry] = {}
    for batch in _batches(files):
        read = await asyncio.to_thread(_read_batch, root, batch, max_bytes)
        if blobs is not None:
            await _store(read, known, blobs)
        tree |= {path: entry for path, entry, _ in read}
    return tree


def _survey(root: int, discard: Collection[str], submodules: frozenset[str], stamps: Stamps) -> _Survey:
    def enters(folder: str) -> bool:
        return folder not in submodules and not is_skipped(folder, discard)

    survey = _Survey()
    unchanged, size = survey.unchanged, 0
    for path, status in walk_beneath(root, repair=True, max_entries=MAX_ENTRIES * 2, enters=enters):
        if path in stamps and is_as_stamped(status, stamps[path]):
            unchanged.add(path)
            size += status.st_size
        elif not stat.S_ISDIR(status.st_mode) and enters(path):
            _add(survey, path, status)
    survey.size += size
    return survey


def _add(survey: _Survey, path: str, status: os.stat_result) -> None:
    mode = mode_of(status)
    if mode is None or not is_valid(path):
        survey.left_out += 1
        return
    survey.others.append(FoundFile(path, mode, status.st_size))
    survey.size += status.st_size


def is_skipped(path: str, discard: Collection[str]) -> bool:
    """Whether nobody looks at what lies at the path: repositories, caches, top-level names to discard."""
    parts = path.split("/")
    if parts[0] in discard or not CACHE_NAMES.isdisjoint(parts):
        return True
    return ".git" in path.lower() and any(part.lower() == ".git" for part in parts)


def _batches(files: Sequence[FoundFile]) -> Iterator[list[FoundFile]]:
    batch: list[FoundFile] = []
    size = 0
    for one in files:
        batch.append(one)
        size += one.size
        if size > _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_batch(root: int, batch: Sequence[FoundFile], max_bytes: int) -> list[tuple[str, FileEntry, bytes]]:
    read: list[tuple[str, FileEntry, bytes]] = []
    for path, mode, _ in batch:
        content = _content(root, path, mode, max_bytes)
        read.append((path, FileEntry(mode, digest_of(content)), content))
    return read


def _content(root: int, path: str, mode: Mode, max_bytes: int) -> bytes:
    folder, _, name = path.rpartition("/")
    parent = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if mode == "120000":
            return os.fsencode(os.readlink(name, dir_fd=parent))  # noqa: PTH115
        return read_beneath(parent, name, max_bytes=max_bytes)
    finally:
        os.close(parent)


async def _store(read: Sequence[tuple[str, FileEntry, bytes]], stored: Collection[Digest], blobs: BlobStore) -> None:
    new = list({entry.blob: content for _, entry, content in read if entry.blob not in stored}.values())
    # A store waits for its disk with each of them, and the disk takes several at once.
    for start in range(0, len(new), _AT_ONCE):
        await asyncio.gather(*map(blobs.put, new[start : start + _AT_ONCE]))
