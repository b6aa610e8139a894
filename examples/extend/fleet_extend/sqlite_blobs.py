"""A blob store: one SQLite file."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.trees.port import BlobStoreParts, BlobStorePlugin


class SqliteOptions(BaseModel):
    """The options of `blobs` in fleet.yaml for kind `sqlite`."""

    file: str = Field(default="blobs.sqlite", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the file in the home of the fleet."""


_TABLE = "CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, data BLOB NOT NULL)"


class SqliteBlobStore:
    """Implements the port BlobStore; every driver error becomes one of ours."""

    def __init__(self, file: Path) -> None:
        self._file = file

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
            # Other processes of the fleet write to it too, each for a moment.
            connection = sqlite3.connect(self._file, timeout=30)
            try:
                with connection:
                    connection.execute(_TABLE)
                    return connection.execute(statement, values).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._file} does not answer: {error}") from error


def make(options: SqliteOptions, parts: BlobStoreParts) -> SqliteBlobStore:
    """The store of one fleet; the file is made by its first use."""
    return SqliteBlobStore(parts.home / options.file)


PLUGIN = BlobStorePlugin(name="sqlite", options=SqliteOptions, make=make, is_shared=False)
