"""The prefix cache of the fake engine: whole blocks, chained, least recently used out."""

from __future__ import annotations

from fleet.models.memory import BlockCache


def words(text: str) -> list[str]:
    return text.split()


def test_prefix_of_whole_blocks_hits_and_the_rest_does_not() -> None:
    cache = BlockCache(block_size=2, blocks=100)
    assert cache.use(words("a b c d e")) == 0
    assert cache.use(words("a b c x y")) == 2
    assert cache.use(words("a b c d z")) == 4
    assert cache.use(words("x b c d e")) == 0


def test_last_token_is_computed_even_of_a_prompt_that_is_held_whole() -> None:
    cache = BlockCache(block_size=2, blocks=100)
    cache.use(words("a b c d"))
    assert cache.use(words("a b c d")) == 2


def test_same_words_with_another_adapter_share_nothing() -> None:
    cache = BlockCache(block_size=2, blocks=100)
    cache.use(words("a b c d"), salt="one")
    assert cache.use(words("a b c d"), salt="two") == 0


def test_full_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = BlockCache(block_size=1, blocks=4)
    cache.use(words("a b"))
    cache.use(words("c d"))
    cache.use(words("a b"))
    cache.use(words("e f"))
    assert cache.use(words("c d")) == 0
