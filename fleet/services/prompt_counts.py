"""Prompts of calls that no story makes, counted by the tokenizers of the models that are configured (CX-20, MB-22)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from fleet.errors import ConfigError, StoreUnavailable, ToolTimeout
from fleet.models import ChatRequest, PackReaders, TokenizerId
from fleet.ports import AgentRequest, TokenCounts

__all__ = ["PromptCounts", "around_texts"]

_LOG = logging.getLogger(__name__)
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
