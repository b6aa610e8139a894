# ruff: noqa: PTH101, PTH102, PTH103, PTH105, PTH108, PTH123
# Everything here works on descriptors, which pathlib does not know.
"""A folder of the user as a tree, and the changes of a run back into it: never through a link, never outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import stat
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import FleetError, InvalidInput
from fleet.kernel.ids import Digest
from fleet.sandbox.folders.beneath import TooLarge, open_beneath, read_beneath
from fleet.sandbox.folders.tree_reader import WorkspaceFull, capture_tree
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Tree, check_path

_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class FolderChanges:
    """Paths that were written or removed, and those that were left alone, with the reason."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: dict[str, str]


async def folder_tree(folder: Path, blobs: BlobStore, *, max_bytes: int) -> Tree:
    """The files of the folder as a tree, in the blob store. `.git` and caches are not read, links stay links.

    Raises:
        InvalidInput: it is no folder that can be read, or holds more than `max_bytes` bytes.
    """
    with _opened(folder) as root:
        try:
            return (await capture_tree(root, blobs, before={}, discard=(), max_bytes=max_bytes)).tree
        except WorkspaceFull as error:
            raise InvalidInput(
                f"folder {folder} holds more than {max_bytes} bytes or too many files; name a smaller one",
                path=str(folder),
            ) from error
        except OSError as error:
            raise InvalidInput(f"folder {folder} cannot be read: {error.strerror}", path=str(folder)) from error


async def write_changes(folder: Path, before: Tree, after: Tree, blobs: BlobStore) -> FolderChanges:
    """The folder has the files that differ between the trees.

    Left alone are links, which could point anywhere, and files that are no longer what `before` says.
    """
    written: list[str] = []
    removed: list[str] = []
    skipped: dict[str, str] = {}
    with _opened(folder) as root:
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path), after.get(path)
            if old == new:
                continue
            content = await blobs.get(new.blob) if new is not None and new.mode.startswith("100") else None
            try:
                await asyncio.to_thread(_apply, root, path, old, new, content)
            except (OSError, _Skipped) as error:
                skipped[path] = (error.strerror or "cannot be written") if isinstance(error, OSError) else str(error)
                continue
            (removed if new is None else written).append(path)
    return FolderChanges(tuple(written), tuple(removed), skipped)


# What Windows, macOS and HFS+ take for `.git`: with spaces or dots behind it, as a short name or a stream, and with
# characters in it that count for nothing.
_NOTHING = r"\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
_DOT_GIT = "".join(rf"[{_NOTHING}]*{sign}" for sign in (r"\.", "g", "i", "t"))
_LIKE_GIT = re.compile(
    rf"(?:^|/)(?:{_DOT_GIT}|git~\d+)[{_NOTHING} .]*(?::[^/]*)?(?:[/\\]|\Z)",
    re.IGNORECASE,
)


class _Skipped(Exception):
    """This path is left alone; the message says why."""


@contextlib.contextmanager
def _opened(folder: Path) -> Generator[int]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput(f"{folder} is no folder: {error.strerror}", path=str(folder)) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _apply(root: int, path: str, old: FileEntry | None, new: FileEntry | None, content: bytes | None) -> None:
    check_path(path)
    if _LIKE_GIT.search(path):
        raise _Skipped("on other systems this name means .git")
    if "120000" in {entry.mode for entry in (old, new) if entry}:
        raise _Skipped("a symbolic link is not written back")
    if _digest(root, path) != (old.blob if old else None):
        raise _Skipped("it was changed meanwhile")
    parent_path, _, name = path.rpartition("/")
    parent = _folder(root, parent_path)
    try:
        if new is None:
            os.unlink(name, dir_fd=parent)
        else:
            assert content is not None
            _write(parent, name, content, 0o755 if new.mode == "100755" else 0o644)
    finally:
        os.close(parent)


def _digest(root: int, path: str) -> Digest | None:
    """Of the file that is there now; None when there is nothing."""
    try:
        os.close(open_beneath(root, path, os.O_RDONLY))
    except FileNotFoundError:
        return None
    try:
        return digest_of(read_beneath(root, path, max_bytes=_MAX_FILE_BYTES))
    except (FleetError, TooLarge) as error:
        raise _Skipped("what is there is no ordinary file") from error


def _folder(root: int, path: str) -> int:
    """A descriptor of the folder, which is made when it is not there; no component may be a link."""
    current = os.dup(root)
    for name in path.split("/") if path else ():
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=current)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        finally:
            os.close(current)
        current = inner
    return current


def _write(parent: int, name: str, content: bytes, mode: int) -> None:
    """The file has the content: the old one is replaced as a whole, so hard links to it keep what they had."""
    temporary = f".fleet-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600, dir_fd=parent), "wb") as file:
        file.write(content)
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode) & 0o666 | mode & 0o111
        os.fchmod(file.fileno(), mode)
    try:
        os.replace(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except OSError:
        os.unlink(temporary, dir_fd=parent)
        raise
