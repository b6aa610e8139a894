# ruff: noqa: PTH208, PTH101
# Everything here works on descriptors, which pathlib does not know.
"""File access below a folder that hostile code wrote: never through a link, never outside.

Source: docs/design/sandbox.md, section 13.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator

from fleet.kernel.errors import NotFound
from fleet.trees.tree import check_path

_OPENAT2 = 437
_RESOLVE = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_libc = ctypes.CDLL(None, use_errno=True)


class TooLarge(Exception):
    """The file is over the cap of this read; never leaves the backend."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: str, flags: int) -> int:
    """A new descriptor of a path below the folder `root`; OSError as `open` raises it, ELOOP for any symbolic link."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = _openat2(root, path, flags)
    return descriptor if descriptor is not None else open_by_parts(root, path, flags)


def _openat2(root: int, path: str, flags: int) -> int | None:
    how = _OpenHow(flags, 0, _RESOLVE)
    while True:
        result = _libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
        if result >= 0:
            return result
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EPERM):
            return None
        if code not in (errno.EAGAIN, errno.EINTR):
            raise OSError(code, os.strerror(code), path)


def open_by_parts(root: int, path: str, flags: int) -> int:
    """The same for a kernel without openat2: one component at a time, each without following."""
    *folders, last = path.split("/")
    if ".." in (*folders, last) or path.startswith("/"):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    current = os.dup(root)
    try:
        for folder in folders:
            step = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
            os.close(current)
            current = step
        return os.open(last, flags, dir_fd=current)
    finally:
        os.close(current)


def read_beneath(root: int, path: str, *, max_bytes: int) -> bytes:
    """The content of a regular file below `root`.

    Raises:
        InvalidInput: the text is no path inside a workspace.
        NotFound: no regular file is there (missing, a link on the way, a folder, a pipe, a device).
        TooLarge: it holds more than `max_bytes`.
    """
    try:
        descriptor = open_beneath(root, check_path(path), os.O_RDONLY)
    except OSError as error:
        raise NotFound(f"{path!r} is no file of the workspace: {error.strerror}", path=path) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotFound(f"{path!r} is no regular file", path=path)
        return _read_all(descriptor, path, max_bytes)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, path: str, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    if left <= 0:
        raise TooLarge(f"{path!r} holds more than {max_bytes} bytes")
    return b"".join(chunks)


def walk_beneath(
    root: int,
    *,
    repair: bool = False,
    max_entries: int = 1_000_000,
    enters: Callable[[str], bool] = lambda folder: True,
) -> Iterator[tuple[str, os.stat_result]]:
    """The path of every entry below `root`, and its lstat; folders come before what they hold.

    Opens nothing but folders.

    Args:
        repair: make unreadable folders and files readable first; only when no process of the run lives any more.
        max_entries: the walk ends silently after so many; the caller counts.
        enters: whether to look into the folder of this path; the folder itself is an entry either way.
    """
    stack, count = ["."], 0
    while stack:
        folder = stack.pop()
        try:
            descriptor = open_beneath(root, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        prefix = "" if folder == "." else f"{folder}/"
        try:
            for name in os.listdir(descriptor):
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    continue
                is_folder = stat.S_ISDIR(mode := status.st_mode)
                if repair and (is_folder or not mode & stat.S_IRUSR):
                    _make_readable(descriptor, name, mode)
                path = prefix + name
                if is_folder and enters(path):
                    stack.append(path)
                yield path, status
                count += 1
                if count >= max_entries:
                    return
        finally:
            os.close(descriptor)


def _make_readable(folder: int, name: str, mode: int) -> None:
    bits = 0o700 if stat.S_ISDIR(mode) else 0o400
    if mode & bits != bits and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        os.chmod(name, stat.S_IMODE(mode) | bits, dir_fd=folder)
