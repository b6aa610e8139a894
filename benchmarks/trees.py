"""A workspace of 10,000 files of which a run changed ten, against git in the same rounds on the same files.

| figure | what we do | yardstick |
|---|---|---|
| write | every file of a stored tree into an empty folder, owners, modes and digests checked | `git checkout-index` |
| read back | which files changed; their bytes and the new tree in the store, on disk | `git add -A`, `git write-tree` |
| digest | listing and digest of the tree with its ten new entries | that `git write-tree` |
| diff | from the digests of two stored trees to the patch of each changed file | `git diff --cached HEAD` |

The diff is one of recorded states, so git's is that of its index; `git diff` of the work folder does what our reading
back and diff do together. Git's processes start and end in their times, in about 3 ms each, and its objects are not
synced to the disk (its default); ours are. The ten files lie in ten folders all over the tree. Folders are removed only
at the end: a file system without a journal is many times slower at making files while it remembers removed ones.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.figures import Figure
from fleet.desk.tree_view import tree_changes
from fleet.kernel.ids import Digest
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.stamps import Stamps
from fleet.sandbox.folders.tree_reader import capture_tree
from fleet.sandbox.folders.tree_writer import write_tree
from fleet.trees.files import FileBlobStore
from fleet.trees.tree import Tree, decode_tree, encode_tree, tree_digest

FILES, CHANGED, ROUNDS = 10_000, 10, 5
MAX_BYTES = 1 << 30
YARDSTICKS = {
    "write": "git checkout-index",
    "read back": "git add -A, write-tree",
    "digest": "git write-tree",
    "diff": "git diff --cached",
}
T = TypeVar("T")
ME = Identity(os.geteuid(), os.getegid(), is_dropped=False)


async def measure(folder: Path) -> list[Figure]:
    """Ours and git's in turn, on the same files; the median of five rounds each."""
    blobs, repository = FileBlobStore(folder / "blobs"), folder / "repository"
    await asyncio.to_thread(_make, repository)
    tree = await _captured(blobs, repository)
    old = await blobs.put(encode_tree(tree))
    took: dict[str, list[float]] = {name: [] for name in YARDSTICKS}
    gits: dict[str, list[float]] = {name: [] for name in YARDSTICKS}
    for number in range(ROUNDS):
        # Each is first in every other round: the second finds a disk that is busy with what the first wrote.
        if number % 2:
            git = _git_round(folder, number)
            ours = await _round(folder / f"workspace-{number}", number, tree, old, blobs)
        else:
            ours = await _round(folder / f"workspace-{number}", number, tree, old, blobs)
            git = _git_round(folder, number)
        for name, one, other in zip(YARDSTICKS, ours, git, strict=True):
            took[name].append(one)
            gits[name].append(other)
    return [
        Figure(f"tree of {FILES:,} files, {name}", median(took[name]) * 1e3, "ms", yard, median(gits[name]) * 1e3)
        for name, yard in YARDSTICKS.items()
    ]


async def _round(workspace: Path, number: int, tree: Tree, old: Digest, blobs: FileBlobStore) -> tuple[float, ...]:
    """Seconds of each figure."""
    workspace.mkdir()
    stamps, written = await _timed(lambda: write_tree(tree, workspace, blobs, ME))
    _change(workspace, number)
    new, read = await _timed(lambda: _snapshot(blobs, workspace, before=tree, stamps=stamps))
    left = decode_tree(await blobs.get(new))
    begun = time.perf_counter()
    assert tree_digest(left) == new
    digested = time.perf_counter() - begun
    changes, compared = await _timed(lambda: tree_changes(blobs, old, new))
    assert len(changes.files) == CHANGED, changes.files
    return written, read, digested, compared


def _git_round(folder: Path, number: int) -> tuple[float, ...]:
    repository = folder / "repository"
    written = _git(repository, "checkout-index", "-a", f"--prefix={folder}/git-{number}/")
    _change(repository, number)
    added, digested = _git(repository, "add", "-A"), _git(repository, "write-tree")
    compared = _git(repository, "diff", "--cached", "HEAD")
    _git(repository, "reset", "-q", "--hard")
    return written, added + digested, digested, compared


async def _captured(blobs: FileBlobStore, folder: Path) -> Tree:
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return (await capture_tree(root, blobs, before={}, discard=(), max_bytes=MAX_BYTES)).tree
    finally:
        os.close(root)


async def _snapshot(blobs: FileBlobStore, folder: Path, *, before: Tree, stamps: Stamps) -> Digest:
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = await capture_tree(root, blobs, before=before, discard=(), max_bytes=MAX_BYTES, stamps=stamps)
        return await blobs.put(encode_tree(found.tree))
    finally:
        os.close(root)


def _make(repository: Path) -> None:
    for number in range(FILES):
        path = repository / f"package_{number // 400}" / f"part_{number % 400 // 20}" / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Module {number}."""\n' + "".join(f"VALUE_{n} = {number * n}\n" for n in range(40)))
    _git(repository, "init", "-q")
    _git(repository, "add", "-A")
    _git(repository, "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "-m", "all")


def _change(folder: Path, number: int) -> None:
    paths = sorted(folder.glob("package_*/part_7/*0.py"))[:CHANGED]
    assert len(paths) == CHANGED
    for path in paths:
        with path.open("a") as file:
            file.write(f"CHANGED = {number}\n")


def _git(repository: Path, *arguments: str) -> float:
    """Seconds that the command took."""
    begun = time.perf_counter()
    subprocess.run(["git", "-C", str(repository), *arguments], check=True, capture_output=True)
    return time.perf_counter() - begun


async def _timed(work: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    begun = time.perf_counter()
    return await work(), time.perf_counter() - begun
