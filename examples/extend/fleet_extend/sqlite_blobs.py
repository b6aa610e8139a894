"""A store adapter: blobs in one SQLite file."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, StoreUnavailable
from fleet.kernel.ids import Digest


class SqliteBlobStore:
    """Implements the port BlobStore; every driver error becomes one of ours."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._do("CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL)")

    async def put(self, data: bytes) -> Digest:
        """The bytes are in the file under their digest."""
        digest = digest_of(data)
        await asyncio.to_thread(self._do, "INSERT OR IGNORE INTO blobs VALUES (?, ?)", str(digest), data)
        return digest

    async def get(self, digest: Digest) -> bytes:
        """The bytes, checked against their digest."""
        rows = await asyncio.to_thread(self._do, "SELECT data FROM blobs WHERE digest = ?", str(digest))
        if not rows:
            raise ArtifactNotFound(f"no blob has digest {digest}", digest=str(digest))
        if digest_of(rows[0][0]) != digest:
            raise LogCorrupted(f"blob {digest} no longer matches its digest", digest=str(digest))
        return rows[0][0]

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order."""
        return [await self.get(digest) for digest in digests]

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        return bool(await asyncio.to_thread(self._do, "SELECT 1 FROM blobs WHERE digest = ?", str(digest)))

    def _do(self, statement: str, *values: str | bytes) -> list[tuple[bytes, ...]]:
        try:
            connection = sqlite3.connect(self._file, timeout=5)
            try:
                with connection:
                    return connection.execute(statement, values).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._file} does not answer: {error}") from error
