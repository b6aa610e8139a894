"""What only the blobs in Redis do: keys, limits, damage, faults of server and network."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cluster.local.valkey import StoreKind, Valkey
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import LogCorrupted, PayloadTooLarge, StoreFull, StoreUnavailable
from fleet.log.redis.connection import connect_redis
from fleet.trees.redis import MAX_BLOB_BYTES, RedisBlobStore
from tests.support.fault_proxy import proxied
from tests.support.stores import empty_database, own_database


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as opened:
        yield opened


async def test_blob_lies_in_the_partition_of_its_first_digit(client: Redis) -> None:
    digest = await RedisBlobStore(client).put(b"text")
    (key,) = [key.decode() for key in await client.keys("*")]
    assert key == f"fleet:{{p{int(digest.hex[0], 16):02d}}}:blob:{digest.hex}"
    assert await client.pttl(key) == -1


@pytest.mark.parametrize("damage", [b"damaged", b"", b"blob "])
async def test_damaged_blob_is_never_returned_and_put_mends_it(client: Redis, damage: bytes) -> None:
    blobs = RedisBlobStore(client)
    digest = await blobs.put(b"a blob!")
    (key,) = await client.keys("*")
    await client.set(key, damage)
    with pytest.raises(LogCorrupted, match="no longer matches") as caught:
        await blobs.get(digest)
    assert caught.value.details == {"digest": digest}
    await blobs.put(b"a blob!")
    assert await blobs.get(digest) == b"a blob!"


async def test_blob_at_the_limit_is_stored_and_one_over_it_is_refused(client: Redis) -> None:
    blobs = RedisBlobStore(client, max_bytes=1000)
    await blobs.put(b"x" * 1000)
    with pytest.raises(PayloadTooLarge) as caught:
        await blobs.put(b"x" * 1001)
    assert caught.value.details == {"size_bytes": 1001, "limit_bytes": 1000}
    assert len(await client.keys("*")) == 1
    assert MAX_BLOB_BYTES == 64 * 2**20


async def test_put_whose_reply_is_lost_is_repeated(redis_url: str, client: Redis) -> None:
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.lose_reply_to(b":blob:")
        digest = await RedisBlobStore(through).put(b"text")
        assert proxy.lost == 1
    assert await RedisBlobStore(client).get(digest) == b"text"


async def test_put_without_any_reply_is_unavailable(redis_url: str) -> None:
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.is_silent = True
        with pytest.raises(StoreUnavailable, match="put the blob again"):
            await RedisBlobStore(through, margin_s=0.3).put(b"text")
        assert proxy.swallowed


async def test_blobs_without_a_server_are_unavailable() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    blobs = RedisBlobStore(client)
    for work in (blobs.put(b"text"), blobs.get(digest_of(b"text")), blobs.has(digest_of(b"text"))):
        with pytest.raises(StoreUnavailable):
            await work
    await client.aclose()


async def test_full_server_stores_no_blob_and_stores_it_once_there_is_room(tmp_path: Path) -> None:
    server = Valkey(StoreKind.LOG, tmp_path / "redis")
    await server.start()
    try:
        async with empty_database(server.url) as client:
            blobs = RedisBlobStore(client)
            await client.config_set("maxmemory", "1mb")
            with pytest.raises(StoreFull):
                await blobs.put(b"x" * 3000)
            assert not await blobs.has(digest_of(b"x" * 3000))
            await client.config_set("maxmemory", "0")
            assert await blobs.get(await blobs.put(b"x" * 3000)) == b"x" * 3000
    finally:
        await server.stop()
