"""A folder of the user goes into a run and comes back changed, and nothing beside it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kernel.errors import InvalidInput
from fleet.sandbox.folders.local_folder import folder_tree, write_changes
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, Tree

_MAX = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src").mkdir(parents=True)
    (root / "src" / "app.py").write_text("print(1)\n")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("[core]\n")
    return root


async def taken(folder: Path, blobs: MemoryBlobStore) -> dict[str, FileEntry]:
    return dict(await folder_tree(folder, blobs, max_bytes=_MAX))


async def entry(blobs: MemoryBlobStore, text: str, mode: str = "100644") -> FileEntry:
    return FileEntry(mode, await blobs.put(text.encode()))  # pyright: ignore[reportArgumentType]


async def test_folder_is_taken_in_without_its_repository(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    blobs = MemoryBlobStore()
    tree = await taken(folder, blobs)
    assert {path: e.mode for path, e in tree.items()} == {
        "link": "120000",
        "run.sh": "100755",
        "src/app.py": "100644",
    }
    assert await blobs.get(tree["link"].blob) == b"/etc/passwd"


async def test_folder_that_is_missing_or_too_large_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="is no folder"):
        await folder_tree(folder / "nothing", MemoryBlobStore(), max_bytes=_MAX)
    with pytest.raises(InvalidInput, match="holds more than 3 bytes"):
        await folder_tree(folder, MemoryBlobStore(), max_bytes=3)


async def test_changes_are_written_removed_and_made_executable(folder: Path) -> None:
    blobs = MemoryBlobStore()
    before = await taken(folder, blobs)
    after: Tree = {
        "src/app.py": await entry(blobs, "print(2)\n", "100755"),
        "new/deep/file.txt": await entry(blobs, "new"),
    }
    changes = await write_changes(folder, before, after, blobs)
    assert (changes.written, changes.removed, changes.skipped) == (("new/deep/file.txt", "src/app.py"), ("run.sh",), {})
    assert (folder / "src/app.py").read_text() == "print(2)\n"
    assert (folder / "src/app.py").stat().st_mode & 0o111 == 0o111
    assert (folder / "new/deep/file.txt").read_text() == "new"
    assert not (folder / "run.sh").exists()
    assert dict(await taken(folder, blobs)) == dict(after)


@pytest.mark.check("S5")
async def test_links_are_never_written_nor_written_through(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("safe")
    blobs = MemoryBlobStore()
    (folder / "hard").symlink_to(outside)
    before = await taken(folder, blobs)
    after = {
        **{path: e for path, e in before.items() if path != "hard"},
        "hard/file": await entry(blobs, "bad"),
        "hard/other": await entry(blobs, "bad"),
        "evil": await entry(blobs, "/etc", "120000"),
    }
    changes = await write_changes(folder, before, after, blobs)
    assert (changes.written, changes.removed) == ((), ())
    assert set(changes.skipped) == {"hard", "hard/file", "hard/other", "evil"}
    assert (outside / "file").read_text() == "safe"
    assert [p.name for p in outside.iterdir()] == ["file"]


async def test_file_that_the_user_changed_meanwhile_is_left_alone(folder: Path) -> None:
    blobs = MemoryBlobStore()
    before = await taken(folder, blobs)
    (folder / "src/app.py").write_text("mine\n")
    (folder / "new.txt").write_text("mine too\n")
    (folder / "run.sh").unlink()
    (folder / "run.sh").mkdir()
    after = {
        "src/app.py": await entry(blobs, "theirs\n"),
        "new.txt": await entry(blobs, "theirs\n"),
        "run.sh": await entry(blobs, "theirs\n"),
    }
    changes = await write_changes(folder, before, after, blobs)
    assert changes.written == ()
    assert changes.skipped["src/app.py"] == changes.skipped["new.txt"] == "it was changed meanwhile"
    assert "no ordinary file" in changes.skipped["run.sh"]
    assert (folder / "src/app.py").read_text() == "mine\n"


async def test_path_below_a_file_is_left_alone(folder: Path) -> None:
    blobs = MemoryBlobStore()
    before = await taken(folder, blobs)
    changes = await write_changes(folder, before, {**before, "run.sh/inner": await entry(blobs, "x")}, blobs)
    assert set(changes.skipped) == {"run.sh/inner"}


async def test_equal_trees_change_nothing(folder: Path) -> None:
    blobs = MemoryBlobStore()
    before = await taken(folder, blobs)
    changes = await write_changes(folder, before, before, blobs)
    assert (changes.written, changes.removed, changes.skipped) == ((), (), {})


@pytest.mark.parametrize(
    "name",
    [".git /x", ".git./x", "git~1/x", ".git::$INDEX_ALLOCATION/x", ".g\u200cit/x", "a/.GIT . /x", "GIT~2", ".git\\x"],
)
async def test_what_other_systems_take_for_the_repository_is_left_alone(folder: Path, name: str) -> None:
    blobs = MemoryBlobStore()
    after = {
        name: FileEntry("100644", await blobs.put(b"x")),
        "digit~1/.gitx": FileEntry("100644", await blobs.put(b"")),
    }
    changes = await write_changes(folder, {}, after, blobs)
    assert changes.written == ("digit~1/.gitx",)
    assert list(changes.skipped) == [name]
