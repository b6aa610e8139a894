"""Port: bundles that somebody asked to be kept for a while (CX-43). Whatever is lost is built again from the log."""

from __future__ import annotations

from typing import Protocol

from fleet.ids import Digest, StoryId

__all__ = ["BundleStore"]


class BundleStore(Protocol):
    """Bytes by story, version and content hash, each for as long as it was asked to be kept after its last use."""

    async def keep(self, story_id: StoryId, version: int, hash: Digest, data: bytes, *, ttl_s: int) -> None:
        """The bytes can be read for `ttl_s` seconds after now, and after each time that somebody does."""
        ...

    async def get(self, story_id: StoryId, version: int, hash: Digest) -> bytes | None:
        """The bytes, kept for their time from now on; None when nothing is there any more. StoreUnavailable."""
        ...
