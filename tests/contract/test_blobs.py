"""The contract of BlobStore, on every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ArtifactNotFound
from fleet.trees.files import FileBlobStore
from fleet.trees.memory import MemoryBlobStore
from fleet.trees.port import BlobStore
from fleet.trees.redis import RedisBlobStore
from tests.support.s3_server import open_s3
from tests.support.stores import empty_database, own_database


@pytest.fixture(params=["memory", "files", "redis", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str | None:
    """Where the blobs of one test are: nowhere, in a directory, in a bucket, or in a database."""
    match request.param:
        case "memory":
            return None
        case "files":
            return tmp_path / "blobs"
        case "s3":
            return "s3"
        case _:
            return own_database(request.getfixturevalue("redis_url"))


@pytest.fixture
async def blobs(place: Path | str | None) -> AsyncGenerator[BlobStore]:
    match place:
        case None:
            yield MemoryBlobStore()
        case Path():
            yield FileBlobStore(place)
        case "s3":
            async with open_s3() as opened:
                yield opened.blobs
        case str():
            async with empty_database(place) as client:
                yield RedisBlobStore(client)


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


async def test_many_are_found_in_the_order_in_which_they_are_asked_for(blobs: BlobStore) -> None:
    digests = [await blobs.put(b"%d" % number) for number in range(40)]
    assert await blobs.get_many([*digests[::-1], digests[7]]) == [b"%d" % n for n in [*range(39, -1, -1), 7]]
    assert await blobs.get_many([]) == []
    with pytest.raises(ArtifactNotFound) as caught:
        await blobs.get_many([digests[0], digest_of(b"never stored"), digests[1]])
    assert caught.value.details == {"digest": digest_of(b"never stored")}
    assert await blobs.get(digests[0]) == b"0"


async def test_racing_puts_all_succeed(blobs: BlobStore) -> None:
    data = [b"%d" % (number % 4) * 1000 for number in range(24)]
    digests = await asyncio.gather(*map(blobs.put, data))
    assert [await blobs.get(digest) for digest in digests] == data
