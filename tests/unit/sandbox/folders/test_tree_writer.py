"""A tree is written with its modes, whatever the umask, and nothing is written through a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound, InvalidInput
from fleet.sandbox.backends.identity import FIRST_UID, Identity
from fleet.sandbox.folders.tree_reader import capture_tree
from fleet.sandbox.folders.tree_writer import check_tree, write_tree
from fleet.sandbox.folders.workspace import remove_tree
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.tree import FileEntry, Mode, Tree

ME = Identity(os.geteuid(), os.getegid(), is_dropped=False)
FILES: dict[str, tuple[Mode, bytes]] = {
    "a.py": ("100644", b"x = 1\n"),
    "a/b.py": ("100644", b""),
    "a/b/run.sh": ("100755", b"#!/bin/sh\n"),
    "a/z.bin": ("100644", bytes(range(256)) * 5000),
    "deep/er/st/x": ("100644", b"x"),
    "link": ("120000", b"a/b"),
    "a/up": ("120000", b"../../etc/\xff"),
}


async def stored(blobs: MemoryBlobStore, files: dict[str, tuple[Mode, bytes]]) -> Tree:
    return {path: FileEntry(mode, await blobs.put(content)) for path, (mode, content) in files.items()}


@pytest.fixture(params=[0o022, 0o077, 0])
def umask(request: pytest.FixtureRequest) -> Generator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("kind", ["link", "file"])
async def test_name_that_is_taken_is_never_written_through_or_over(tmp_path: Path, kind: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_bytes(b"mine")
    if kind == "link":
        (root / "a.py").symlink_to(outside)
    else:
        (root / "a.py").hardlink_to(outside)
    blobs = MemoryBlobStore()

    with pytest.raises(FileExistsError):
        await write_tree(await stored(blobs, {"a.py": ("100644", b"x = 1\n")}), root, blobs, ME)

    assert outside.read_bytes() == b"mine"


@pytest.mark.usefixtures("umask")
async def test_written_tree_has_its_modes_and_contents(tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    tree = {**await stored(blobs, FILES), "lib/module": FileEntry("160000", digest_of(b"a commit"))}

    stamps = await write_tree(tree, tmp_path, blobs, ME)

    for path, (mode, content) in FILES.items():
        found = (tmp_path / path).lstat()
        if mode == "120000":
            assert os.readlink(os.fsencode(tmp_path / path)) == content  # noqa: PTH115
        else:
            assert (stat.S_IMODE(found.st_mode), (tmp_path / path).read_bytes()) == (int(mode[3:], 8), content)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir() and not path.is_symlink()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o755}
    assert list((tmp_path / "lib" / "module").iterdir()) == []
    assert set(stamps) <= {path for path, (mode, _) in FILES.items() if mode != "120000"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_everything_that_is_written_belongs_to_the_run(tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    tree = {**await stored(blobs, FILES), "lib/module": FileEntry("160000", digest_of(b"a commit"))}

    await write_tree(tree, tmp_path, blobs, Identity(FIRST_UID, FIRST_UID, is_dropped=True))

    owners = {(found.lstat().st_uid, found.lstat().st_gid) for found in [tmp_path, *tmp_path.rglob("*")]}
    assert owners == {(FIRST_UID, FIRST_UID)}
    assert stat.S_IMODE((tmp_path / "a/b/run.sh").stat().st_mode) == 0o755


async def test_tree_without_one_of_its_blobs_is_not_found(tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    tree = {**await stored(blobs, FILES), "b.py": FileEntry("100644", digest_of(b"never stored"))}

    with pytest.raises(ArtifactNotFound):
        await write_tree(tree, tmp_path, blobs, ME)


async def test_path_of_many_folders_is_written_and_read_back(tmp_path: Path) -> None:
    blobs, folder = MemoryBlobStore(), tmp_path / "root"
    folder.mkdir()
    tree = await stored(blobs, {"d/" * 1500 + "x": ("100644", b"deep")})

    await write_tree(tree, folder, blobs, ME)

    root = os.open(folder, os.O_RDONLY)
    try:
        assert (await capture_tree(root, blobs, before={}, discard=(), max_bytes=9)).tree == tree
    finally:
        os.close(root)
        remove_tree(folder)


async def test_folder_that_has_become_a_link_is_not_written_into(tmp_path: Path) -> None:
    blobs = MemoryBlobStore()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to("../outside")

    with pytest.raises(FileExistsError):
        await write_tree(await stored(blobs, {"a/x": ("100644", b"x")}), tmp_path / "root", blobs, ME)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("paths", [("a", "a/b"), ("a/b/c/d", "a/b"), ("z", "a/b", "a/b/c"), ("../x",), ("x/.git/y",)])
def test_tree_that_no_disk_can_hold_is_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        check_tree({path: FileEntry("100644", digest_of(b"")) for path in paths})


NAMES = st.sampled_from(["a", "b.py", "A", "é", '"', "\\", "\n", " ", "],[", "-", "a.b"])
MODES = st.sampled_from(["100644", "100755", "120000"])
ENTRIES = st.tuples(MODES, st.binary(min_size=1, max_size=9).map(lambda content: content.replace(b"\0", b"0")))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), ENTRIES, max_size=12))
async def test_what_was_written_is_read_back_the_same(tmp_path: Path, files: dict[str, tuple[Mode, bytes]]) -> None:
    parents = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    files = {path: (mode, content) for path, (mode, content) in files.items() if path not in parents}
    blobs, folder = MemoryBlobStore(), tmp_path / "root"
    tree = await stored(blobs, files)
    folder.mkdir()
    stamps = await write_tree(tree, folder, blobs, ME)
    root = os.open(folder, os.O_RDONLY)
    try:
        plain = await capture_tree(root, MemoryBlobStore(), before={}, discard=(), max_bytes=1 << 20)
        quick = await capture_tree(root, blobs, before=tree, discard=(), max_bytes=1 << 20, stamps=stamps)
    finally:
        os.close(root)
        remove_tree(folder)
    assert plain.tree == quick.tree == tree
