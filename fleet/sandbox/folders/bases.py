# ruff: noqa: PTH101
# Everything here works on descriptors, which pathlib does not know.
"""Folders that hold one whole tree each, read-only below the workspaces of all engineers who began with it.

A base is written once for each tree and sandbox user, and is found again by the next supervisor of the machine as long
as that runs: nothing is synced, so what an earlier boot left is removed. Its files belong to the sandbox user, because
a file of another user could not be copied up (EOVERFLOW); no process of that user sees them but through an overlay.

    bases-<boot>/<uid>/<digest>/files   the tree
                               /lock    held shared while a supervisor uses it, exclusively to remove it
                               /size    bytes on the disk
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import stat
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fleet.kernel.ids import Digest
from fleet.sandbox.backends.identity import Identity, boot_id
from fleet.sandbox.folders.beneath import walk_beneath
from fleet.sandbox.folders.tree_reader import is_skipped
from fleet.sandbox.folders.tree_writer import write_tree
from fleet.sandbox.folders.workspace import remove_shared_tree
from fleet.trees.delta import Rows
from fleet.trees.port import BlobStore
from fleet.trees.service import read_tree
from fleet.trees.tree import Tree


@dataclass(frozen=True, slots=True)
class BaseTree:
    """A whole tree, and what is asked of it over and over."""

    digest: Digest
    tree: Tree
    paths: Sequence[str]
    """Sorted."""
    folders: Mapping[str, int]
    """Files below each folder, also in folders within it."""
    submodules: frozenset[str]
    unseen: frozenset[str]
    """Submodules, and files that nobody looks at after a run: in caches."""

    def below(self, folder: str) -> Sequence[str]:
        """The paths in this folder and in folders within it."""
        return self.paths[bisect_left(self.paths, f"{folder}/") : bisect_left(self.paths, f"{folder}0")]

    def files_below(self, folder: str, rows: Rows) -> int:
        """How many files the tree with these rows has there."""
        start = f"{folder}/"
        changed = sum(
            (entry is not None) - (path in self.tree) for path, entry in rows.items() if path.startswith(start)
        )
        return self.folders.get(folder, 0) + changed


async def read_base(blobs: BlobStore, digest: Digest) -> BaseTree:
    """The tree of this digest."""
    return await asyncio.to_thread(_of, digest, await read_tree(blobs, digest))


def _of(digest: Digest, tree: Tree) -> BaseTree:
    folders = Counter[str]()
    for path, files in Counter(path.rpartition("/")[0] for path in tree).items():
        folder = path
        while folder:
            folders[folder] += files
            folder = folder.rpartition("/")[0]
    submodules = frozenset(path for path, entry in tree.items() if entry.mode == "160000")
    unseen = submodules.union(path for path in tree if is_skipped(path, ()))
    return BaseTree(digest, tree, sorted(tree), folders, submodules, unseen)


class Base(NamedTuple):
    """A base that lies on this node."""

    files: Path
    size_bytes: int
    lock: int
    """Descriptor; whoever holds the base closes it."""


class BaseFolders:
    """The bases of one node. Safe beside other supervisors with the same folder.

    Args:
        root: folder that sandbox users can pass.
        me: name of this process, as `process_name` gives it.
    """

    def __init__(self, root: Path, blobs: BlobStore, me: str) -> None:
        self._all, self._blobs, self._me = root, blobs, me
        self._root = root / f"bases-{boot_id()}"

    async def opened(self, base: BaseTree, who: Identity) -> Base:
        """The base lies there whole, and stays until its lock is closed.

        Raises:
            OSError: the disk is full, or the folder cannot be used.
            ArtifactNotFound: a blob of the tree is not in the store.
        """
        place = self._root / str(who.uid) / base.digest.hex
        tree = await asyncio.to_thread(self._found, place, base)
        return tree if tree is not None else await self._written(place, base, who)

    def _found(self, place: Path, base: BaseTree) -> Base | None:
        lock = _locked(place, fcntl.LOCK_SH)
        if lock is None:
            return None
        try:
            size = int((place / "size").read_text(encoding="ascii"))
            # One that lost files, by whatever hand, is made anew.
            is_whole = _count(place / "files") == len(base.tree)
        except (OSError, ValueError):
            is_whole, size = False, 0
        if is_whole:
            with contextlib.suppress(OSError):
                os.utime(place)
            return Base(place / "files", size, lock)
        os.close(lock)
        self._dropped(place)
        return None

    async def _written(self, place: Path, base: BaseTree, who: Identity) -> Base:
        new = place.with_name(f".{self._me}-{place.name[:16]}")
        await asyncio.to_thread(remove_shared_tree, new)
        files = new / "files"
        for folder in (self._root, place.parent, new):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            folder.chmod(0o711)
        try:
            files.mkdir(mode=0o700)
            await write_tree(base.tree, files, self._blobs, who)
            size = await asyncio.to_thread(size_below, files)
            (new / "size").write_text(str(size), encoding="ascii")
            lock = os.open(new / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_SH)
        except BaseException:
            await asyncio.to_thread(remove_shared_tree, new)
            raise
        try:
            new.rename(place)
        except OSError:
            # Another supervisor was faster; its folder holds the same.
            os.close(lock)
            await asyncio.to_thread(remove_shared_tree, new)
            tree = await asyncio.to_thread(self._found, place, base)
            if tree is None:
                raise
            return tree
        return Base(place / "files", size, lock)

    def unused(self) -> list[tuple[Path, int]]:
        """The bases that no supervisor uses, with their sizes, the one that was used last coming last."""
        rows: list[tuple[float, Path, int]] = []
        for place in self._root.glob("*/[0-9a-f]*"):
            with contextlib.suppress(OSError, ValueError), _exclusively(place) as is_ours:
                if is_ours:
                    size = int((place / "size").read_text(encoding="ascii"))
                    rows.append((place.stat().st_mtime, place, size))
        return [(place, size) for _, place, size in sorted(rows)]

    def users_of(self, digest: Digest) -> list[int]:
        """The users to whom a base of this tree belongs."""
        return [int(place.parent.name) for place in self._root.glob(f"[0-9]*/{digest.hex}")]

    def remove(self, place: Path) -> bool:
        """The base is gone; False when somebody uses it."""
        with _exclusively(place) as is_ours:
            if is_ours:
                self._dropped(place)
            return is_ours

    def sweep(self, is_alive: Callable[[str], bool]) -> int:
        """What was left half made or half removed, and what an earlier boot left, is gone; how many they were."""
        removed = 0
        for other in self._all.glob("bases-*"):
            if other != self._root:
                removed += remove_shared_tree(other)
        for place in self._root.glob("*/.*"):
            if not is_alive("-".join(place.name[1:].split("-")[:3])):
                removed += remove_shared_tree(place)
        return removed

    def _dropped(self, place: Path) -> None:
        # Renamed first: what has its name is whole.
        gone = place.with_name(f".{self._me}-gone-{place.name[:16]}")
        with contextlib.suppress(FileNotFoundError):
            remove_shared_tree(gone)
            place.rename(gone)
            remove_shared_tree(gone)


def _locked(place: Path, how: int) -> int | None:
    """A descriptor with the lock; None when there is no such base, or another holder is in the way."""
    try:
        lock = os.open(place / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
        # It may have been removed between the opening and the locking.
        if os.fstat(lock).st_ino == (place / "lock").stat().st_ino:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


@contextlib.contextmanager
def _exclusively(place: Path) -> Generator[bool]:
    lock = _locked(place, fcntl.LOCK_EX)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _count(files: Path) -> int:
    """Files, links and submodules that lie there, as a tree counts them."""
    root = os.open(files, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        filled = set[str]()
        folders, count = list[str](), 0
        for path, status in walk_beneath(root):
            filled.add(path.rpartition("/")[0])
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
            else:
                count += 1
        return count + sum(folder not in filled for folder in folders)
    finally:
        os.close(root)


def size_below(folder: Path) -> int:
    """Bytes on the disk of all that lies in the folder."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return sum(status.st_blocks * 512 for _, status in walk_beneath(root))
    finally:
        os.close(root)
