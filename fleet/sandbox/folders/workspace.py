# ruff: noqa: PTH118, PTH211, PTH123, PTH108, PTH208, PTH101, PTH104, PTH106
# Everything here works on descriptors, which pathlib does not know.
"""The folder of one run: how much lies in it, what it gives back beside a tree, and its removal (check 43, S6)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from fleet.kernel.errors import FleetError, InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Artifact
from fleet.redaction.redact_json import redact_report
from fleet.sandbox.folders.beneath import TooLarge, open_beneath, read_beneath, walk_beneath
from fleet.trees.port import BlobStore
from fleet.trees.tree import Mode, check_path

MAX_ENTRIES = 200_000
MAX_ARTIFACT_BYTES = 512 << 20
MAX_ALL_ARTIFACTS_BYTES = 1 << 30
MAX_ARTIFACTS = 1_000
NO_ROOM = 1 << 62
FREE_FLOOR_BYTES = 64 << 20
"""Of the disk, which no run may use."""
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAX_PATH_BYTES = 4_000


def disk_usage(root: int, *, repair: bool = False) -> int:
    """Bytes below the folder as the disk counts them.

    NO_ROOM, which is over every limit, when there are MAX_ENTRIES entries, a path so long that no walk can follow it,
    or hardly any room left on the disk.
    """
    total = 0
    # A descriptor of its own: the walk may outlive the run that it watches.
    root = os.dup(root)
    try:
        if not has_room(root):
            return NO_ROOM
        for count, (path, status) in enumerate(walk_beneath(root, repair=repair, max_entries=MAX_ENTRIES), 1):
            total += status.st_blocks * 512
            if count >= MAX_ENTRIES or len(os.fsencode(path)) > MAX_PATH_BYTES:
                return NO_ROOM
    finally:
        os.close(root)
    return total


def is_small(root: int) -> bool:
    """Whether a disk that is full is so without what lies below the folder."""
    if has_room(root):
        return False
    entries = walk_beneath(root, max_entries=MAX_ENTRIES)
    return sum(status.st_blocks * 512 for _, status in entries) < FREE_FLOOR_BYTES


def has_room(root: int) -> bool:
    """Whether the disk of the folder has more free than nobody may use."""
    disk = os.fstatvfs(root)
    return disk.f_bavail * disk.f_frsize >= FREE_FLOOR_BYTES


def free_bytes(folder: Path) -> int:
    """What is left on the disk of the folder, or of the place where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def no_room(folder: Path) -> SandboxUnavailable:
    """The error of a run that cannot be held because the disk of the folder is full."""
    free = free_bytes(folder)
    return SandboxUnavailable(
        f"the disk of {folder} is full: {free >> 20} MiB are left, and a run starts with {FREE_FLOOR_BYTES >> 20} or "
        "more: make room on it; what is on record is kept, and the work goes on from there",
        missing="disk",
        free_bytes=free,
    )


def mode_of(status: os.stat_result) -> Mode | None:
    """The mode of a file or link in a tree; None for what no tree can hold."""
    if stat.S_ISLNK(status.st_mode):
        return "120000"
    if not stat.S_ISREG(status.st_mode):
        return None
    return "100755" if status.st_mode & stat.S_IXUSR else "100644"


def is_valid(path: str) -> bool:
    """Whether a tree may have a file of this path."""
    try:
        check_path(path)
    except InvalidInput:
        return False
    return True


async def store_artifacts(root: int, paths: Sequence[str], blobs: BlobStore) -> tuple[Artifact, ...]:
    """The declared outputs: files by digest, folders by their files, what is missing as missing (RC-23, RC-33)."""
    artifacts: list[Artifact] = []
    left = MAX_ALL_ARTIFACTS_BYTES
    for path in _expanded(root, paths):
        artifact = await _store(root, path, min(left, MAX_ARTIFACT_BYTES), blobs)
        left -= artifact.size_bytes if artifact.blob else 0
        artifacts.append(artifact)
    return tuple(artifacts)


def _expanded(root: int, paths: Sequence[str]) -> list[str]:
    expanded: dict[str, None] = {}
    for path in paths:
        try:
            folder = open_beneath(root, check_path(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            expanded[path] = None
            continue
        try:
            inside = [p for p, status in walk_beneath(folder, repair=True) if mode_of(status) in ("100644", "100755")]
        finally:
            os.close(folder)
        expanded.update(dict.fromkeys(f"{path}/{name}" for name in sorted(inside) if is_valid(name)))
    return list(expanded)[:MAX_ARTIFACTS]


async def _store(root: int, path: str, max_bytes: int, blobs: BlobStore) -> Artifact:
    with contextlib.suppress(OSError):
        size = _size_of(root, path)
        if size > max_bytes:
            return Artifact(path=path, size_bytes=size, truncated=True)
    try:
        content = read_beneath(root, path, max_bytes=max_bytes)
    except (FleetError, TooLarge):
        return Artifact(path=path)
    # Before it is stored: what is stored once stays as it is.
    content = await asyncio.to_thread(redact_report, path, content)
    return Artifact(path=path, blob=await blobs.put(content), size_bytes=len(content))


def _size_of(root: int, path: str) -> int:
    descriptor = open_beneath(root, path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def remove_tree(path: Path) -> bool:
    """Nothing is left at `path`, however deep, unreadable or oddly named its content; False when nothing was there.

    Each folder is moved up beside its parent before it is emptied, so that depth costs no descriptors and no stack.
    """
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        numbers = itertools.count()
        for name in _sorted_out(top, top, numbers):
            waiting = [name]
            while waiting:
                waiting.extend(_empty(top, folder := waiting.pop(), numbers))
                os.rmdir(folder, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()
    return True


def remove_shared_tree(path: Path) -> bool:
    """As `remove_tree`, of a folder that another process may be removing too; False when nothing was there."""
    while True:
        try:
            return remove_tree(path)
        except OSError as error:
            # What was listed is gone or was moved meanwhile: the other one got on, so that this ends.
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


def _empty(top: int, name: str, numbers: Iterator[int]) -> list[str]:
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        return _sorted_out(folder, top, numbers)
    finally:
        os.close(folder)


def _sorted_out(folder: int, top: int, numbers: Iterator[int]) -> list[str]:
    """Unlink the files of a folder and move its folders to `top`; their new names."""
    moved: list[str] = []
    for name in os.listdir(folder):
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        os.chmod(name, 0o700, dir_fd=folder)
        moved.append(_free_name(top, numbers))
        os.rename(name, moved[-1], src_dir_fd=folder, dst_dir_fd=top)
    return moved


def _free_name(top: int, numbers: Iterator[int]) -> str:
    while True:
        name = f".removed-{next(numbers)}"
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name
