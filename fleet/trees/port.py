"""Port: bytes by their digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.kernel.ids import Digest


class BlobStore(Protocol):
    """Immutable bytes. A digest that `put` returned can be read for as long as a stream names it."""

    async def put(self, data: bytes) -> Digest:
        """The bytes are on disk under their digest; putting them again changes nothing. StoreFull, StoreUnavailable."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        ...

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """The bytes of each in this order, all of them in memory at once. The errors of `get` for any of them.

        For many small blobs, whose way here costs more than their bytes.
        """
        ...

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        ...
