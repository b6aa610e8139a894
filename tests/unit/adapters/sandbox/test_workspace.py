from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from fleet.adapters.memory import MemoryBlobStore
from fleet.adapters.sandbox import beneath, workspace
from fleet.adapters.sandbox.beneath import TooLarge, open_beneath, read_beneath, walk_beneath
from fleet.adapters.sandbox.identity import Identity
from fleet.adapters.sandbox.stamps import Stamps
from fleet.adapters.sandbox.tree_reader import WorkspaceFull, capture_tree
from fleet.adapters.sandbox.tree_writer import write_tree
from fleet.adapters.sandbox.workspace import (
    NO_ROOM,
    disk_usage,
    remove_tree,
    store_artifacts,
)
from fleet.digest import digest_of
from fleet.errors import InvalidInput, NotFound
from fleet.tools import FileEntry, Tree


@pytest.fixture
def root(tmp_path: Path) -> Generator[int]:
    folder = tmp_path / "root"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.mark.check("S2")
@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "nul\0", "x" * 5000, "", "a//b", "./a", ".git/config"]
)
def test_check_s2_read_of_a_path_outside_is_refused(root: int, path: str) -> None:
    with pytest.raises(InvalidInput):
        read_beneath(root, path, max_bytes=10)


@pytest.mark.check("S4")
@pytest.mark.parametrize("path", ["%2e%2e/x", "..\\x", "\u2025/x", "missing", "pipe", "sub", "link", "through/f"])
def test_check_s4_read_of_no_regular_file_is_not_found(root: int, folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("x")
    (folder / "link").symlink_to("/etc/passwd")
    (folder / "through").symlink_to("sub")
    os.mkfifo(folder / "pipe")

    with pytest.raises(NotFound):
        read_beneath(root, path, max_bytes=10)


@pytest.mark.check("S4")
def test_check_s4_read_is_capped_also_for_sparse_files(root: int, folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(10 << 30)

    with pytest.raises(TooLarge):
        read_beneath(root, "sparse", max_bytes=1 << 20)
    (folder / "exact").write_bytes(b"12345")
    assert read_beneath(root, "exact", max_bytes=5) == b"12345"


@pytest.mark.parametrize("path", ["through/f", "../root/sub/f", "link", "/etc/passwd"])
def test_open_without_openat2_refuses_links_and_parents_too(root: int, folder: Path, path: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "f").write_text("x")
    (folder / "link").symlink_to("sub/f")
    (folder / "through").symlink_to("sub")

    with pytest.raises(OSError, match="."):
        beneath.open_by_parts(root, path, os.O_RDONLY | os.O_NOFOLLOW)
    descriptor = beneath.open_by_parts(root, "sub/f", os.O_RDONLY | os.O_NOFOLLOW)
    assert os.read(descriptor, 1) == b"x"
    os.close(descriptor)


def test_walk_ends_after_its_number_of_entries(root: int, folder: Path) -> None:
    for n in range(5):
        (folder / str(n)).write_text("")

    assert len(list(walk_beneath(root, max_entries=3))) == 3


def test_walk_does_not_follow_links_to_folders(root: int, folder: Path) -> None:
    (folder / "link").symlink_to("/usr")

    assert [f.path for f in walk_beneath(root)] == ["link"]


def test_open_of_the_root_itself_is_possible(root: int) -> None:
    os.close(open_beneath(root, ".", os.O_RDONLY | os.O_DIRECTORY))


def test_usage_counts_what_lies_on_the_disk(root: int, folder: Path) -> None:
    (folder / "f").write_bytes(b"x" * 100_000)
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)

    assert 100_000 <= disk_usage(root) < 200_000


def test_usage_of_a_path_too_long_to_follow_is_over_every_limit(root: int, folder: Path) -> None:
    here = os.getcwd()  # noqa: PTH109
    try:
        os.chdir(folder)
        for _ in range(25):
            os.mkdir("d" * 200)  # noqa: PTH102
            os.chdir("d" * 200)
    finally:
        os.chdir(here)

    assert disk_usage(root) == NO_ROOM
    assert remove_tree(folder)
    folder.mkdir()


def test_removal_of_nothing_says_so(tmp_path: Path) -> None:
    assert not remove_tree(tmp_path / "missing")


def test_removal_survives_names_like_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    for name in (".removed-0", "a/.removed-1", "a/b"):
        (folder / name).mkdir(parents=True)
    (folder / "a" / "closed").mkdir(mode=0)

    assert remove_tree(folder)
    assert not folder.exists()


async def test_capture_over_its_bytes_is_full(root: int, folder: Path) -> None:
    (folder / "f").write_bytes(b"x" * 100)

    with pytest.raises(WorkspaceFull):
        await capture_tree(root, MemoryBlobStore(), before={}, discard=(), max_bytes=99)


@pytest.mark.check("S6")
async def test_check_s6_artifact_over_its_cap_is_listed_with_its_size(root: int, folder: Path) -> None:
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    (artifact,) = await store_artifacts(root, ["sparse"], MemoryBlobStore())

    assert (artifact.blob, artifact.size_bytes, artifact.truncated) == (None, 1 << 40, True)


@pytest.mark.check("S6")
async def test_check_s6_artifacts_are_capped_in_number(root: int, folder: Path) -> None:
    (folder / "many").mkdir()
    for n in range(workspace.MAX_ARTIFACTS + 5):
        (folder / "many" / str(n)).write_text("")

    assert len(await store_artifacts(root, ["many"], MemoryBlobStore())) == workspace.MAX_ARTIFACTS


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
