"""Port: tokenizers of models by the digest of their file (CX-20)."""

from __future__ import annotations

from typing import Protocol

from fleet.context import TokenCounter
from fleet.models import TokenizerId

__all__ = ["TokenCounts", "Tokenizers"]


class Tokenizers(Protocol):
    """Counters of tokens. One is known by the digest of its file; the name is for people alone."""

    async def counter(self, tokenizer: TokenizerId) -> TokenCounter:
        """The counter of this tokenizer, whose `name` is the tokenizer's label; it may be asked from any thread.

        A text has the same count in every process and after every restart. Asking again for a text that was counted
        lately costs next to nothing.

        Raises:
            ConfigError: no file with this digest is here, or it is no tokenizer. Says what to do; nothing else counts
                in its place. Details: tokenizer, sha256, `reason` missing_tokenizer, wrong_digest, not_a_tokenizer or
                missing_library.
        """
        ...


class TokenCounts(Protocol):
    """Counts texts where the files of the tokenizers are, for whoever has none of them at hand."""

    async def tokens(self, tokenizers: tuple[TokenizerId | None, ...], texts: tuple[str, ...]) -> int:
        """The tokens of all texts together, each by itself, for the tokenizer that counts the most.

        None stands for a model whose tokenizer is unknown, and no tokenizer at all for nothing that is known: both are
        counted by the estimate.

        Raises:
            ConfigError: as `Tokenizers.counter`.
            StoreUnavailable, ToolTimeout: nobody counts now.
        """
        ...
