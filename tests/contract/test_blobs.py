"""The contract of BlobStore, on every adapter."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fleet.adapters.blobs import FileBlobStore
from fleet.adapters.memory import MemoryBlobStore
from fleet.digest import digest_of
from fleet.errors import ArtifactNotFound
from fleet.ports import BlobStore


@pytest.fixture(params=["memory", "files"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return MemoryBlobStore() if request.param == "memory" else FileBlobStore(tmp_path / "blobs")


@pytest.mark.rule("GL-13")
@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 5000])
async def test_put_returns_the_digest_under_which_get_finds_the_bytes(blobs: BlobStore, data: bytes) -> None:
    digest = await blobs.put(data)
    assert digest == digest_of(data)
    assert await blobs.has(digest)
    assert await blobs.get(digest) == data


async def test_put_again_changes_nothing(blobs: BlobStore) -> None:
    assert await blobs.put(b"same") == await blobs.put(b"same")
    assert await blobs.get(digest_of(b"same")) == b"same"


async def test_unknown_digest_is_not_found(blobs: BlobStore) -> None:
    digest = digest_of(b"never stored")
    assert not await blobs.has(digest)
    with pytest.raises(ArtifactNotFound) as caught:
        await blobs.get(digest)
    assert caught.value.details == {"digest": digest}


async def test_racing_puts_all_succeed(blobs: BlobStore) -> None:
    data = [b"%d" % (number % 4) * 1000 for number in range(24)]
    digests = await asyncio.gather(*map(blobs.put, data))
    assert [await blobs.get(digest) for digest in digests] == data
