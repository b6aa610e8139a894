"""Which files a task is about: BM25 over weighted terms, and what is named outright, imports it or is tested by it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.knowledge.facts import Definition
from fleet.knowledge.index import CodeIndex
from fleet.knowledge.languages import Role, stem_of
from fleet.knowledge.words import terms_of, words_in

MAX_QUESTION = 20_000
"""Characters of a question that are read."""
_MAX_TERMS = 60
_K1, _B = 15.0, 0.75
# Weighted terms saturate later than counts do: 1.2 finds a tenth less.
_NAMED_PATH, _NAMED_SYMBOL, _NEIGHBOUR, _TESTED = 1.0, 0.5, 0.1, 0.1
"""Shares of the best BM25 score that a path or a rare name in the question, a neighbour and a test add."""
_NAMED_ALONE = 1.5
"""As much for a name where the question says nothing else: then its definition is what is looked for."""
_NEAR = 10
_PATH = re.compile(r"[\w.-]{1,100}(?:/[\w.-]{1,100}){0,20}")
_NAME = re.compile(r"[A-Za-z_]\w{2,99}")
_DOTTED = re.compile(r"[A-Za-z_]\w{0,99}(?:\.[A-Za-z_]\w{0,99}){1,9}")
_MARKED = re.compile(r"`[~.]?([A-Za-z_]\w{1,99})(?:\(\))?`|\b([A-Za-z_]\w{1,99})\(")


@dataclass(frozen=True, slots=True)
class IndexedText:
    """A text as the index reads it: terms with how often, names and paths that stand in it."""

    terms: Mapping[str, int]
    names: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankedFile:
    """One file of the answer; `line` is where its most fitting definition begins, `reasons` say what spoke for it."""

    path: str
    line: int
    score_milli: int
    reasons: tuple[str, ...]
    symbol: str = ""


def ask(text: str) -> IndexedText:
    """What there is to look for in a text."""
    text = text[:MAX_QUESTION]
    # `Cart.add` names one method, `Cart` alone a class or an ordinary word: it counts where it is marked as code.
    names = dict.fromkeys(".".join(name.split(".")[-2:]) for name in _DOTTED.findall(text))
    names |= dict.fromkeys(one or other for one, other in _MARKED.findall(text))
    names |= dict.fromkeys(name for name in _NAME.findall(text) if _is_compound(name))
    paths = dict.fromkeys(p.strip(".") for p in _PATH.findall(text) if "/" in p or "." in p[1:-1])
    terms = Counter(term for word in words_in(text) for term in terms_of(word))
    return IndexedText(terms=terms, names=tuple(names)[:50], paths=tuple(paths)[:50])


def _is_compound(name: str) -> bool:
    return "_" in name.strip("_") or any(c.isupper() for c in name[1:])


def rank_files(
    index: CodeIndex, question: IndexedText, *, limit: int, roles: frozenset[Role] = frozenset({"source"})
) -> list[RankedFile]:
    """The files of these roles that fit best, the best first; equal ones by path. Files that nothing speaks for are not
    in it."""
    words = _bm25(index, question)
    top = max(words.values(), default=0.0) or 1.0
    scores, reasons = dict(words), {path: ["words"] for path in words}

    def credit(path: str, share: float, reason: str) -> None:
        if path in index.files:
            scores[path] = scores.get(path, 0.0) + share * top
            told = reasons.setdefault(path, [])
            if reason not in told:
                told.append(reason)

    _credit_named(index, question, credit)
    _credit_neighbours(index, dict(scores), top, credit)
    kept = [path for path in scores if index.files[path].role in roles]
    kept.sort(key=lambda path: (-scores[path], path))
    return [_ranked(index, question, path, scores[path], reasons[path]) for path in kept[:limit]]


_Credit = Callable[[str, float, str], None]


def _bm25(index: CodeIndex, question: IndexedText) -> dict[str, float]:
    rarities = {term: index.rarity(term) * (1 + math.log(n)) for term, n in question.terms.items()}
    telling = sorted(rarities, key=lambda term: (-rarities[term], term))[:_MAX_TERMS]
    mean = index.mean_length
    # What a file's length costs is the same for every term of the question.
    norms: dict[str, float] = {}
    scores: dict[str, float] = {}
    for term in telling:
        weight = rarities[term] * (_K1 + 1)
        for path, often in index.holding(term).items():
            norm = norms.get(path)
            if norm is None:
                norm = norms[path] = _K1 * (1 - _B + _B * index.files[path].length / mean)
            scores[path] = scores.get(path, 0.0) + weight * often / (often + norm)
    return scores


def _credit_named(index: CodeIndex, question: IndexedText, credit: _Credit) -> None:
    for place in question.paths:
        for path in index.at(place):
            credit(path, _NAMED_PATH, f"names {place}")
    share = _NAMED_ALONE if _says_names_alone(question) else _NAMED_SYMBOL
    for name in question.names:
        places = list(index.defining(name))
        for path in places[:_NEAR]:
            credit(path, share / len(places), f"defines {name}")


def _says_names_alone(question: IndexedText) -> bool:
    named = {term for name in question.names for word in words_in(name) for term in terms_of(word)}
    return named.issuperset(question.terms)


def _credit_neighbours(index: CodeIndex, scores: Mapping[str, float], top: float, credit: _Credit) -> None:
    near = sorted(scores, key=lambda path: (-scores[path], path))[: 2 * _NEAR]
    for path in near:
        share = min(1.0, scores[path] / top)
        imported = list(index.imported_by(path))
        if index.files[path].role == "test":
            for source in sources_of_test(index, path, imported):
                credit(source, _TESTED * share, f"tested by {path}")
        # A file that imports half of the tree says little about each.
        for other in imported[:50]:
            if other in scores:
                credit(other, _NEIGHBOUR * share / math.sqrt(len(imported)), f"imported by {path}")


def sources_of_test(index: CodeIndex, path: str, imported: Sequence[str]) -> list[str]:
    """The source that a test file is named after: among those that it imports first, else the only one of that name."""
    stem = stem_of(path)
    for part in ("test_", "_test", ".test", "-test", ".spec", "-spec"):
        stem = stem.removeprefix(part).removesuffix(part)
    named = [p for p in index.at_stem(stem) if index.files[p].role == "source"]
    among = [p for p in named if p in set(imported)]
    return among or (named if len(named) == 1 else [])


def _ranked(index: CodeIndex, question: IndexedText, path: str, score: float, reasons: Sequence[str]) -> RankedFile:
    found = best_symbol(index, question, path)
    line, name = (found.line, found.name) if found else (1, "")
    return RankedFile(path, line, round(score * 1000), tuple(reasons[:5]), name)


def best_symbol(index: CodeIndex, question: IndexedText, path: str) -> Definition | None:
    """The definition whose name shares the most telling terms with the question; the first of equals, None without any.

    Terms that stand in many of the file's names say little about one of them.
    """
    best, best_score = None, 0.0
    for symbol in index.files[path].facts.symbols:
        terms = {term for part in symbol.name.split(".")[-2:] for term in terms_of(part)}
        shared = sum(index.rarity(term) for term in terms if term in question.terms)
        score = shared / math.sqrt(1 + len(terms))
        if score > best_score:
            best, best_score = symbol, score
    return best
