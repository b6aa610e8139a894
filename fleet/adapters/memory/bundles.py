"""In-memory twin of the port BundleStore."""

from __future__ import annotations

from fleet.adapters.clock import SystemClock
from fleet.ids import Digest, StoryId
from fleet.ports import Clock

__all__ = ["MemoryBundleStore"]


class MemoryBundleStore:
    """Bundles kept as long as the object. Implements the port BundleStore.

    Args:
        clock: says when a bundle was left alone for too long.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._held: dict[tuple[StoryId, int, Digest], tuple[bytes, int, int]] = {}

    async def keep(self, story_id: StoryId, version: int, hash: Digest, data: bytes, *, ttl_s: int) -> None:
        """See the port."""
        self._held[story_id, version, hash] = (data, ttl_s, self._until_ms(ttl_s))

    async def get(self, story_id: StoryId, version: int, hash: Digest) -> bytes | None:
        """See the port."""
        key = (story_id, version, hash)
        data, ttl_s, until_ms = self._held.get(key, (b"", 0, 0))
        if until_ms <= self._clock.monotonic_ms():
            self._held.pop(key, None)
            return None
        self._held[key] = (data, ttl_s, self._until_ms(ttl_s))
        return data

    def _until_ms(self, ttl_s: int) -> int:
        return self._clock.monotonic_ms() + ttl_s * 1000
