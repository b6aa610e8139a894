"""Words of identifiers and of prose meet in one form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.knowledge.words import MAX_WORD, count_terms, terms_of, words_in


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("requests", "request"),
        ("caching", "cached"),
        ("cache", "caches"),
        ("queries", "query"),
        ("Stores", "store"),
        ("planned", "plans"),
    ],
)
def test_forms_of_one_word_are_one_term(one: str, other: str) -> None:
    assert terms_of(one) == terms_of(other) != ()


def test_compounds_are_their_parts_and_the_whole() -> None:
    assert terms_of("HTTPResponseBase2") == ("http", "respons", "bas", "httpresponsebase2")
    assert terms_of("_get_absolute_url") == ("get", "absolut", "url", "get_absolute_url")
    assert terms_of("class") == ("class",), "a word that ends in two s is no plural"


def test_words_that_say_nothing_have_no_terms() -> None:
    assert terms_of("the") == terms_of("x") == terms_of("a" * (MAX_WORD + 1)) == ()
    assert words_in(f"a.b {'z' * 65}") == ["a", "b"]


def test_words_in_other_scripts_are_terms() -> None:
    assert terms_of("Größe") == terms_of("GRÖSSE") == ("grösse",)


def test_counting_stops_at_the_limit_with_those_that_came_first() -> None:
    assert count_terms(["red", "red", "green", "blue"], limit=2) == {"red": 2, "green": 1}


@settings(max_examples=50)
@given(st.text(max_size=80))
def test_every_word_has_bounded_terms(word: str) -> None:
    assert len(terms_of(word)) <= MAX_WORD
    assert all(terms_of(term) is not None for term in terms_of(word))
