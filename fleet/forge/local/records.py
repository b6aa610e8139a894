"""Small files of one folder: read whole, written whole by one rename, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from fleet.kernel.errors import StoreFull, StoreUnavailable

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_LOCK_WAIT_S = 10.0


class Records:
    """The files of a folder that is open and locked. A link in the place of a file is never followed."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Names of the files that are there, sorted; temporary ones left out."""
        return sorted(name for name in os.listdir(self._folder) if not name.startswith("."))  # noqa: PTH208 - descriptor

    def read(self, name: str, limit: int) -> bytes | None:
        """The first `limit` bytes of a file; None when there is no regular file of this name."""
        try:
            descriptor = os.open(name, _READ, dir_fd=self._folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
                return None
            raise
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None

    def write(self, name: str, data: bytes) -> None:
        """The file holds these bytes on disk; nobody sees a part of them."""
        temporary = f".{secrets.token_hex(12)}"
        try:
            with os.fdopen(os.open(temporary, _WRITE, 0o644, dir_fd=self._folder), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._folder)
            raise
        os.fsync(self._folder)


@contextmanager
def opened_records(path: Path, *, wait_s: float = _LOCK_WAIT_S) -> Generator[Records]:
    """The folder at `path`, made when missing; no other process or thread is inside meanwhile.

    Raises:
        StoreUnavailable: another writer holds the lock for `wait_s`.
    """
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder = os.open(path, _FOLDER)
    try:
        lock = os.open(".lock", _LOCK, 0o600, dir_fd=folder)
        try:
            _wait(lock, path, wait_s)
            yield Records(folder)
        finally:
            os.close(lock)
    finally:
        os.close(folder)


def _wait(lock: int, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{path} is locked by another process: repeat later", path=str(path)) from None
            time.sleep(0.005)


@contextmanager
def file_errors(what: str) -> Generator[None]:
    """An OSError leaves as StoreFull when there is no room, else as StoreUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(f"no room for {what}: free disk space and repeat", errno=error.errno) from error
        raise StoreUnavailable(
            f"{what} cannot be read or written: {error.strerror} ({error.filename}); mend it and repeat",
            errno=error.errno,
        ) from error
