"""Reads a file whose owner, mode and kind make it safe. There is no moment between the check and the read."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

from fleet.secrets.port import MAX_SECRET_BYTES

# A pipe would block the open for ever; a link could lead anywhere.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Unsafe(Exception):  # noqa: N818 - a finding for the provider to word, never seen outside of it
    """The file must not be used; the text says why and what to do."""


class PrivateBytes(NamedTuple):
    """What a file held, and a name for this state of it."""

    data: bytes
    version: str


@contextmanager
def opened(path: str, *, dir_fd: int | None = None) -> Generator[int]:
    """The open file or directory, closed at the end. Raises Unsafe for a link, else OSError."""
    try:
        handle = os.open(path, _FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Unsafe(f"{path} is a link; put the file itself there") from None
        raise
    try:
        yield handle
    finally:
        os.close(handle)


def private_directory(handle: int, name: str) -> None:
    """Raises Unsafe unless this user alone may look into the directory."""
    _private(os.fstat(handle), name, mode="0700")


def private_file(handle: int, name: str, *, limit: int = MAX_SECRET_BYTES) -> PrivateBytes:
    """What the open file holds; Unsafe unless it is a plain file that this user alone may read and write."""
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        raise Unsafe(f"{name} is no plain file")
    if status.st_nlink != 1:
        raise Unsafe(f"{name} has {status.st_nlink} names (hard links); keep one")
    _private(status, name, mode="0600")
    return PrivateBytes(read_whole(handle, limit=limit), f"{status.st_ino}-{status.st_mtime_ns}")


def read_whole(handle: int, *, limit: int = MAX_SECRET_BYTES) -> bytes:
    """All bytes, or one more than the limit of a file that is too large."""
    data = b""
    while len(data) <= limit and (chunk := os.read(handle, limit + 1 - len(data))):
        data += chunk
    return data


def _private(status: os.stat_result, name: str, *, mode: str) -> None:
    if status.st_uid != os.geteuid():
        raise Unsafe(f"{name} belongs to user {status.st_uid}; it must belong to user {os.geteuid()}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise Unsafe(f"{name} has mode {stat.S_IMODE(status.st_mode):04o}, so others may use it; set {mode}")
