"""Port: bytes by their digest."""

from __future__ import annotations

from typing import Protocol

from fleet.ids import Digest

__all__ = ["BlobStore"]


class BlobStore(Protocol):
    """Immutable bytes. A digest that `put` returned can be read for as long as a stream names it."""

    async def put(self, data: bytes) -> Digest:
        """The bytes are on disk under their digest; putting them again changes nothing. StoreFull, StoreUnavailable."""
        ...

    async def get(self, digest: Digest) -> bytes:
        """The bytes; ArtifactNotFound when there are none, LogCorrupted when they no longer match their digest."""
        ...

    async def has(self, digest: Digest) -> bool:
        """Whether `get` would find it."""
        ...
