"""Who counts the tokens of a pack, and how many a reader has room for (CX-20, CX-21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.context.budget import estimate_tokens


class TokenCounter(Protocol):
    """Counts the tokens of texts. The same text has the same count, on every machine and in every process."""

    @property
    def name(self) -> str:
        """`estimate`, or name and digest of a tokenizer."""
        ...

    def count(self, text: str) -> int:
        """The tokens of the text by itself, without those that a chat template puts around it. 0 for an empty one."""
        ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """The counter of models whose tokenizer is unknown: a third of the bytes, rounded up."""

    name: str = "estimate"

    def count(self, text: str) -> int:
        """See `estimate_tokens`."""
        return estimate_tokens(text)


ESTIMATE = Estimate()


@dataclass(frozen=True, slots=True)
class Counting:
    """How one pack is counted.

    Attributes:
        counters: of every model that may come to read the pack, the one that reads it first; at least one.
        room: the most tokens that each of these models can take in as a pack; None knows no bound.
    """

    counters: tuple[TokenCounter, ...] = (ESTIMATE,)
    room: int | None = None

    @property
    def first(self) -> TokenCounter:
        """The counter whose name and count the pack carries."""
        return self.counters[0]

    def most(self, text: str) -> int:
        """Count the text as the model does that counts the most. So a ceiling holds for all of them."""
        return max(counter.count(text) for counter in self.counters)

    def within(self, budget: int) -> int:
        """The budget, or the room that there is where that is less."""
        return budget if self.room is None else min(budget, max(0, self.room))

    @property
    def is_cheap(self) -> bool:
        """Whether a whole pack may be counted as often as one likes."""
        return self.counters == (ESTIMATE,)

    def sum_of(self, lines: Sequence[str]) -> int:
        """About what the lines take together: near enough to search with, and cheap, for a counter keeps counts."""
        return max(sum(counter.count(f"{line}\n") for line in lines) for counter in self.counters)


BY_ESTIMATE = Counting()
"""Where nothing is known of the model that reads."""
