"""Where in a text the answer stands, and which notes answer: both by the words they share with the question."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fleet.knowledge.facts import Definition
from fleet.knowledge.rank import IndexedText
from fleet.knowledge.words import terms_of, words_in

_WINDOW = 6
"""Lines that are looked at together."""
_MAX_LINES, _MAX_LINE = 20_000, 400
_K1, _B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class Citation:
    """The most telling place of a file: its lines from 1, the definition around it, and what stands there."""

    line: int
    end: int
    symbol: str
    text: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was written down outside of the tree, a decision for one; `ref` is its id."""

    ref: str
    text: str


@dataclass(frozen=True, slots=True)
class RankedNote:
    """A note of the answer."""

    note: Note
    score_milli: int


def cite(text: str, symbols: Iterable[Definition], question: IndexedText, rarity: Callable[[str], float]) -> Citation:
    """The lines that together hold the most telling terms of the question, the first of equal ones."""
    lines = [line[:_MAX_LINE] for line in text.replace("\r\n", "\n").split("\n")[:_MAX_LINES]]
    held = [frozenset(t for word in words_in(line) for t in terms_of(word) if t in question.terms) for line in lines]
    worth = {term: rarity(term) for term in question.terms}
    start = _best_window(held, worth)
    window = range(start, min(start + _WINDOW, len(lines)))
    telling = [n for n in window if held[n]] or [start]
    first, last = telling[0], telling[-1]
    shown = "\n".join(line.rstrip() for line in lines[first : min(last, first + 2) + 1])
    return Citation(first + 1, last + 1, _around(symbols, first + 1), shown)


def _best_window(held: Sequence[frozenset[str]], worth: dict[str, float]) -> int:
    """The first line of the window whose terms, each once, are worth most."""
    inside = Counter[str]()
    value = best = 0.0
    at = 0
    for n, terms in enumerate(held):
        for term in terms:
            value += 0.0 if inside[term] else worth[term]
            inside[term] += 1
        for term in held[n - _WINDOW] if n >= _WINDOW else ():
            inside[term] -= 1
            value -= 0.0 if inside[term] else worth[term]
        if value > best + 1e-9:
            best, at = value, max(0, n - _WINDOW + 1)
    return at


def _around(symbols: Iterable[Definition], line: int) -> str:
    inside = [symbol for symbol in symbols if symbol.line <= line <= symbol.end]
    return max(inside, key=lambda symbol: symbol.line).name if inside else ""


def rank_notes(notes: Sequence[Note], question: IndexedText, *, limit: int) -> list[RankedNote]:
    """The notes that share words with the question, the best first (BM25), equal ones by id."""
    counted = [Counter(term for word in words_in(note.text) for term in terms_of(word)) for note in notes]
    mean = sum(terms.total() for terms in counted) / len(counted) if counted else 1.0
    known = Counter(term for terms in counted for term in terms if term in question.terms)
    found: list[RankedNote] = []
    for note, terms in zip(notes, counted, strict=True):
        norm = _K1 * (1 - _B + _B * terms.total() / mean) if mean else _K1
        score = sum(
            math.log(1 + (len(notes) - number + 0.5) / (number + 0.5)) * terms[term] * (_K1 + 1) / (terms[term] + norm)
            for term, number in known.items()
            if terms[term]
        )
        if score > 0:
            found.append(RankedNote(note, round(score * 1000)))
    return sorted(found, key=lambda row: (-row.score_milli, row.note.ref))[:limit]
