"""Bundles and tokenizers in memory, for unit tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.context.budget import estimate_tokens
from fleet.context.token_counter import TokenCounter
from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest, StoryId
from fleet.models.weights import TokenizerId


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


class MemoryTokenizers:
    """Counts by the estimate, under the name of the tokenizer. Implements the port Tokenizers.

    Args:
        sha256s: digests of the tokenizers that are here; others are missing.
    """

    def __init__(self, sha256s: Iterable[str] = ()) -> None:
        self._here = frozenset(sha256s)

    async def counter(self, tokenizer: TokenizerId) -> TokenCounter:
        """See `Tokenizers.counter`."""
        if tokenizer.sha256 not in self._here:
            raise ConfigError(
                f"the tokenizer {tokenizer.name!r} is not here: no file has sha256 {tokenizer.sha256}, and nothing "
                "else counts in its place",
                tokenizer=tokenizer.name,
                sha256=tokenizer.sha256,
                reason="missing_tokenizer",
            )
        return _Counter(tokenizer.label)


@dataclass(frozen=True, slots=True)
class _Counter:
    name: str

    def count(self, text: str) -> int:
        return estimate_tokens(text)
