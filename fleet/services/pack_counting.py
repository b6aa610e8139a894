"""Who counts the tokens of a story's packs: what its record says, whatever the configuration has become (CX-20)."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pydantic import ValidationError

from fleet.context import BY_ESTIMATE, ESTIMATE, Counting, TokenCounter
from fleet.errors import ConfigError
from fleet.ids import Digest
from fleet.models import PACK_READERS, PackReader, PackReaders, TokenizerId
from fleet.ports import BlobStore, Tokenizers
from fleet.story import StoryState

__all__ = ["PackCounting"]

_LOG = logging.getLogger(__name__)
_HELD = 64


class PackCounting:
    """Counters by story and role. Holds nothing but what its digest names.

    Args:
        tokenizers: None where there are none; a story that began with one is refused then.
        current: the models that are configured now, for policies that came after a story began.
    """

    def __init__(self, blobs: BlobStore, tokenizers: Tokenizers | None, *, current: PackReaders | None = None) -> None:
        self._blobs, self._tokenizers, self._current = blobs, tokenizers, current
        self._readers: dict[Digest, PackReaders] = {}

    async def of(self, state: StoryState, role: str, policy: str | None = None) -> Counting:
        """How what this role is told is counted; by estimate in a story that wrote down no readers.

        Args:
            policy: of the seat, where it is not the role's own. No pack is cut by it, so that one which the story did
                not write down may be counted as it is configured now.

        Raises:
            ConfigError: a tokenizer that the story began with is not here, or what it wrote down is of a newer kind.
            ArtifactNotFound: what it wrote down is gone.
        """
        digest = state.config.get(PACK_READERS)
        if digest is None:
            return BY_ESTIMATE
        written, profile = await self._readers_of(digest), state.start.model if state.start else None
        if policy is not None and policy not in written.policies:
            return await self._of_later(policy, role, profile)
        return await self._of_readers(written.of(role, profile, policy))

    async def _of_later(self, policy: str, role: str, profile: str | None) -> Counting:
        """By the tokenizers of today; by estimate where they are not here, for nothing on record asks for them."""
        readers = self._current.of(role, profile, policy) if self._current is not None else ()
        try:
            return await self._of_readers(readers)
        except ConfigError as error:
            _LOG.warning("calls of the policy %s are estimated and not counted: %s", policy, error.message)
            return BY_ESTIMATE

    async def _of_readers(self, readers: tuple[PackReader, ...]) -> Counting:
        if not readers:
            return BY_ESTIMATE
        return Counting(await self.counters(reader.tokenizer for reader in readers), _room(readers))

    async def counters(self, tokenizers: Iterable[TokenizerId | None]) -> tuple[TokenCounter, ...]:
        """One for all models that count alike; ConfigError for a tokenizer that is not here."""
        return tuple([await self._counter(one) for one in dict.fromkeys(tokenizers)])

    async def _counter(self, tokenizer: TokenizerId | None) -> TokenCounter:
        if tokenizer is None:
            return ESTIMATE
        if self._tokenizers is None:
            raise ConfigError(
                f"the story is counted by the tokenizer {tokenizer.name!r}, and no tokenizers are known here",
                tokenizer=tokenizer.name,
                sha256=tokenizer.sha256,
            )
        return await self._tokenizers.counter(tokenizer)

    async def _readers_of(self, digest: Digest) -> PackReaders:
        if digest not in self._readers:
            while len(self._readers) >= _HELD:
                del self._readers[next(iter(self._readers))]
            data = await self._blobs.get(digest)
            try:
                self._readers[digest] = PackReaders.model_validate_json(data)
            except ValidationError as error:
                raise ConfigError(
                    f"{digest} says in a way that is not known here which models read the packs of the story: a newer "
                    "version of the fleet wrote it; start that one",
                    digest=str(digest),
                ) from error
        return self._readers[digest]


def _room(readers: tuple[PackReader, ...]) -> int:
    return min(reader.room for reader in readers)
