"""In-memory twin of the port Tokenizers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fleet.context import TokenCounter, estimate_tokens
from fleet.errors import ConfigError
from fleet.models import TokenizerId

__all__ = ["MemoryTokenizers"]


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
