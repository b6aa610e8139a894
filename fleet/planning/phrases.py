"""Whole-word matching in story text: masks, phrases, clause starts, scenarios, placeholders (SC-20..SC-27)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple


class Hit(NamedTuple):
    """One match: its span in the NFC text and the words as written there."""

    start: int
    end: int
    text: str


class Prepared(NamedTuple):
    """A text after NFC, and its twin of equal length in which nothing is left that must not match (SC-21)."""

    text: str
    masked: str


# Every alternative starts at a place that the one before it cannot reach again, so that long texts stay linear.
_MASK = re.compile(
    r"""
    ```.*?(?:```|\Z) | ~~~.*?(?:~~~|\Z)                              # fenced code
    | `[^`\n]+`                                                      # inline code
    | (?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}    # e-mail
    | (?<!\w)(?:[a-z][a-z0-9+.-]{1,20}://|www\.)(?:[^\s<>"]*[^\s<>".,;:!?)])?   # URL
    | "[^"\n]*" | “[^”\n]{0,999}” | „[^“”\n]{0,999}[“”] | «[^»\n]{0,999}»    # text in double quotes
    | (?<![\w/.~\\])(?:\.{0,2}/|~/|[a-z]:\\)[\w.@-][\w./\\@-]*(?<![.])   # path with a start
    | (?<![\w./-])(?:[\w.@-]{1,80}/){1,40}[\w.@-]{0,80}\.[a-z0-9]{1,8}(?!\w)     # path to a file with an extension
    | (?<![\w./-])[\w-]{1,80}(?:\.[\w-]{1,80}){0,3}
      \.(?:c|cfg|conf|cpp|css|csv|env|go|h|html?|ini|java|jpe?g|js|json|lock|log|md|pdf|png|py|rs|rst|sh|sql|svg
         |toml|tsx?|txt|xml|ya?ml)(?!\w)                             # bare file name
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_EMPHASIS = re.compile(r"(?<!\w)[*_~]+|[*_~]{1,8}(?!\w)")
_PLACEHOLDER = re.compile(r"<[^<>\n]{1,60}>|\[CLARIFY[^\]\n]*\]")
_MARKER = re.compile(r"(?<!\w)(?:TBD|TODO|FIXME)(?!\w)|\?\?\?|\[CLARIFY[^\]\n]*\]")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
# Start of a line (after a bullet or list number) or after a mark that opens a clause; emphasis is blanked before.
_CLAUSE = r"(?:^[^\S\n]*(?:(?:[-+•‣–]|\d{1,4}[.)])[^\S\n]+)?|[.;,:!?(]\s*)"
_FAR = 1000
"""Characters before a match that are looked at for words: keeps a text of thousands of matches linear."""
_BEFORE, _AFTER = r"(?<!\w)(?<!\w['’])", r"(?!\w)(?!['’]\w)"


def prepare(text: str) -> Prepared:
    """The text ready for matching; both forms have the same length."""
    normal = unicodedata.normalize("NFC", text)
    masked = _MASK.sub(lambda m: re.sub(r"[^\n]", "x", m.group()), normal)
    return Prepared(normal, _EMPHASIS.sub(lambda m: " " * len(m.group()), masked))


def count_words(text: str) -> int:
    """Number of words in the text as written."""
    return len(_WORD.findall(text))


def find_phrases(prepared: Prepared, phrases: Iterable[str]) -> list[Hit]:
    """Every whole-word match, from left to right."""
    pattern = _any_of(tuple(phrases), False)
    return [_hit(prepared, m.start("hit"), m.end("hit")) for m in pattern.finditer(prepared.masked)]


def find_at_clause_starts(prepared: Prepared, phrases: Iterable[str]) -> list[Hit]:
    """Every whole-word match that opens a clause (SC-22)."""
    pattern = _any_of(tuple(phrases), True)
    return [_hit(prepared, m.start("hit"), m.end("hit")) for m in pattern.finditer(prepared.masked)]


def find_markers(prepared: Prepared) -> list[Hit]:
    """TBD, TODO, FIXME, ??? and [CLARIFY...], in upper case only (SC-25)."""
    return [_hit(prepared, *m.span()) for m in _MARKER.finditer(prepared.masked)]


def has_placeholder(prepared: Prepared) -> bool:
    """True when the text holds `<...>` or `[CLARIFY...]` (SC-27)."""
    return _PLACEHOLDER.search(prepared.masked) is not None


def is_open(prepared: Prepared, hit: Hit) -> bool:
    """True when a placeholder follows the match directly, so that it earns nothing (SC-27)."""
    rest = prepared.masked[hit.end :].lstrip()
    return _PLACEHOLDER.match(rest) is not None


def is_negated(prepared: Prepared, hit: Hit, negation: Iterable[str], *, reach: int) -> bool:
    """True when a negation word is among the `reach` words before the match (SC-23)."""
    before = prepared.masked[max(0, hit.start - _FAR) : hit.start]
    words = _WORD.findall(before)[-reach:]
    pattern = _any_of(tuple(negation), False)
    return any(pattern.fullmatch(w) for w in words)


def has_scenario(
    criteria: Sequence[Prepared], *, given: Iterable[str], when: Iterable[str], then: Iterable[str]
) -> bool:
    """True when a given-word, later a when-word and later a then-word open clauses of the joined criteria (SC-22)."""
    text = Prepared("\n".join(c.text for c in criteria), "\n".join(c.masked for c in criteria))
    position = -1
    for phrases in (given, when, then):
        end = next((h.end for h in find_at_clause_starts(text, phrases) if h.start > position), None)
        if end is None:
            return False
        position = end - 1
    return True


def has_outcome(criterion: Prepared, then: Iterable[str], *, words: int) -> bool:
    """True when a then-word opens a clause and at least so many words follow it (SC-26)."""
    return any(count_words(criterion.masked[h.end :]) >= words for h in find_at_clause_starts(criterion, then))


def _hit(prepared: Prepared, start: int, end: int) -> Hit:
    return Hit(start, end, prepared.text[start:end])


@lru_cache(maxsize=256)
def _any_of(phrases: tuple[str, ...], at_clause_start: bool) -> re.Pattern[str]:
    # The longest first, so that "étant donné que" is not read as "étant donné".
    bodies = [_body(p) for p in sorted(set(phrases), key=lambda p: (-len(p), p))]
    where = _CLAUSE if at_clause_start else ""
    return re.compile(f"{where}{_BEFORE}(?P<hit>{'|'.join(bodies)}){_AFTER}", re.IGNORECASE | re.MULTILINE)


def _body(phrase: str) -> str:
    words = unicodedata.normalize("NFC", phrase).split()
    return r"\s+".join(_word_body(w) for w in words)


def _word_body(word: str) -> str:
    if word == "...":
        return r"\w[\w.-]*(?:\s+\w[\w.-]*){0,3}"
    if word.startswith("*"):
        return r"\w*" + re.escape(word[1:])
    return re.escape(word)
