"""A workspace of 10,000 files of which a run changed ten: writing, reading back, digest and diff against git's."""

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
from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.sandbox.identity import Identity
from fleet.adapters.sandbox.stamps import Stamps
from fleet.adapters.sandbox.workspace import capture_tree, remove_tree, write_tree
from fleet.ids import Digest
from fleet.services.tree_view import tree_changes
from fleet.tools import Tree, encode_tree, tree_digest

__all__ = ["measure"]

FILES, CHANGED, ROUNDS = 10_000, 10, 5
MAX_BYTES = 1 << 30
T = TypeVar("T")
ME = Identity(os.geteuid(), os.getegid(), is_dropped=False)


async def measure(folder: Path) -> list[Figure]:
    """Ours and git's in turn, on the same files; the median of five rounds each."""
    blobs, repository = FileBlobStore(folder / "blobs"), folder / "repository"
    await asyncio.to_thread(_make, repository)
    tree = await _captured(blobs, repository)
    ours: dict[str, list[float]] = {"write": [], "read back": [], "digest": [], "diff": []}
    gits: dict[str, list[float]] = {name: [] for name in ours}
    for number in range(ROUNDS):
        workspace = folder / f"workspace-{number}"
        workspace.mkdir()
        stamps, took = await _timed(lambda w=workspace: write_tree(tree, w, blobs, ME))
        ours["write"].append(took)
        gits["write"].append(_git(repository, "checkout-index", "-a", f"--prefix={folder}/git-{number}/"))
        for place in (workspace, repository):
            _change(place, number)
        left, took = await _timed(lambda w=workspace, s=stamps: _snapshot(blobs, w, before=tree, stamps=s))
        ours["read back"].append(took)
        gits["read back"].append(_git(repository, "add", "-A") + _git(repository, "write-tree"))
        begun = time.perf_counter()
        tree_digest(tree)
        ours["digest"].append(time.perf_counter() - begun)
        gits["digest"].append(_git(repository, "write-tree"))
        old = await blobs.put(encode_tree(tree))
        changes, took = await _timed(lambda o=old, n=left: tree_changes(blobs, o, n))
        assert len(changes.files) == CHANGED, changes.files
        ours["diff"].append(took)
        gits["diff"].append(_git(repository, "diff", "--cached", "HEAD"))
        _git(repository, "reset", "-q", "--hard")
        await asyncio.to_thread(remove_tree, workspace)
        await asyncio.to_thread(remove_tree, folder / f"git-{number}")
    yardsticks = {
        "write": "git checkout-index",
        "read back": "git add -A, write-tree",
        "digest": "git write-tree",
        "diff": "git diff --cached",
    }
    return [
        Figure(f"tree of {FILES:,} files, {name}", median(ours[name]) * 1e3, "ms", yard, median(gits[name]) * 1e3)
        for name, yard in yardsticks.items()
    ]


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
    paths = sorted(folder.glob("package_3/*/*.py"))[:CHANGED]
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
