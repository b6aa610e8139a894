"""Blobs as files of one directory."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, StoreFull, StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.trees.port import DiskUse

_CHUNK = 1 << 18
_FRESH_S = 10.0
_SETTLED_NS = 1_000_000_000
_BLOCK = 4096
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def disk_errors(doing: str) -> Generator[None]:
    """An OSError leaves as StoreFull when there is no room, else as StoreUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StoreFull(f"no room to {doing}: {error}; free disk space and repeat", errno=error.errno) from error
        raise StoreUnavailable(
            f"the blob directory cannot {doing}: {error}; mend it and repeat", errno=error.errno
        ) from error


class BlobCensus:
    """How many bytes the blobs of a directory take, without looking at all of them each time. For any thread.

    A directory whose time has not moved on holds what it held; only the others are looked into.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, threading.Lock()  # one census at a time; the figures belong together
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._used = self._count = 0
        self._at, self._took = float("-inf"), 0.0

    def recent(self) -> int:
        """Bytes as of the last moments, with what this process has added since."""
        with self._lock:
            # A directory that takes long to count is counted less often: at most a hundredth of the time goes there.
            if time.monotonic() - self._at > max(_FRESH_S, 100 * self._took):
                self._look()
            return self._used

    def counted(self) -> tuple[int, int]:
        """Bytes on the disk, and blobs, as of now."""
        with self._lock:
            self._look()
            return self._used, self._count

    def add(self, size: int) -> None:
        """A blob of this size was stored."""
        with self._lock:
            self._used += -(-size // _BLOCK) * _BLOCK

    def _look(self) -> None:
        begun, now = time.monotonic(), time.time_ns()
        names = [entry.name for entry in os.scandir(self._root)] if self._root.is_dir() else []
        self._seen = {name: self._of(name, now) for name in names if len(name) == 2}
        self._used, self._count = (sum(one[place] for one in self._seen.values()) for place in (1, 2))
        self._at = time.monotonic()
        self._took = self._at - begun

    def _of(self, name: str, now: int) -> tuple[int, int, int]:
        moved = (self._root / name).stat().st_mtime_ns
        seen = self._seen.get(name)
        if seen is not None and seen[0] == moved:
            return seen
        with os.scandir(self._root / name) as entries:
            sizes = [entry.stat(follow_symlinks=False).st_blocks * 512 for entry in entries]
        # The clock of the directory moves in steps: one that has just changed may change again unseen.
        return moved if now - moved > _SETTLED_NS else 0, sum(sizes), len(sizes)


class FileBlobStore:
    """Blobs below `root`, as `<first 2 hex digits>/<64 hex digits>`. Implements the port BlobStore.

    A blob becomes visible by one rename after its bytes are on disk, so that no reader ever sees half of one. Files
    have mode 0600 and directories 0700. The directory may be shared by any number of processes of one user.

    Args:
        limit_bytes: on the disk; a new blob beyond it is refused. None refuses none.
    """

    def __init__(self, root: Path, *, limit_bytes: int | None = None) -> None:
        self._root, self._limit, self._census = root, limit_bytes, BlobCensus(root)

    async def put(self, data: bytes) -> Digest:
        """The bytes are on disk under their digest; a damaged blob of the same digest is mended."""
        return await asyncio.to_thread(self._put, data)

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        return await asyncio.to_thread(self._get, digest)

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order."""
        return await asyncio.to_thread(lambda: [self._get(digest) for digest in digests])

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        return await asyncio.to_thread(self.path(digest).is_file)

    async def usage(self) -> DiskUse:
        """What the blobs take on the disk. None is ever evicted: what is on record names them."""
        used, count = await asyncio.to_thread(self._census.counted)
        return DiskUse("blobs", used, used, count, self._limit, folder=str(self._root))

    def path(self, digest: Digest) -> Path:
        """Where the blob lies, if it is stored."""
        return self._root / digest.hex[:2] / digest.hex

    def _put(self, data: bytes) -> Digest:
        digest = digest_of(data)
        path = self.path(digest)
        with disk_errors(f"store blob {digest}"):
            self._make_directory(path.parent)
            if not _holds(path, data):
                self._require_room(digest, len(data))
                _write(path, data)
                self._census.add(len(data))
            # Also when the file was there: another process may not have come to its own fsync yet.
            _sync_directory(path.parent)
        return digest

    def _require_room(self, digest: Digest, size: int) -> None:
        if self._limit is None or (used := self._census.recent()) + size <= self._limit:
            return
        raise StoreFull(
            f"no room to store blob {digest}: blobs take {used:,} bytes of {self._limit:,}; raise blobs.limit_bytes in "
            "fleet.yaml, and the work goes on",
            used_bytes=used,
            limit_bytes=self._limit,
        )

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        _sync_directory(self._root)

    def _get(self, digest: Digest) -> bytes:
        try:
            with disk_errors(f"read blob {digest}"):
                data = _read(f"{self._root}/{digest.hex[:2]}/{digest.hex}")
        except StoreUnavailable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ArtifactNotFound(
                    f"no blob has digest {digest}: it was never stored in this directory", digest=str(digest)
                ) from None
            raise
        if hashlib.sha256(data).hexdigest() != digest.hex:
            raise LogCorrupted(
                f"blob {digest} no longer matches its digest: restore its file from a backup", digest=str(digest)
            )
        return data


def _read(path: str) -> bytes:
    # A tree has tens of thousands of small blobs: a Path and a file object for each would cost more than its bytes.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _CHUNK), b""))
    finally:
        os.close(descriptor)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
