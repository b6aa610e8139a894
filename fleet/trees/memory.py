"""In-memory twin of the port BlobStore."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound
from fleet.kernel.ids import Digest


class MemoryBlobStore:
    """Bytes by their digest, kept as long as the object. Implements the port BlobStore."""

    def __init__(self) -> None:
        # By the hexadecimal digits, as files are: a text that is no Digest is refused here as well.
        self._blobs: dict[str, bytes] = {}

    async def put(self, data: bytes) -> Digest:
        """The bytes are kept under their digest."""
        digest = digest_of(data)
        self._blobs.setdefault(digest.hex, bytes(data))
        return digest

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none."""
        try:
            return self._blobs[digest.hex]
        except KeyError:
            raise ArtifactNotFound(
                f"no blob has digest {digest}: it was never stored here", digest=str(digest)
            ) from None

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order."""
        return [await self.get(digest) for digest in digests]

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        return digest.hex in self._blobs
