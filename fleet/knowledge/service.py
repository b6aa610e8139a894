"""Repository knowledge of a tree: which files a task is about, and where in them an answer stands.

An index of the whole tree is in memory, at most a few of them; moving one to another tree costs what differs. What is
known of a file goes by the digest of its bytes, so no file is ever read twice for the same content. Files of a
workspace are untrusted: they are read as text, bounded in size, and nothing of them is run.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from fleet.kernel.errors import StoreFull, StoreUnavailable
from fleet.kernel.ids import Digest
from fleet.knowledge.cite import Citation, cite
from fleet.knowledge.extract import extract
from fleet.knowledge.facts import Definition, FactKey, FileFacts, blob_in, fact_key, language_in
from fleet.knowledge.index import CodeIndex
from fleet.knowledge.languages import LANGUAGES, Role, language_of, role_of
from fleet.knowledge.port import FactStore
from fleet.knowledge.rank import IndexedText, RankedFile, ask, rank_files
from fleet.trees.port import BlobStore
from fleet.trees.service import read_listing
from fleet.trees.tree import decode_tree, differing_rows

MAX_FILES = 20_000
"""Of a tree that are indexed; sources come first, then tests, documents and the rest, each by path."""
_HELD = 2
_FEW = 4
"""A listing that shares all but one part in so many with one that is held is not read as a whole."""
_BATCH = 200
"""Files that are read before what is known of them is kept."""
_ORDER: Mapping[Role, int] = {"source": 0, "test": 1, "document": 2, "other": 3}
_EVERYTHING: frozenset[Role] = frozenset(_ORDER)
_Listing = dict[str, FactKey]
"""Path -> under which key the facts of the file are kept; it ends in the digest of the bytes."""


@dataclass(frozen=True, slots=True)
class CodeAnswer:
    """One place of the tree that answers: the file, its lines, and why."""

    file: RankedFile
    place: Citation


@dataclass(frozen=True, slots=True)
class _Held:
    tree: Digest
    data: bytes
    """The listing as it is stored, to be compared with the next one."""
    listing: _Listing
    index: CodeIndex


@dataclass(frozen=True, slots=True)
class _Way:
    """How an index gets to another tree: from which one, what goes and what comes, and the listing it then has."""

    start: _Held | None
    gone: Sequence[str]
    come: _Listing
    listing: _Listing


class CodeKnowledge:
    """Answers over trees in the blob store.

    Args:
        store: keeps what is known of files for other processes; None keeps it no longer than the index.
    """

    def __init__(self, blobs: BlobStore, store: FactStore | None = None, *, max_files: int = MAX_FILES) -> None:
        self._blobs, self._store, self._max_files = blobs, store, max_files
        self._held: list[_Held] = []
        self._made_already: dict[FactKey, FileFacts] = {}
        # An index is moved and read by one call at a time.
        self._lock = asyncio.Lock()

    async def choose_files(
        self, tree: Digest, task: str, *, limit: int = 5, roles: frozenset[Role] = frozenset({"source"})
    ) -> list[RankedFile]:
        """The files that the task is about, the best first; the same tree and text give the same answer.

        Raises:
            ArtifactNotFound: the tree or one of its files is not in the blob store.
        """
        async with self._lock:
            held = await self._index_of(tree)
            return await asyncio.to_thread(rank_files, held.index, ask(task), limit=limit, roles=roles)

    async def search(self, tree: Digest, query: str, *, limit: int = 10) -> list[CodeAnswer]:
        """The files of any kind that answer the query, the best first, each with the lines that say most. Raises as
        `choose_files`."""
        question = ask(query)
        async with self._lock:
            held = await self._index_of(tree)
            ranked = await asyncio.to_thread(rank_files, held.index, question, limit=limit, roles=_EVERYTHING)
            return [CodeAnswer(row, await self._place(held, row, question)) for row in ranked]

    async def definitions(self, tree: Digest, below: str = "") -> dict[str, tuple[Definition, ...]]:
        """What each file at or below the path defines, in order; files that define nothing are left out. Raises as
        `choose_files`."""
        async with self._lock:
            files = (await self._index_of(tree)).index.files
            return {
                path: file.facts.symbols
                for path, file in files.items()
                if file.facts.symbols and (not below or path == below or path.startswith(f"{below}/"))
            }

    async def _place(self, held: _Held, row: RankedFile, question: IndexedText) -> Citation:
        facts = held.index.files[row.path].facts
        if facts.lines == 0:
            return Citation(1, 1, "", "")
        text = (await self._blobs.get(blob_in(held.listing[row.path]))).decode(errors="replace")
        return await asyncio.to_thread(cite, text, facts.symbols, question, held.index.rarity)

    async def _index_of(self, tree: Digest) -> _Held:
        for held in self._held:
            if held.tree == tree:
                return held
        data = await read_listing(self._blobs, tree)
        way = await asyncio.to_thread(self._way, data)
        nearest = way.start
        facts = await self._facts_of(way.come)
        self._made_already = {}
        # Whoever is cancelled from here on leaves a half-moved index, which nobody finds any more.
        if nearest is not None:
            self._held.remove(nearest)
        index = nearest.index if nearest else CodeIndex()
        await asyncio.to_thread(_move, index, way.gone, facts)
        moved = _Held(tree, data, way.listing, index)
        self._held = [moved, *self._held][:_HELD]
        return moved

    def _way(self, data: bytes) -> _Way:
        """From the nearest index that is held; one whose listing differs in a few rows is found without reading it."""
        for held in self._held:
            old, new = differing_rows(held.data, data)
            # Where a listing was cut to the files that fit, what is left depends on all of it.
            if len(old) + len(new) <= len(data) // _FEW and len(held.listing) < self._max_files // 2:
                before, come = _listing(old, self._max_files), _listing(new, self._max_files)
                gone = [path for path in before if path not in come]
                listing = {**held.listing, **come}
                for path in gone:
                    del listing[path]
                changed = {path: key for path, key in come.items() if held.listing.get(path) != key}
                return _Way(held, gone, changed, listing)
        listing = _listing(data, self._max_files)
        nearest = self._nearest(listing)
        before = nearest.listing if nearest else {}
        changed = {path: entry for path, entry in listing.items() if before.get(path) != entry}
        return _Way(nearest, [path for path in before if path not in listing], changed, listing)

    def _nearest(self, listing: _Listing) -> _Held | None:
        """The index that has the fewest files to change; None where most of it would change."""
        if not self._held:
            return None
        differing = {id(held): _differing(held.listing, listing) for held in self._held}
        nearest = min(self._held, key=lambda held: differing[id(held)])
        # A file that changed is counted twice, as one that went and one that came.
        return nearest if differing[id(nearest)] <= len(listing) else None

    async def _facts_of(self, files: _Listing) -> dict[str, FileFacts]:
        """What is known of each file, made where nobody kept it."""
        keys = dict.fromkeys(key for key in files.values() if language_in(key) != "data")
        # Of a call that ran out of time nothing is lost.
        known = {key: self._made_already[key] for key in keys if key in self._made_already}
        if self._store is not None:
            with suppress(StoreUnavailable, StoreFull):
                known |= await self._store.read([key for key in keys if key not in known])
        missing = [key for key in keys if key not in known]
        for start in range(0, len(missing), _BATCH):
            made = await self._made(missing[start : start + _BATCH])
            self._made_already |= made
            known |= made
        return {path: known.get(key) or FileFacts() for path, key in files.items()}

    async def _made(self, keys: Sequence[FactKey]) -> dict[FactKey, FileFacts]:
        files = [(LANGUAGES[language_in(key)], await self._blobs.get(blob_in(key))) for key in keys]
        made = dict(zip(keys, await asyncio.to_thread(extract, files), strict=True))
        if self._store is not None:
            with suppress(StoreUnavailable, StoreFull):
                await self._store.keep(made)
        return made


def _listing(data: bytes, max_files: int) -> _Listing:
    """The files of the tree, links and submodules left out; the most useful ones where there are too many."""
    with _without_collections():
        tree = decode_tree(data)
        files = [path for path, entry in tree.items() if entry.mode in ("100644", "100755")]
        if len(files) > max_files:
            files = sorted(files, key=lambda path: (_ORDER[role_of(path)], path))[:max_files]
        return {path: fact_key(language_of(path).name, tree[path].blob) for path in files}


@contextmanager
def _without_collections() -> Generator[None]:
    """No collection of garbage meanwhile.

    The entries of a listing die by themselves as soon as it is read. Collections in between take them for objects that
    live long, and after a few listings walk through the whole index, which takes longer than everything else here.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _differing(one: _Listing, other: _Listing) -> int:
    return len(one.items() ^ other.items())


def _move(index: CodeIndex, gone: Sequence[str], facts: Mapping[str, FileFacts]) -> None:
    for path in gone:
        index.drop(path)
    for path, known in facts.items():
        index.put(path, known)
