"""Facts of files in one SQLite file of this node. Processes share it; what is damaged is thrown away and made anew."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from fleet.kernel.errors import StoreFull, StoreUnavailable
from fleet.knowledge.facts import FactKey, FileFacts, decode_facts, encode_facts

_T = TypeVar("_T")
_BATCH = 500
_WAIT_S = 2.0
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_TABLE = (
    "CREATE TABLE IF NOT EXISTS facts (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, data BLOB)"
)
_EVICT = "DELETE FROM facts WHERE number IN (SELECT number FROM facts ORDER BY number LIMIT ?)"


class SqliteFactStore:
    """Implements the port FactStore.

    Args:
        path: of the file; its folder is made when it is missing.
        max_bytes: of the file; above it what was kept longest ago goes.
    """

    def __init__(self, path: Path, *, max_bytes: int = 512 << 20) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._open: sqlite3.Connection | None = None
        # One connection for all threads: held for as long as a statement of one call runs.
        self._lock = threading.Lock()

    async def read(self, keys: Sequence[FactKey]) -> dict[FactKey, FileFacts]:
        """See the port."""
        return await asyncio.to_thread(self._do, lambda db: _read(db, keys))

    async def keep(self, facts: Mapping[FactKey, FileFacts]) -> None:
        """See the port."""
        rows = await asyncio.to_thread(lambda: [(key, encode_facts(known)) for key, known in facts.items()])
        await asyncio.to_thread(self._do, lambda db: _keep(db, rows, self._max_bytes))

    def close(self) -> None:
        """The file is closed; the next call opens it again."""
        with self._lock:
            self._shut()

    def _do(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock, _translated(self._path):
            try:
                return work(self._opened())
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                    raise
                self._start_anew()
                return work(self._opened())

    def _opened(self) -> sqlite3.Connection:
        if self._open is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.touch(mode=0o600)
            self._open = sqlite3.connect(self._path, timeout=_WAIT_S, check_same_thread=False)
            self._open.execute("PRAGMA journal_mode=WAL")
            # A power cut may lose what can be made again.
            self._open.execute("PRAGMA synchronous=OFF")
            self._open.execute(_TABLE)
        return self._open

    def _start_anew(self) -> None:
        self._shut()
        for ending in ("", "-wal", "-shm"):
            Path(f"{self._path}{ending}").unlink(missing_ok=True)

    def _shut(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def _read(db: sqlite3.Connection, keys: Sequence[FactKey]) -> dict[FactKey, FileFacts]:
    found: dict[FactKey, FileFacts] = {}
    for start in range(0, len(keys), _BATCH):
        part = keys[start : start + _BATCH]
        marks = ",".join("?" * len(part))
        for key, data in db.execute(f"SELECT key, data FROM facts WHERE key IN ({marks})", part):
            known = decode_facts(data)
            if known is not None:
                found[key] = known
    return found


def _keep(db: sqlite3.Connection, rows: Sequence[tuple[FactKey, bytes]], max_bytes: int) -> None:
    with db:
        db.executemany("INSERT OR REPLACE INTO facts (key, data) VALUES (?, ?)", rows)
    while _size(db) > max_bytes and (number := db.execute("SELECT count(*) FROM facts").fetchone()[0]) > 1:
        with db:
            db.execute(_EVICT, (max(1, number // 10),))


def _size(db: sqlite3.Connection) -> int:
    """Bytes of the pages that are in use: those of rows that are gone are filled again."""
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


@contextmanager
def _translated(path: Path) -> Generator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        is_full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        kind = StoreFull if is_full else StoreUnavailable
        raise kind(
            f"the facts of files in {path} cannot be used: {error}; look at the disk of this node, or remove the file"
        ) from error
