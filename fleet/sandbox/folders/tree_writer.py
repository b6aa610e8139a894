# ruff: noqa: PTH101
# Everything here works on descriptors, which pathlib does not know.
"""A tree is written into the folder of a run (RC-36, check 43)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import stat
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.kernel.errors import InvalidInput
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.stamps import Stamp, Stamps, settled, stamp_of
from fleet.sandbox.folders.beneath import open_beneath
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Mode, Tree, check_paths

_BATCH_BYTES = 16 << 20
_BATCH_FILES = 256
_AT_ONCE = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Entry(NamedTuple):
    """One file with its bytes; `folder` and `name` together are its path."""

    folder: str
    name: str
    mode: Mode
    content: bytes


def check_tree(tree: Mapping[str, object]) -> None:
    """Return when the tree can exist on a disk; InvalidInput when a file is also the folder of another."""
    check_paths(tree.keys())
    seen: set[str] = set()
    for path in tree:
        folder = path
        while (folder := folder.rpartition("/")[0]) and folder not in seen:
            if folder in tree:
                raise InvalidInput(f"the tree has {folder!r} as a file and {path!r} below it", path=path)
            seen.add(folder)


async def write_tree(tree: Tree, root: Path, blobs: BlobStore, owner: Identity) -> Stamps:
    """`root` holds exactly the tree, owned by `owner`. The folder must be new and unknown to any other process."""
    check_tree(tree)
    os.chown(root, owner.uid, owner.gid)
    writer = _Writer(root, owner)
    entries = _ordered(tree)
    batch: list[_Entry] = []
    for start in range(0, len(entries), _AT_ONCE):
        batch += await _read(entries[start : start + _AT_ONCE], blobs)
        if len(batch) >= _BATCH_FILES or sum(len(entry.content) for entry in batch) > _BATCH_BYTES:
            await asyncio.to_thread(writer.write, batch)
            batch = []
    await asyncio.to_thread(writer.write, batch)
    return settled(writer.stamps)


def write_files(files: Mapping[str, tuple[Mode, bytes]], root: Path, owner: Identity) -> None:
    """`root` holds exactly these files, as `write_tree` writes those that are in a store.

    Raises:
        InvalidInput: a path that no tree may have, or a file that is also the folder of another.
    """
    check_tree(files)
    split = ((*path.rpartition("/"), file) for path, file in files.items())
    entries = [_Entry(folder, name, mode, content) for folder, _, name, (mode, content) in split]
    _Writer(root, owner).write(sorted(entries, key=lambda entry: (entry.mode == "120000", entry.folder, entry.name)))


def _ordered(tree: Tree) -> list[tuple[str, str, FileEntry]]:
    """Folder, name and entry of each file, folder by folder.

    Links come last: no file is ever written through one, whatever the file system thinks of letter case.
    """
    split = ((*path.rpartition("/"), entry) for path, entry in tree.items())
    ordered = sorted((entry.mode == "120000", folder, name, entry) for folder, _, name, entry in split)
    return [(folder, name, entry) for _, folder, name, entry in ordered]


async def _read(entries: Sequence[tuple[str, str, FileEntry]], blobs: BlobStore) -> list[_Entry]:
    """Each entry with its bytes, all asked for at once: the way to a store costs more than a small file."""
    contents = iter(await blobs.get_many([entry.blob for _, _, entry in entries if entry.mode != "160000"]))
    return [
        _Entry(folder, name, entry.mode, b"" if entry.mode == "160000" else next(contents))
        for folder, name, entry in entries
    ]


class _Writer:
    """Writes into the folder `root`, through a descriptor of the folder that each file is in.

    Attributes:
        stamps: of the regular files that were written, by path.
    """

    def __init__(self, root: Path, owner: Identity) -> None:
        self._root, self._owner = root, owner
        self._made: set[str] = {""}
        self.stamps: dict[str, Stamp] = {}

    def write(self, entries: Iterable[_Entry]) -> None:
        """All of them lie there; those of one folder come together."""
        # Opened here: a thread goes on when the task that waits for it is cancelled.
        root = os.open(self._root, _FOLDER)
        try:
            for folder, some in itertools.groupby(entries, key=lambda entry: entry.folder):
                with self._folder(root, folder) as descriptor:
                    for entry in some:
                        self._write(descriptor, entry)
        finally:
            os.close(root)

    def _write(self, parent: int, entry: _Entry) -> None:
        if entry.mode == "160000":
            self._make_folder(parent, entry.name)
            return
        stamp = write_file(parent, entry.name, entry.mode, entry.content, self._owner)
        if stamp is not None:
            self.stamps[f"{entry.folder}/{entry.name}" if entry.folder else entry.name] = stamp

    def _folder(self, root: int, folder: str) -> contextlib.AbstractContextManager[int]:
        """A descriptor of the folder, which is made when it is not there yet."""
        missing: list[str] = []
        while folder not in self._made:
            self._made.add(folder)
            missing.append(folder)
            folder = folder.rpartition("/")[0]
        for path in reversed(missing):
            above, _, name = path.rpartition("/")
            with _opened(root, above) as parent:
                self._make_folder(parent, name)
        return _opened(root, missing[0] if missing else folder)

    def _make_folder(self, parent: int, name: str) -> None:
        os.mkdir(name, 0o755, dir_fd=parent)  # noqa: PTH102
        descriptor = os.open(name, _FOLDER, dir_fd=parent)
        try:
            _handed_over(descriptor, 0o755, self._owner)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _opened(root: int, folder: str) -> Generator[int]:
    descriptor = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def write_file(parent: int, name: str, mode: Mode, content: bytes, owner: Identity) -> Stamp | None:
    """A file or link of this name is in the folder; its stamp, None for a link. Nothing may be there yet."""
    if mode == "120000":
        os.symlink(content, os.fsencode(name), dir_fd=parent)
        if owner.is_dropped:
            os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)
        return None
    rights = 0o755 if mode == "100755" else 0o644
    file = os.open(name, _NEW, rights, dir_fd=parent)
    try:
        _write_all(file, content)
        return stamp_of(_handed_over(file, rights, owner))
    finally:
        os.close(file)


def _handed_over(descriptor: int, mode: int, owner: Identity) -> os.stat_result:
    """The status of the file or folder when it has its owner and mode."""
    if owner.is_dropped:
        os.fchown(descriptor, owner.uid, owner.gid)
    status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) == mode:
        return status
    # The process has a umask that takes more than others' right to write.
    os.fchmod(descriptor, mode)
    return os.fstat(descriptor)


def _write_all(file: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
