"""Words of identifiers and of prose in one form, so that `HttpRequest`, `http_requests` and "HTTP requests" meet."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

MAX_WORD = 64
"""Characters of a word; a longer one is no word that anybody looks for."""

Terms = dict[str, int]
"""Term -> how often it stands there, in order of first use."""

_WORD = re.compile(r"\w+")
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_STOP = frozenset(
    """
    a about after all also an and any are as at be been being but by can could do does each for from had has have how if
    in instead into is it its itself may more must no not of on one only or other otherwise our out shall should so some
    such than that the their them then there these they this those to too under until up use used uses using was we were
    what when where whether which while who will with without would you your
    """.split()  # noqa: SIM905 - a list of ninety quoted words reads worse
)


@lru_cache(maxsize=1 << 16)
def terms_of(word: str) -> tuple[str, ...]:
    """The terms of one word: its parts in their base form, and the whole where it is a compound.

    Both sides of a search pass through here, so the base form need not be a word: `caching` and `cached` are `cach`.
    """
    if len(word) > MAX_WORD:
        return ()
    if not word.isascii():
        return (word.casefold(),)
    parts = [part.lower() for part in _PART.findall(word)]
    whole = word.strip("_").lower()
    terms = [_base_form(part) for part in parts if len(part) > 1 and part not in _STOP]
    if len(parts) > 1:
        terms.append(whole)
    return tuple(terms)


def words_in(text: str) -> list[str]:
    """The words as they are written."""
    return [word for word in _WORD.findall(text) if len(word) <= MAX_WORD]


def count_terms(words: Iterable[str], *, limit: int) -> Terms:
    """How often each term stands in the words; at most `limit` different ones, those that came first."""
    counts: Terms = {}
    for word, often in Counter(words).items():
        for term in terms_of(word):
            if term in counts:
                counts[term] += often
            elif len(counts) < limit:
                counts[term] = often
    return counts


def _base_form(word: str) -> str:
    for ending, instead, at_least in (("ies", "y", 5), ("ing", "", 6), ("ed", "", 5), ("es", "", 5), ("s", "", 4)):
        if word.endswith(ending) and len(word) >= at_least and not word.endswith("ss"):
            word = word[: -len(ending)] + instead
            if ending in ("ing", "ed") and word[-1] == word[-2] and word[-1] not in "aeioulsz":
                word = word[:-1]
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word
