"""The index of one tree: which file holds which term, defines which name and is which module. Changed file by file."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fleet.knowledge.facts import FileFacts
from fleet.knowledge.languages import Role, role_of, stem_of
from fleet.knowledge.words import terms_of, words_in

PATH_WEIGHT, SYMBOL_WEIGHT, PROSE_WEIGHT, NAME_WEIGHT, TEXT_WEIGHT = 4.0, 3.0, 2.0, 1.0, 1.0
"""How much a term counts by where it stands; found on another repository than the one that the benchmark reports."""


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """One file: what is known of it, what it is for, and the sum of the weights of its terms."""

    facts: FileFacts
    role: Role
    length: float


class CodeIndex:
    """The files of one tree by their terms, definitions and modules; no method reads anything but its arguments.

    Adding or dropping a file costs as much as that file holds, whatever the size of the tree.
    """

    def __init__(self) -> None:
        self.files: dict[str, IndexedFile] = {}
        self._holding: dict[str, dict[str, float]] = {}
        self._defining: dict[str, dict[str, None]] = {}
        self._modules: dict[str, dict[str, None]] = {}
        self._length = 0.0

    def put(self, path: str, facts: FileFacts) -> None:
        """The file at this path has these facts, whatever it had before."""
        self.drop(path)
        weights = _weights(path, facts)
        added = IndexedFile(facts, role_of(path), sum(weights.values()))
        self.files[path] = added
        self._length += added.length
        for term, weight in weights.items():
            self._holding.setdefault(term, {})[path] = weight
        _enter(self._defining, _defined(facts), path)
        _enter(self._modules, _module_names(path), path)

    def drop(self, path: str) -> None:
        """There is no file at this path."""
        gone = self.files.pop(path, None)
        if gone is None:
            return
        self._length = self._length - gone.length if self.files else 0.0
        # Counted again instead of kept: the terms of all files would be in memory twice.
        _leave(self._holding, _weights(path, gone.facts), path)
        _leave(self._defining, _defined(gone.facts), path)
        _leave(self._modules, _module_names(path), path)

    @property
    def mean_length(self) -> float:
        """Of a file, in weighted terms; 1 when there is no file."""
        return self._length / len(self.files) if self.files else 1.0

    def holding(self, term: str) -> Mapping[str, float]:
        """The files that hold this term, and with what weight."""
        return self._holding.get(term, {})

    def defining(self, name: str) -> Iterable[str]:
        """The files that define this name, given alone or with the class around it."""
        return self._defining.get(name, {})

    def rarity(self, term: str) -> float:
        """How much finding this term tells (the IDF of BM25, always positive)."""
        number = len(self._holding.get(term, ()))
        return math.log(1 + (len(self.files) - number + 0.5) / (number + 0.5))

    def at(self, place: str) -> Iterable[str]:
        """The files that this path, or the end of one, may name."""
        place = place.strip("/")
        if place in self.files:
            return (place,)
        ending = place.rsplit("/", 1)[-1]
        near = self._modules.get(stem_of(ending), {})
        return [path for path in near if path.endswith(f"/{place}")]

    def at_stem(self, stem: str) -> Iterable[str]:
        """The files with this name, whatever their folder and ending; packages by the name of their folder."""
        return self._modules.get(stem, {})

    def imported_by(self, path: str) -> Iterator[str]:
        """The files of the tree that this one imports."""
        found: dict[str, None] = {}
        for name in self.files[path].facts.imports:
            found |= dict.fromkeys(self._resolved(path, name))
        found.pop(path, None)
        return iter(found)

    def _resolved(self, path: str, name: str) -> Iterable[str]:
        name = _absolute(path, name)
        parts = [
            part
            for part in name.replace("::", "/").replace("\\", "/").replace("/", ".").split(".")
            if part not in ("", "crate")
        ]
        # The last part may be a name that is taken from the module.
        for length in (len(parts), len(parts) - 1):
            near = self._modules.get(".".join(parts[:length]), {}) if length > 0 else {}
            if near:
                return sorted(near, key=lambda other: (-_shared(path, other), other))[:1]
        return ()


def _weights(path: str, facts: FileFacts) -> dict[str, float]:
    found: dict[str, float] = {}

    def add(terms: Iterable[str], weight: float) -> None:
        for term in terms:
            found[term] = found.get(term, 0.0) + weight

    add((term for word in words_in(path) for term in terms_of(word)), PATH_WEIGHT)
    for symbol in facts.symbols:
        add(terms_of(symbol.name.rpartition(".")[2]), SYMBOL_WEIGHT)
    # What stands a hundred times in a file is not a hundred times as telling.
    for name, often in facts.names.items():
        add(terms_of(name), NAME_WEIGHT * (1 + math.log(often)))
    for terms, weight in ((facts.prose, PROSE_WEIGHT), (facts.texts, TEXT_WEIGHT)):
        for term, often in terms.items():
            found[term] = found.get(term, 0.0) + weight * (1 + math.log(often))
    return found


def _defined(facts: FileFacts) -> set[str]:
    """Each name alone, and with the class that it belongs to."""
    parts = [symbol.name.rsplit(".", 2)[-2:] for symbol in facts.symbols]
    return {part[-1] for part in parts} | {".".join(part) for part in parts}


def _module_names(path: str) -> list[str]:
    """`a.b.c`, `b.c` and `c` for `a/b/c.py`; a package's own module is named as its folder."""
    parts = [*path.split("/")[:-1], stem_of(path)]
    if parts[-1] in ("__init__", "index", "mod") and len(parts) > 1:
        parts.pop()
    return [".".join(parts[n:]) for n in range(max(0, len(parts) - 8), len(parts))]


def _absolute(path: str, name: str) -> str:
    """The name with what its leading dots stand for put in front."""
    folder = posixpath.dirname(path)
    if name.startswith(("./", "../")):
        return posixpath.normpath(posixpath.join(folder, name)).removesuffix(".js")
    dots = len(name) - len(name.lstrip("."))
    for _ in range(dots - 1):
        folder = posixpath.dirname(folder)
    return f"{folder}/{name[dots:]}" if dots else name


def _shared(one: str, other: str) -> int:
    """How many folders two paths have in common from the top."""
    count = 0
    for a, b in zip(one.split("/")[:-1], other.split("/")[:-1], strict=False):
        if a != b:
            break
        count += 1
    return count


def _enter(table: dict[str, dict[str, None]], keys: Iterable[str], path: str) -> None:
    for key in keys:
        table.setdefault(key, {})[path] = None


def _leave(table: dict[str, dict[str, float]] | dict[str, dict[str, None]], keys: Iterable[str], path: str) -> None:
    for key in keys:
        row = table.get(key)
        if row is not None:
            row.pop(path, None)
            if not row:
                del table[key]
