# ruff: noqa: PTH101, PTH102, PTH108, PTH115, PTH208
# Everything here works on descriptors, which pathlib does not know.
"""The writable folder of a work session: an upper layer over a base, or a folder with the whole tree.

Nothing of the session runs while these functions work on its folder, and nothing is mounted there. What lies in it was
left by hostile code all the same: no link is followed, and nothing is believed but what the kernel alone can write.
Overlayfs lets no program inside make a whiteout or set one of its attributes (containment checks O1 to O4).

Source: docs/design/engineering_loop.md, section 2.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fleet.kernel.ids import Digest
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.stamps import Stamp, is_as_stamped, now_ns, stamp_of
from fleet.sandbox.folders.bases import BaseTree
from fleet.sandbox.folders.beneath import open_beneath
from fleet.sandbox.folders.mark import Known
from fleet.sandbox.folders.tree_reader import CACHE_NAMES, FoundFile, is_skipped
from fleet.sandbox.folders.tree_writer import write_file
from fleet.sandbox.folders.workspace import MAX_ENTRIES, MAX_PATH_BYTES, is_valid, mode_of, remove_tree
from fleet.trees.delta import Rows
from fleet.trees.tree import FileEntry

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPAQUE = "user.overlay.opaque"
_SURELY_SHORT = MAX_PATH_BYTES // 4
"""Characters, of which each has four bytes at most."""
UNREAD = FileEntry("100644", Digest("sha256:" + "0" * 64))
"""Stands for a file whose content nobody has read: no tree has such an entry, so it is always written anew."""


@dataclass(slots=True)
class FolderSurvey:
    """What lies in the folder. Invariant: `rows` lacks the files of `others`, and is right in everything else."""

    rows: dict[str, FileEntry | None] = field(default_factory=dict[str, FileEntry | None])
    others: list[FoundFile] = field(default_factory=list[FoundFile])
    extras: list[str] = field(default_factory=list[str])
    """What no tree can hold and the next command must not see: pipes, empty folders, repositories."""
    linked: set[str] = field(default_factory=set[str])
    """Files with several names: written anew before the next command, so that a change of one leaves the others."""
    left_out: int = 0
    """Entries that a tree should have had and cannot."""
    size: int = 0
    """Bytes of content."""
    used: int = 0
    """Bytes on the disk."""
    entries: int = 0
    longest: int = 0
    """Bytes of the longest path."""
    is_torn: bool = False
    """The folder shows otherwise than a new one with the same tree would; the next command needs a new one."""


def survey(root: int, base: BaseTree, rows: Rows, known: Known, *, is_upper: bool) -> FolderSurvey:
    """What a command left in the folder. All permissions are as a new folder's.

    Args:
        rows: the tree that the command began with, over the base.
        known: files whose content is known while they have their stamps; none of those that nobody looks at.
        is_upper: the folder is an upper layer, else it holds the whole tree.
    """
    walk = _Walk(base, rows, known, is_upper=is_upper)
    walk.through(root)
    result = walk.over()
    if not is_upper:
        # What nobody looks at was there, and a new folder would have it again.
        unseen = (path for path in base.unseen.union(rows) if path in base.unseen or is_skipped(path, ()))
        result.is_torn = not all(_is_at(root, path) for path in unseen if rows.get(path, UNREAD))
    return result


class _Walk:
    def __init__(self, base: BaseTree, rows: Rows, known: Known, *, is_upper: bool) -> None:
        self._base, self._rows, self._known, self._is_upper = base, rows, known, is_upper
        self._submodules = base.submodules | {path for path, e in rows.items() if e and e.mode == "160000"}
        self._found = FolderSurvey()
        self._hidden = set[str]()
        """Paths at which nothing of the base shows through, neither a file nor what is below a folder."""
        self._there = dict[str, FileEntry]()
        self._folders = list[str]()
        self._filled = set[str]()

    def through(self, root: int) -> None:
        result, waiting = self._found, ["."]
        os.fchmod(root, 0o755)
        while waiting and result.entries < MAX_ENTRIES:
            folder = waiting.pop()
            try:
                descriptor = open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                result.is_torn = True  # a path too long for a walk
                continue
            try:
                if self._is_upper and folder != "." and _is_opaque(descriptor):
                    self._hidden.add(folder)
                if folder != ".":
                    self._folders.append(folder)
                waiting += self._inner(descriptor, "" if folder == "." else f"{folder}/")
            finally:
                os.close(descriptor)

    def _inner(self, folder: int, prefix: str) -> list[str]:
        """Takes note of what lies in the folder; the folders in it to look into."""
        stamped, there, inner = self._known, self._there, list[str]()
        entries = used = size = longest = 0
        for name in os.listdir(folder):
            status, path = os.stat(name, dir_fd=folder, follow_symlinks=False), prefix + name
            entries += 1
            used += status.st_blocks
            if len(path) > longest or len(path) > _SURELY_SHORT:
                longest = max(longest, len(os.fsencode(path)))
            # Most files of a whole folder are as they were: nothing is asked of those but their stamps.
            if (one := stamped.get(path)) is not None and is_as_stamped(status, one[0]):
                there[path] = one[1]
                size += status.st_size
            elif self._is_folder(folder, name, path, status):
                inner.append(path)
        result = self._found
        result.entries, result.used, result.size = (
            result.entries + entries,
            result.used + used * 512,
            result.size + size,
        )
        result.longest = max(result.longest, longest)
        return inner

    def _is_folder(self, parent: int, name: str, path: str, status: os.stat_result) -> bool:
        """Takes note of the entry; whether it is a folder to look into."""
        result = self._found
        if self._is_upper and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            self._hidden.add(path)
            return False
        if not stat.S_ISDIR(status.st_mode):
            self._note_file(parent, name, path, status)
            return False
        if stat.S_IMODE(status.st_mode) != 0o755:
            os.chmod(name, 0o755, dir_fd=parent)
        if name.lower() == ".git":
            result.extras.append(path)
            return False
        return name not in CACHE_NAMES and path not in self._submodules

    def _note_file(self, parent: int, name: str, path: str, status: os.stat_result) -> None:
        result = self._found
        if is_skipped(path, ()):
            if name.lower() == ".git":
                result.extras.append(path)
            return
        mode = mode_of(status)
        if mode is None or not is_valid(path):
            result.left_out += 1
            result.extras.append(path)
            return
        result.size += status.st_size
        if mode != "120000":
            permissions = 0o755 if mode == "100755" else 0o644
            if stat.S_IMODE(status.st_mode) != permissions:
                os.chmod(name, permissions, dir_fd=parent)
            if status.st_nlink > 1:
                result.linked.add(path)
        result.others.append(FoundFile(path, mode, status.st_size))
        self._there[path] = UNREAD

    def over(self) -> FolderSurvey:
        """The rows; every path of the base of which nothing shows any more is gone."""
        result, base, there = self._found, self._base, self._there
        rows: dict[str, FileEntry | None] = {
            path: entry for path, entry in there.items() if entry is not UNREAD and base.tree.get(path) != entry
        }
        # What nobody looks at stays as it was.
        rows |= {p: e for p, e in self._rows.items() if p in self._submodules or is_skipped(p, ())}
        for path in self._gone():
            if path in self._submodules or is_skipped(path, ()):
                result.is_torn = True
            elif path not in there:
                rows[path] = None
        result.rows = rows
        unseen = self._base.unseen.union(rows, self._submodules)
        filled = {path.rpartition("/")[0] for path in there}
        filled |= {path.rpartition("/")[0] for path in unseen if rows.get(path, UNREAD)}
        self._filled = {above for folder in filled if folder for above in (folder, *_above(folder))}
        result.extras += [folder for folder in self._folders if not self._has_files(folder, rows)]
        if self._is_upper:
            emptied = {f for path, entry in rows.items() if entry is None for f in _above(path)} - self._hidden
            result.is_torn = result.is_torn or bool(result.extras) or any(self._is_bare(f, rows) for f in emptied)
        return result

    def _gone(self) -> Iterator[str]:
        base = self._base
        if not self._is_upper:
            yield from (path for path in base.paths if path not in self._there and self._is_looked_at(path))
            return
        for path in self._hidden | self._there.keys():
            if path in base.tree and path not in self._there:
                yield path
            if path in base.folders:
                yield from (below for below in base.below(path) if below not in self._there)
        yield from (folder for folder in self._folders if folder in base.tree)

    def _is_looked_at(self, path: str) -> bool:
        return path not in self._submodules and not is_skipped(path, ())

    def _has_files(self, folder: str, rows: Rows) -> bool:
        if folder in self._filled or not self._is_upper:
            return folder in self._filled
        return self._base.files_below(folder, rows) > 0

    def _is_bare(self, folder: str, rows: Rows) -> bool:
        """Whether a folder of the base has no file left and is still seen."""
        return (
            folder in self._base.folders
            and not self._has_files(folder, rows)
            and not any(above in self._hidden or above in self._there for above in _above(folder))
        )


def _is_at(root: int, path: str) -> bool:
    folder, _, name = path.rpartition("/")
    try:
        parent = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(parent)
    return True


def _is_opaque(descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.getxattr(descriptor, _OPAQUE) in (b"y", b"x")
    return False


def _above(path: str) -> Iterator[str]:
    """The folders that the path lies in."""
    while path := path.rpartition("/")[0]:
        yield path


def stamped(root: int, path: str, entry: FileEntry) -> tuple[Stamp, FileEntry] | None:
    """The file's stamp with its content; None while the kernel's clock could hide its next change."""
    before = now_ns()
    folder, _, name = path.rpartition("/")
    parent = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        stamp = stamp_of(os.stat(name, dir_fd=parent, follow_symlinks=False))
    finally:
        os.close(parent)
    return (stamp, entry) if stamp.ctime_ns < before else None


def remove_extras(root: int, extras: list[str]) -> None:
    """None of them is there any more."""
    for path in sorted(extras, key=len, reverse=True):
        folder, _, name = path.rpartition("/")
        try:
            parent = open_beneath(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        try:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                continue
            remove_tree(Path(f"/proc/self/fd/{parent}", name))
        except FileNotFoundError:
            continue
        finally:
            os.close(parent)


class Rewrite(NamedTuple):
    """One path at which the folder has to become otherwise; `content` is None where nothing is to be written."""

    path: str
    entry: FileEntry | None
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Layer:
    """The folder of a session between two commands.

    Args:
        is_upper: it is an upper layer over the base, else it holds the whole tree.
    """

    root: int
    base: BaseTree
    owner: Identity
    is_upper: bool

    def hide_gone(self, rows: Rows) -> None:
        """Nothing that the rows say is gone shows through; a folder without any file neither. Of a new upper layer."""
        done = set[str]()
        for path in sorted(path for path, entry in rows.items() if entry is None):
            emptied = [f for f in _above(path) if f in self.base.folders and not self.base.files_below(f, rows)]
            top = emptied[-1] if emptied else path
            if top not in done:
                done.add(top)
                self._hide(top)

    def move(self, change: Rewrite, stamped: Known) -> bool:
        """The path is as the change says; False where only a new folder can show it so."""
        folder, _, name = change.path.rpartition("/")
        parent = self._parent(folder, makes=change.content is not None or self._needs_whiteout(change))
        if parent is None:
            return False
        if parent < 0:
            return True
        try:
            stamped.pop(change.path, None)
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    return False
                os.unlink(name, dir_fd=parent)
            if change.content is not None and change.entry is not None:
                write_file(parent, name, change.entry.mode, change.content, self.owner)
            elif self._needs_whiteout(change):
                _whiteout(parent, name, self.owner)
            return True
        finally:
            os.close(parent)

    def drop_empty(self, folder: str) -> None:
        """The folder and those above it are gone as far as they are empty."""
        for path in (folder, *_above(folder)) if folder else ():
            above, _, name = path.rpartition("/")
            try:
                parent = open_beneath(self.root, above or ".", os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError:
                return
            finally:
                os.close(parent)

    def _needs_whiteout(self, change: Rewrite) -> bool:
        return self.is_upper and change.entry is None and change.path in self.base.tree

    def _parent(self, folder: str, *, makes: bool) -> int | None:
        """A descriptor of the folder. None where it cannot be entered as it is; -1 where it is not there nor needed."""
        current = os.dup(self.root)
        for name in folder.split("/") if folder else ():
            try:
                try:
                    inner = os.open(name, _FOLDER, dir_fd=current)
                except FileNotFoundError:
                    if not makes:
                        return -1
                    _make_folder(current, name, self.owner)
                    inner = os.open(name, _FOLDER, dir_fd=current)
                except OSError:
                    return None
            finally:
                os.close(current)
            current = inner
            if self.is_upper and _is_opaque(current):
                os.close(current)
                return None
        return current

    def _hide(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        parent = self._parent(folder, makes=True)
        if parent is None:
            return  # a file of the tree lies above it, and hides it
        try:
            with contextlib.suppress(FileExistsError):
                _whiteout(parent, name, self.owner)
        finally:
            os.close(parent)


def _whiteout(parent: int, name: str, owner: Identity) -> None:
    os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
    if owner.is_dropped:
        os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)


def _make_folder(parent: int, name: str, owner: Identity) -> None:
    os.mkdir(name, 0o755, dir_fd=parent)
    os.chmod(name, 0o755, dir_fd=parent)
    if owner.is_dropped:
        os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)
