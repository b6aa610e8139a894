"""Who counts the tokens of a story's packs: what its record says, whatever the configuration has become (CX-20)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import ValidationError

from fleet.context.port import TokenCounts, Tokenizers
from fleet.context.token_counter import BY_ESTIMATE, ESTIMATE, Counting, TokenCounter
from fleet.kernel.errors import ConfigError, StoreUnavailable, ToolTimeout
from fleet.kernel.ids import Digest
from fleet.models.chat import ChatRequest
from fleet.models.port import AgentRequest
from fleet.models.prompts.pack_readers import PACK_READERS, PackReader, PackReaders
from fleet.models.weights import TokenizerId
from fleet.story.state import StoryState
from fleet.trees.port import BlobStore

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


_AROUND_MESSAGE = 8
"""Upper guess of the tokens that a chat template puts around a message or a tool."""
_AROUND_PROMPT = 48
"""And around the whole of them, be it with a system text of its own."""


def around_texts(request: ChatRequest) -> int:
    """Upper guess of the tokens that a chat template puts around the texts of a request."""
    return _AROUND_MESSAGE * (len(request.messages) + len(request.tools)) + _AROUND_PROMPT


class PromptCounts:
    """Counts where the files of the tokenizers are.

    Nothing of such a call is ever worked out again, so that a count which cannot be had is no reason to refuse it: the
    estimate takes its place, as it does for models whose tokenizer is unknown, and the log says so.

    Args:
        readers: the models that are configured now.
    """

    def __init__(self, counts: TokenCounts, readers: PackReaders) -> None:
        self._counts, self._readers = counts, readers

    async def of_agent(self, request: AgentRequest) -> AgentRequest:
        """The request with its count, by the model of its chain that counts the most; as it was without one."""
        readers = self._readers.of(request.role, request.model, request.policy)
        counted = await self._tokens([reader.tokenizer for reader in readers], request.texts)
        return request if counted is None else replace(request, counted=counted)

    async def of_chat(self, engine_id: str, request: ChatRequest) -> int | None:
        """The tokens of a prompt for this engine, those of its chat template by guess; None without a count."""
        engine = self._readers.engines.get(engine_id)
        tokenizers = [engine.tokenizer] if engine is not None else []
        counted = await self._tokens(tokenizers, request.texts)
        return None if counted is None else counted + around_texts(request)

    async def _tokens(self, tokenizers: Sequence[TokenizerId | None], texts: tuple[str, ...]) -> int | None:
        if not any(tokenizers):
            return None
        try:
            return await self._counts.tokens(tuple(dict.fromkeys(tokenizers)), texts)
        except (ConfigError, StoreUnavailable, ToolTimeout) as error:
            _LOG.warning("a prompt is estimated and not counted: %s", error.message)
            return None
