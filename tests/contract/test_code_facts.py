"""The suite of the port FactStore, on the twin in memory and on SQLite; what only a file can suffer comes last."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Generator
from pathlib import Path

import pytest

from fleet.kernel.errors import StoreFull, StoreUnavailable
from fleet.knowledge.facts import Definition, FileFacts
from fleet.knowledge.memory import MemoryFactStore
from fleet.knowledge.port import FactStore
from fleet.knowledge.sqlite import SqliteFactStore

FACTS = FileFacts(
    lines=3,
    symbols=(Definition("function", "f", 1, 3),),
    imports=("os",),
    names={"f": 1},
    prose={"größe": 2},
    texts={"x": 1},
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "knowledge" / "facts.sqlite"


@pytest.fixture
def on_disk(file: Path) -> Generator[SqliteFactStore]:
    store = SqliteFactStore(file)
    yield store
    store.close()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest) -> FactStore:
    return MemoryFactStore() if request.param == "memory" else request.getfixturevalue("on_disk")


async def test_what_was_kept_is_read_and_nothing_else(store: FactStore) -> None:
    await store.keep({"a": FACTS, "b": FileFacts()})
    assert await store.read(["b", "a", "c"]) == {"a": FACTS, "b": FileFacts()}
    assert await store.read([]) == {}


async def test_keeping_again_replaces(store: FactStore) -> None:
    await store.keep({"a": FACTS})
    await store.keep({"a": FileFacts(lines=9)})
    assert await store.read(["a"]) == {"a": FileFacts(lines=9)}


async def test_many_keys_are_read_at_once(store: FactStore) -> None:
    keys = [f"k{n}" for n in range(1200)]
    await store.keep({key: FileFacts(lines=1) for key in keys})
    assert set(await store.read(keys)) == set(keys)


async def test_racing_writers_all_succeed(store: FactStore) -> None:
    await asyncio.gather(*(store.keep({f"k{n}": FACTS, "same": FACTS}) for n in range(12)))
    assert len(await store.read(["same", *(f"k{n}" for n in range(12))])) == 13


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_what_was_kept_longest_ago_makes_room(kind: str, file: Path) -> None:
    is_memory = kind == "memory"
    store = MemoryFactStore(max_files=10) if is_memory else SqliteFactStore(file, max_bytes=200_000)
    facts = FileFacts(prose={f"word{n}": n for n in range(500)})
    keys = [f"k{n}" for n in range(100)]
    for key in keys:
        await store.keep({key: facts})
    left = await store.read(keys)
    assert 5 <= len(left) < 60
    assert list(left) == keys[-len(left) :]
    if isinstance(store, SqliteFactStore):
        store.close()


async def test_file_is_read_by_the_next_process_and_by_nobody_else_on_the_machine(
    on_disk: SqliteFactStore, file: Path
) -> None:
    await on_disk.keep({"a": FACTS})
    other = SqliteFactStore(file)
    assert await other.read(["a"]) == {"a": FACTS}
    await other.keep({"b": FACTS})
    other.close()
    assert await on_disk.read(["b"]) == {"b": FACTS}
    assert file.stat().st_mode & 0o777 == 0o600


async def test_damaged_row_is_not_there(on_disk: SqliteFactStore, file: Path) -> None:
    await on_disk.keep({"a": FACTS, "b": FACTS})
    on_disk.close()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE facts SET data = ? WHERE key = 'a'", (b'{"lines": ',))
    db.close()
    assert await on_disk.read(["a", "b"]) == {"b": FACTS}


async def test_file_that_is_no_database_is_thrown_away(on_disk: SqliteFactStore, file: Path) -> None:
    await on_disk.keep({"a": FACTS})
    on_disk.close()
    file.write_bytes(b"no database at all, and long enough to be looked at " * 50)
    assert await on_disk.read(["a"]) == {}
    await on_disk.keep({"a": FACTS})
    assert await on_disk.read(["a"]) == {"a": FACTS}


async def test_place_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    store = SqliteFactStore(tmp_path / "taken" / "facts.sqlite")
    with pytest.raises(StoreUnavailable, match="remove the file"):
        await store.read(["a"])


async def test_full_disk_is_store_full(on_disk: SqliteFactStore, file: Path) -> None:
    await on_disk.keep({"a": FACTS})
    on_disk._opened().execute("PRAGMA max_page_count=5")  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(StoreFull):
        await on_disk.keep({f"k{n}": FileFacts(prose={f"word{m}": m for m in range(900)}) for n in range(20)})
    assert await on_disk.read(["a"]) == {"a": FACTS}
