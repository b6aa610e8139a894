# ruff: noqa: PTH118, PTH211, PTH123, PTH108, PTH208, PTH101, PTH104, PTH106
# Everything here works on descriptors, which pathlib does not know.
"""The folder of one run: a tree is written into it, and what the run left is read back (RC-36, check 43, S6)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from fleet.adapters.sandbox.beneath import Found, TooLarge, open_beneath, read_beneath, walk_beneath
from fleet.adapters.sandbox.identity import Identity
from fleet.adapters.sandbox.stamps import NO_STAMPS, Stamp, Stamps, settled, stamp_of
from fleet.digest import digest_of
from fleet.errors import FleetError, InvalidInput
from fleet.ids import Digest
from fleet.ports import BlobStore
from fleet.tools import Artifact, FileEntry, Mode, Tree, check_path

__all__ = [
    "CACHE_NAMES",
    "MAX_ARTIFACT_BYTES",
    "MAX_ENTRIES",
    "NO_ROOM",
    "Capture",
    "WorkspaceFull",
    "capture_tree",
    "check_tree",
    "disk_usage",
    "remove_tree",
    "store_artifacts",
    "write_tree",
]

CACHE_NAMES = frozenset({"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis", ".coverage"})
"""Names that tools leave behind; they are not recorded wherever they lie."""
MAX_ENTRIES = 200_000
MAX_ARTIFACT_BYTES = 512 << 20
MAX_ALL_ARTIFACTS_BYTES = 1 << 30
MAX_ARTIFACTS = 1_000
NO_ROOM = 1 << 62
_BATCH_BYTES = 16 << 20
_BATCH_FILES = 256
_AT_ONCE = 16
_FREE_FLOOR_BYTES = 64 << 20
_MAX_PATH_BYTES = 4_000


class WorkspaceFull(Exception):
    """The run left more than its disk limit; never leaves the backend, which turns it into `disk_limit`."""


@dataclass(frozen=True, slots=True)
class Capture:
    """The recorded tree, and how many entries could not be part of one (pipes, sockets, names that are not UTF-8)."""

    tree: Tree
    left_out: int


def check_tree(tree: Tree) -> None:
    """Return when the tree can exist on a disk; InvalidInput when a file is also the folder of another."""
    for path in tree:
        parts = check_path(path).split("/")
        for end in range(1, len(parts)):
            if (parent := "/".join(parts[:end])) in tree:
                raise InvalidInput(f"the tree has {parent!r} as a file and {path!r} below it", path=path)


async def write_tree(tree: Tree, root: Path, blobs: BlobStore, owner: Identity) -> Stamps:
    """`root` holds exactly the tree, owned by `owner`. The folder must be new and unknown to any other process."""
    check_tree(tree)
    os.chown(root, owner.uid, owner.gid)
    # Links come last: no file is ever written through one, whatever the file system thinks of letter case.
    ordered = sorted(tree.items(), key=lambda item: (item[1].mode == "120000", item[0]))
    made: set[str] = set()
    stamps: dict[str, Stamp] = {}
    batch: list[tuple[str, Mode, bytes]] = []
    held = 0
    async for path, mode, content in _contents(ordered, blobs):
        batch.append((path, mode, content))
        held += len(content)
        if held > _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            stamps |= await asyncio.to_thread(_write_entries, root, batch, owner, made)
            batch, held = [], 0
    stamps |= await asyncio.to_thread(_write_entries, root, batch, owner, made)
    return settled(stamps)


async def _contents(
    entries: Sequence[tuple[str, FileEntry]], blobs: BlobStore
) -> AsyncGenerator[tuple[str, Mode, bytes]]:
    """Each entry with its bytes, a few asked for at once: the way to a store costs more than a small file."""
    for start in range(0, len(entries), _AT_ONCE):
        some = entries[start : start + _AT_ONCE]
        found = await asyncio.gather(*(_nothing() if e.mode == "160000" else blobs.get(e.blob) for _, e in some))
        for (path, entry), content in zip(some, found, strict=True):
            yield path, entry.mode, content


async def _nothing() -> bytes:
    return b""


def _write_entries(
    root: Path, batch: Sequence[tuple[str, Mode, bytes]], owner: Identity, made: set[str]
) -> dict[str, Stamp]:
    written = ((path, _write_entry(root, path, mode, content, owner, made)) for path, mode, content in batch)
    return {path: stamp for path, stamp in written if stamp is not None}


def _write_entry(root: Path, path: str, mode: Mode, content: bytes, owner: Identity, made: set[str]) -> Stamp | None:
    """The stamp of a regular file; None for what is none."""
    parent = path.rpartition("/")[0]
    _make_folders(root, path if mode == "160000" else parent, owner, made)
    if mode == "160000":
        return None
    target = os.path.join(root, path)
    if mode == "120000":
        os.symlink(content, os.fsencode(target))
        if owner.is_dropped:
            os.lchown(target, owner.uid, owner.gid)
        return None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o600), "wb", buffering=0) as file:
        _write_all(file, content)
        os.fchmod(file.fileno(), 0o755 if mode == "100755" else 0o644)
        if owner.is_dropped:
            os.fchown(file.fileno(), owner.uid, owner.gid)
        return stamp_of(os.fstat(file.fileno()))


def _write_all(file: FileIO, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _make_folders(root: Path, folder: str, owner: Identity, made: set[str]) -> None:
    if not folder or folder in made:
        return
    _make_folders(root, folder.rpartition("/")[0], owner, made)
    made.add(folder)
    target = root / folder
    target.mkdir()
    target.chmod(0o755)
    if owner.is_dropped:
        os.lchown(target, owner.uid, owner.gid)


def disk_usage(root: int, *, repair: bool = False) -> int:
    """Bytes below the folder as the disk counts them.

    NO_ROOM, which is over every limit, when there are MAX_ENTRIES entries, a path so long that no walk can follow it,
    or hardly any room left on the disk.
    """
    total = 0
    # A descriptor of its own: the walk may outlive the run that it watches.
    root = os.dup(root)
    try:
        disk = os.fstatvfs(root)
        if disk.f_bavail * disk.f_frsize < _FREE_FLOOR_BYTES:
            return NO_ROOM
        for count, found in enumerate(walk_beneath(root, repair=repair, max_entries=MAX_ENTRIES), 1):
            total += found.status.st_blocks * 512
            if count >= MAX_ENTRIES or len(os.fsencode(found.path)) > _MAX_PATH_BYTES:
                return NO_ROOM
    finally:
        os.close(root)
    return total


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
    kept = {path: entry for path, entry in before.items() if entry.mode == "160000" or _is_skipped(path, discard)}
    submodules = frozenset(path for path, entry in before.items() if entry.mode == "160000")
    found, left_out = await asyncio.to_thread(_survey, root, discard, submodules)
    if sum(f.status.st_size for f in found) > max_bytes or len(found) + len(kept) > MAX_ENTRIES:
        raise WorkspaceFull(f"the run left more than {max_bytes} bytes or {MAX_ENTRIES} files")
    known = {entry.blob for entry in before.values()}
    tree = kept | {f.path: before[f.path] for f in found if stamps.get(f.path) == stamp_of(f.status)}
    for batch in _batches([f for f in found if f.path not in tree]):
        for path, mode, content, digest in await asyncio.to_thread(_read_batch, root, batch, max_bytes):
            tree[path] = FileEntry(mode, digest if digest in known else await blobs.put(content))
    return Capture(tree, left_out)


def _survey(root: int, discard: Collection[str], submodules: frozenset[str]) -> tuple[list[Found], int]:
    candidates = list(_candidates(root, discard, submodules))
    found = [f for f in candidates if _mode_of(f) is not None and _is_valid(f.path)]
    return found, len(candidates) - len(found)


def _batches(found: Sequence[Found]) -> Iterator[list[Found]]:
    batch: list[Found] = []
    size = 0
    for one in found:
        batch.append(one)
        size += one.status.st_size
        if size > _BATCH_BYTES or len(batch) >= _BATCH_FILES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_batch(root: int, batch: Sequence[Found], max_bytes: int) -> list[tuple[str, Mode, bytes, Digest]]:
    read: list[tuple[str, Mode, bytes, Digest]] = []
    for found in batch:
        mode = _mode_of(found)
        assert mode is not None
        content = _content(root, found, mode, max_bytes)
        read.append((found.path, mode, content, digest_of(content)))
    return read


def _candidates(root: int, discard: Collection[str], submodules: frozenset[str]) -> Iterator[Found]:
    for found in walk_beneath(root, repair=True, max_entries=MAX_ENTRIES * 2):
        if stat.S_ISDIR(found.status.st_mode) or _is_skipped(found.path, discard):
            continue
        if submodules and not submodules.isdisjoint(_parents(found.path)):
            continue
        yield found


def _parents(path: str) -> Iterable[str]:
    return itertools.accumulate(path.split("/"), lambda a, b: f"{a}/{b}")


def _is_skipped(path: str, discard: Collection[str]) -> bool:
    parts = path.split("/")
    if parts[0] in discard or not CACHE_NAMES.isdisjoint(parts):
        return True
    return ".git" in path.lower() and any(part.lower() == ".git" for part in parts)


def _mode_of(found: Found) -> Mode | None:
    if stat.S_ISLNK(found.status.st_mode):
        return "120000"
    if not stat.S_ISREG(found.status.st_mode):
        return None
    return "100755" if found.status.st_mode & stat.S_IXUSR else "100644"


def _is_valid(path: str) -> bool:
    try:
        check_path(path)
    except InvalidInput:
        return False
    return True


def _content(root: int, found: Found, mode: Mode, max_bytes: int) -> bytes:
    folder, _, name = found.path.rpartition("/")
    parent = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if mode == "120000":
            return os.fsencode(os.readlink(name, dir_fd=parent))
        return read_beneath(parent, name, max_bytes=max_bytes)
    finally:
        os.close(parent)


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
    found: dict[str, None] = {}
    for path in paths:
        try:
            folder = open_beneath(root, check_path(path), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            found[path] = None
            continue
        try:
            inside = [f.path for f in walk_beneath(folder, repair=True) if _mode_of(f) in ("100644", "100755")]
        finally:
            os.close(folder)
        found.update(dict.fromkeys(f"{path}/{name}" for name in sorted(inside) if _is_valid(name)))
    return list(found)[:MAX_ARTIFACTS]


async def _store(root: int, path: str, max_bytes: int, blobs: BlobStore) -> Artifact:
    with contextlib.suppress(OSError):
        size = _size_of(root, path)
        if size > max_bytes:
            return Artifact(path=path, size_bytes=size, truncated=True)
    try:
        content = read_beneath(root, path, max_bytes=max_bytes)
    except (FleetError, TooLarge):
        return Artifact(path=path)
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
