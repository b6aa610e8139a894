"""What a run left is read back by content, and what it left alone is not read."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.kernel.digest import digest_of
from fleet.sandbox.backends.identity import Identity
from fleet.sandbox.backends.stamps import NO_STAMPS, Stamps
from fleet.sandbox.folders.tree_reader import WorkspaceFull, capture_tree
from fleet.sandbox.folders.tree_writer import write_tree
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, Mode, Tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def root(folder: Path) -> Generator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


async def test_capture_over_its_bytes_is_full(root: int, folder: Path) -> None:
    (folder / "f").write_bytes(b"x" * 100)

    with pytest.raises(WorkspaceFull):
        await capture_tree(root, MemoryBlobStore(), before={}, discard=(), max_bytes=99)


@dataclass(frozen=True)
class Written:
    """A tree as it was written, and one path of it whose stamp is good for something."""

    blobs: MemoryBlobStore
    tree: Tree
    stamps: Stamps
    path: str


@pytest_asyncio.fixture
async def written(root: int, folder: Path) -> Written:
    blobs = MemoryBlobStore()
    # More than the kernel's clock lets pass in one of its steps.
    files = {f"part_{n % 7}/file_{n:04}.py": f"VALUE = {n:04}\n".encode() for n in range(1500)}
    tree = {path: FileEntry("100644", await blobs.put(content)) for path, content in files.items()}
    me = Identity(os.geteuid(), os.getegid(), is_dropped=False)
    stamps = await write_tree(tree, folder, blobs, me)
    return Written(blobs, tree, stamps, next(iter(stamps)))


async def captured(root: int, at: Written, before: Tree) -> Tree:
    found = await capture_tree(root, at.blobs, before=before, discard=(), max_bytes=1 << 20, stamps=at.stamps)
    return found.tree


async def test_file_with_its_stamp_is_not_read_again(root: int, written: Written) -> None:
    # A lie about what was there before comes back as it is, from exactly those files that are not read.
    lie = digest_of(b"never stored")
    told = {path: FileEntry(entry.mode, lie) for path, entry in written.tree.items()}

    found = await captured(root, written, told)

    assert {path for path, entry in found.items() if entry.blob == lie} == set(written.stamps)
    assert await captured(root, written, written.tree) == written.tree


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"V", b"W"))


def rewrite_and_set_the_clock_back(path: Path) -> None:
    before = path.stat()
    rewrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put_another_in_its_place(path: Path) -> None:
    before = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes().replace(b"V", b"W"))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def write_through_memory(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[0:1] = b"W"


@pytest.mark.parametrize(
    "change", [rewrite, rewrite_and_set_the_clock_back, put_another_in_its_place, write_through_memory]
)
async def test_changed_file_of_the_same_size_is_seen(
    root: int, folder: Path, written: Written, change: Callable[[Path], None]
) -> None:
    content = await written.blobs.get(written.tree[written.path].blob)

    change(folder / written.path)

    changed = FileEntry("100644", digest_of(content.replace(b"V", b"W")))
    assert await captured(root, written, written.tree) == {**written.tree, written.path: changed}


async def test_changed_mode_and_missing_files_are_seen(root: int, folder: Path, written: Written) -> None:
    mode, gone = list(written.stamps)[:2]
    (folder / mode).chmod(0o755)
    (folder / gone).unlink()

    expected = {path: entry for path, entry in written.tree.items() if path != gone}
    expected[mode] = FileEntry("100755", written.tree[mode].blob)
    assert await captured(root, written, written.tree) == expected


async def test_file_of_the_last_step_of_the_clock_has_no_stamp(folder: Path, written: Written) -> None:
    last = max(folder.joinpath(path).stat().st_ctime_ns for path in written.tree)

    assert 0 < len(written.stamps) < len(written.tree)
    assert all(stamp.ctime_ns < last for stamp in written.stamps.values())


@pytest.mark.parametrize("is_stamped", [True, False])
async def test_what_is_not_read_goes_over_from_before(root: int, folder: Path, is_stamped: bool) -> None:
    blobs = MemoryBlobStore()
    names: dict[str, Mode] = {
        "a.py": "100644",
        "gone.py": "100644",
        "build/x": "100644",
        "sub/build/x": "100644",
        "p/__pycache__/a.pyc": "100644",
        "p/.coverage": "100755",
        "module": "160000",
    }
    before = {path: FileEntry(mode, await blobs.put(path.encode())) for path, mode in names.items()}
    stamps = await write_tree(before, folder, blobs, Identity(os.geteuid(), os.getegid(), is_dropped=False))
    for path in ("build/x", "sub/build/x", "p/__pycache__/a.pyc", "p/.coverage"):
        (folder / path).write_text("changed")
    (folder / "build" / "new").write_text("x")
    (folder / "module" / "cloned.py").write_text("x")
    (folder / "p" / ".GIT").mkdir()
    (folder / "p" / ".GIT" / "config").write_text("x")
    (folder / "gone.py").unlink()
    os.mkfifo(folder / "pipe")
    Path(os.fsdecode(bytes(folder) + b"/\xff")).touch()

    found = await capture_tree(
        root, blobs, before=before, discard=("build",), max_bytes=99, stamps=stamps if is_stamped else NO_STAMPS
    )

    expected = {path: entry for path, entry in before.items() if path != "gone.py"}
    expected["sub/build/x"] = FileEntry("100644", digest_of(b"changed"))
    assert (found.tree, found.left_out) == (expected, 2)
    assert await blobs.has(digest_of(b"changed"))
