"""The ports of context: packs, bundles, tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.context.token_counter import TokenCounter
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.models.weights import TokenizerId


@dataclass(frozen=True, slots=True)
class PackRequest:
    """`as_of` pins the story's version: the same request gives the same bytes on every machine (CX-25).

    `token_budget` takes the place of the hint for the role (CX-21).

    Attributes:
        shown: ids of what the one who asks sees of the story, as `fleet.context.row_cut.ids_of` names them: the pack
            is of these alone and holds no lesson of other stories (CX-16). None is everything.
    """

    story_id: StoryId
    role: str
    phase: str
    as_of: int
    task_id: EntityId | None = None
    token_budget: int | None = None
    shown: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Pack:
    """The text for one role in one phase; `hash` covers it, `dropped` counts what did not fit, by scope.

    Attributes:
        token_count: as the model that reads the pack first counts them.
        left_out: the ids of what did not fit, by scope, as `dropped` counts them (CX-24).
        counter: what counted: `estimate`, or name and digest of a tokenizer (CX-20).
    """

    text: str
    scopes: tuple[str, ...]
    token_count: int
    budget: int
    hash: Digest
    dropped: tuple[tuple[str, int], ...]
    as_of: int
    counter: str = "estimate"
    left_out: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class CountRequest:
    """Texts of which the tokens are asked for, as the models of the role in this story count them.

    Attributes:
        as_of: a version of the story that has what the count goes by: with which models it was created and started.
        policy: answers instead of the role's own, so that its models count; None for the role's.
    """

    story_id: StoryId
    role: str
    texts: tuple[str, ...]
    as_of: int
    policy: str | None = None


class Packs(Protocol):
    """Context packs, built from the log alone."""

    async def pack(self, request: PackRequest) -> Pack:
        """The pack. PolicyDenied rule `scope_denied` for a cell of CX-2 that is denied; StoryNotFound;
        ContextTooLarge when levels 1-2 of CX-23 exceed the budget; StoreUnavailable: `as_of` is not there in 2 s;
        ConfigError: the tokenizer that the story began with is not here."""
        ...

    async def count(self, request: CountRequest) -> int:
        """The tokens of all texts together, each by itself, for the model of the role that counts the most (CX-20).

        The same request has the same answer on every machine, whatever is configured by then. Raises as `pack` does."""
        ...


@dataclass(frozen=True, slots=True)
class PackActivity:
    """What one builder of packs did since it began; nothing of it is on record."""

    since_ms: int
    queries: int
    """Packs that were asked for and given."""
    hits: int
    """Those of them that were at hand."""
    p95_ms: int | None
    """Time within which 95 of 100 of the last ones were given; None before the first."""


class PackFigureSource(Protocol):
    """What is known of the packs that one builder of packs gave."""

    async def activity(self, projects: frozenset[str] | None) -> PackActivity:
        """Of the packs of stories of these projects alone, None for all. StoreUnavailable, ToolTimeout: not now."""
        ...


class BundleStore(Protocol):
    """Keeps bytes by story, version and content hash. Each stays for as long as asked after its last use."""

    async def keep(self, story_id: StoryId, version: int, hash: Digest, data: bytes, *, ttl_s: int) -> None:
        """The bytes can be read for `ttl_s` seconds after now, and after each time that somebody does."""
        ...

    async def get(self, story_id: StoryId, version: int, hash: Digest) -> bytes | None:
        """The bytes, kept for their time from now on; None when nothing is there any more. StoreUnavailable."""
        ...


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
