"""Weights as files of one folder, each in a folder named by its digest."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet.kernel.errors import ConfigError, StoreFull, StoreUnavailable
from fleet.models.port import FoundWeights, WeightsDraft
from fleet.models.weights import Weights

_BLOCK = 1 << 20
_POLL_S = 0.1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    """An OSError leaves as StoreFull when there is no room, else as StoreUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(
                f"no room for {path}: {error.strerror}; free disk space and pull again, it goes on where it stopped",
                path=str(path),
            ) from error
        raise StoreUnavailable(
            f"cannot use {path}: {error.strerror}; mend it, or set FLEET_HOME to a directory of your own",
            path=str(path),
        ) from error


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class FileWeightsStore:
    """Files below `root`, as `<sha256>/<file>`; `<file>.part` is a draft. Implements the port WeightsStore.

    A file gets its name by one rename after its digest was compared. `verified.json` beside it remembers size and
    time of the file whose bytes were read, so that a listing need not read a gigabyte again.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def look(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """See `WeightsStore.look`."""
        return await asyncio.to_thread(self.look_now, weights, thorough=thorough)

    @asynccontextmanager
    async def claim(self, weights: Weights) -> AsyncGenerator[WeightsDraft]:
        """See `WeightsStore.claim`: the lock is the kernel's, on a file of the folder."""
        folder = self._folder(weights)
        with _disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(lock):
                await asyncio.sleep(_POLL_S)
            draft = _FileDraft(weights, folder)
            try:
                yield draft
            finally:
                draft.close()
        finally:
            os.close(lock)

    async def free_bytes(self) -> int:
        """See `WeightsStore.free_bytes`: of the disk that holds, or will hold, the folder."""
        with _disk_errors(self._root):
            there = next(p for p in (self._root, *self._root.parents) if p.exists())
            return shutil.disk_usage(there).free

    def path(self, weights: Weights) -> Path:
        """Where the whole file is, or will be."""
        return self._folder(weights) / weights.file

    def _folder(self, weights: Weights) -> Path:
        return self._root / weights.sha256

    def look_now(self, weights: Weights, *, thorough: bool = False) -> FoundWeights:
        """The same for callers that may wait."""
        path = self.path(weights)
        with _disk_errors(path):
            if not path.exists():
                part = _part(path)
                size = part.stat().st_size if part.exists() else 0
                return FoundWeights("partial" if size else "missing", size, str(path))
            size = path.stat().st_size
            is_known = not thorough and _stamp(path) == _read_stamp(path)
            is_right = is_known or (size == weights.size_bytes and sha256_of(path) == weights.sha256)
            if is_right and not is_known:
                _write_stamp(path)
        return FoundWeights("present" if is_right else "wrong_digest", size, str(path))


class _FileDraft:
    """The file `<name>.part`, under the lock of its folder."""

    def __init__(self, weights: Weights, folder: Path) -> None:
        self._weights = weights
        self._path = folder / weights.file
        self._file: Any = None
        part = _part(self._path)
        self._size = part.stat().st_size if part.exists() else 0

    @property
    def size_bytes(self) -> int:
        return self._size

    async def append(self, piece: bytes) -> None:
        await asyncio.to_thread(self._append, piece)

    async def finish(self) -> str:
        return await asyncio.to_thread(self._finish)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _append(self, piece: bytes) -> None:
        part = _part(self._path)
        with _disk_errors(part):
            if self._file is None:
                # Unbuffered: what a break-off leaves is what was counted.
                self._file = part.open("ab", buffering=0)
            view = memoryview(piece)
            while view:
                written = self._file.write(view)
                self._size += written
                view = view[written:]

    def _finish(self) -> str:
        self.close()
        part, weights = _part(self._path), self._weights
        with _disk_errors(part):
            digest = sha256_of(part) if part.exists() else hashlib.sha256().hexdigest()
            if digest != weights.sha256:
                part.unlink(missing_ok=True)
                self._size = 0
                raise ConfigError(
                    f"{weights.file} has sha256 {digest}, but {weights.sha256} is pinned: what was fetched is removed; "
                    "pull again, and if it happens again the source no longer holds this file",
                    file=weights.file,
                    expected=weights.sha256,
                    found=digest,
                )
            _to_disk(part)
            part.replace(self._path)
            _to_disk(self._path.parent)
            _write_stamp(self._path)
        return str(self._path)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _stamp(path: Path) -> dict[str, int]:
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": stat.st_ino}


def _stamp_file(path: Path) -> Path:
    return path.with_name("verified.json")


def _read_stamp(path: Path) -> object:
    try:
        return json.loads(_stamp_file(path).read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _write_stamp(path: Path) -> None:
    # A lost or foreign stamp only costs one more reading of the file.
    fresh = _stamp_file(path).with_name(f".verified.{os.getpid()}")
    fresh.write_text(json.dumps(_stamp(path)))
    fresh.replace(_stamp_file(path))


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
