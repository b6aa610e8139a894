"""Blobs as files: what the directory looks like, damage and lack of room."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import LogCorrupted, StoreFull, StoreUnavailable
from fleet.trees.files import FileBlobStore, disk_errors


async def test_blob_is_private_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "blobs"
    blobs = FileBlobStore(root)
    digest = await blobs.put(b"secret")
    path = blobs.path(digest)
    assert path == root / digest.hex[:2] / digest.hex
    assert [found for found in root.rglob("*") if found.is_file()] == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(root.stat().st_mode) == 0o700


async def test_put_again_does_not_write_the_file_again(tmp_path: Path) -> None:
    blobs = FileBlobStore(tmp_path)
    path = blobs.path(await blobs.put(b"same"))
    before = path.stat().st_ino
    await FileBlobStore(tmp_path).put(b"same")
    assert path.stat().st_ino == before


@pytest.mark.parametrize("damage", [b"damaged", b"", b"blob "])
async def test_damaged_blob_is_never_returned_and_put_mends_it(tmp_path: Path, damage: bytes) -> None:
    blobs = FileBlobStore(tmp_path)
    digest = await blobs.put(b"a blob!")
    blobs.path(digest).write_bytes(damage)
    with pytest.raises(LogCorrupted) as caught:
        await blobs.get(digest)
    assert caught.value.details == {"digest": digest}
    await blobs.put(b"a blob!")
    assert await blobs.get(digest) == b"a blob!"


async def test_root_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="store blob"):
        await FileBlobStore(root).put(b"data")
    with pytest.raises(StoreUnavailable, match="read blob"):
        await FileBlobStore(root).get(digest_of(b"data"))


async def test_put_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    blobs = FileBlobStore(tmp_path)
    path = blobs.path(digest_of(b"data"))
    (path / "in the way").mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        await blobs.put(b"data")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_disk_without_room_is_store_full(code: int) -> None:
    with pytest.raises(StoreFull) as caught, disk_errors("store a blob"):
        raise OSError(code, "no room")
    assert caught.value.details == {"errno": code}


def test_any_other_error_of_the_disk_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="cannot store a blob"), disk_errors("store a blob"):
        raise PermissionError(errno.EACCES, "denied")


async def test_blob_over_the_limit_is_refused_and_taken_once_there_is_room(tmp_path: Path) -> None:
    blobs = FileBlobStore(tmp_path, limit_bytes=64 << 10)
    first = await blobs.put(b"a" * 40_000)
    with pytest.raises(StoreFull, match=r"raise blobs\.limit_bytes") as error:
        await blobs.put(b"b" * 40_000)
    assert error.value.details == {"used_bytes": 40_960, "limit_bytes": 65_536}
    assert await blobs.put(b"a" * 40_000) == first  # it is there
    assert await blobs.get(first) == b"a" * 40_000
    assert await FileBlobStore(tmp_path, limit_bytes=128 << 10).put(b"b" * 40_000)


async def test_usage_counts_what_any_process_stored(tmp_path: Path) -> None:
    blobs, other = FileBlobStore(tmp_path / "blobs"), FileBlobStore(tmp_path / "blobs")
    assert (await blobs.usage()).used_bytes == 0
    for number in range(20):
        await other.put(str(number).encode() * 3_000)
        use = await blobs.usage()
        stored = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
        assert (use.count, use.used_bytes) == (number + 1, sum(path.stat().st_blocks * 512 for path in stored))
        assert use.held_bytes == use.used_bytes
