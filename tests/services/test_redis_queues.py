"""What only inbox, feed and ledger in Redis do."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from hashlib import sha256

import pytest
from redis.asyncio import Redis

from fleet.adapters.redis import RedisEventLog, RedisFeed, RedisInbox, RedisLeaseStore, RedisRunLedger, connect_redis
from fleet.digest import digest_of
from fleet.errors import StoreUnavailable
from fleet.ids import RunKey, StoryId
from fleet.ports import Answer, Claimed
from tests.support.fault_proxy import proxied
from tests.support.stores import append_request, command, empty_database, new_stream, own_database

DONE = Answer(ok=True, result={"n": 1})
KEY = RunKey(sha256(b"run").hexdigest())


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as opened:
        yield opened


@pytest.fixture
async def cache(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url, 10)) as opened:
        yield opened


@pytest.mark.rule("EV-7", "EV-10")
async def test_commands_stay_with_the_log_and_answers_with_the_cache_for_a_day(client: Redis, cache: Redis) -> None:
    inbox = RedisInbox(client, cache)
    sent = command(new_stream())
    await inbox.submit(sent)
    (queue,) = await client.keys("*")
    assert queue.decode().endswith("}:commands")
    (delivery,) = await inbox.take("main/1", timeout_s=2)
    await inbox.acknowledge(delivery, DONE)
    (reply,) = await cache.keys("*")
    assert reply.decode().split("}:")[1] == f"reply:{sent.command_id}"
    assert 86_000 < await cache.ttl(reply) <= 86_400
    assert await client.xlen(queue) == 0
    assert (await client.xpending(queue, "council"))["pending"] == 0


@pytest.mark.rule("EV-22")
async def test_malformed_command_is_parked_once_and_the_others_go_on(client: Redis) -> None:
    inbox = RedisInbox(client, client)
    good = command(new_stream())
    await inbox.submit(good)
    (queue,) = await client.keys("*:commands")
    for raw in (b"{", b"[]", b'{"command_id":"c"}', b'{"command_id":"c","stream":"nonsense","name":"n"}'):
        await client.xadd(queue, {"command": raw})
    await client.xadd(queue, {"other": "field"})
    taken = await inbox.take("main/1", timeout_s=2)
    assert [delivery.command for delivery in taken] == [good]
    parked = [fields for _, fields in await client.xrange(queue.replace(b":commands", b":dlq"))]
    assert len(parked) == 5
    assert parked[0][b"raw"] == b"{"
    assert {fields[b"attempts"] for fields in parked} == {b"1"}
    assert await inbox.take("main/1", timeout_s=0) == []


async def test_take_makes_its_groups_again_when_they_are_gone(client: Redis) -> None:
    inbox = RedisInbox(client, client)
    assert await inbox.take("main/1", timeout_s=0) == []
    await client.flushdb()
    sent = command(new_stream())
    await inbox.submit(sent)
    (delivery,) = await inbox.take("main/1", timeout_s=2)
    assert delivery.command == sent


async def test_take_finds_all_of_more_abandoned_commands_than_one_batch(client: Redis) -> None:
    inbox = RedisInbox(client, client, abandoned_after_s=0.01, batch=2, block_s=0.02)
    stream = new_stream()
    for _ in range(5):
        await inbox.submit(command(stream))
    while await RedisInbox(client, client, batch=2).take("dead/1", timeout_s=0):
        pass
    found: set[str] = set()
    while len(found) < 5:
        for delivery in await inbox.take("main/1", timeout_s=2):
            found.add(delivery.command.command_id)
            await inbox.acknowledge(delivery, DONE)
    assert await inbox.take("main/1", timeout_s=0.05) == []


async def test_take_and_answer_without_a_server_are_unavailable() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    inbox = RedisInbox(client, client)
    with pytest.raises(StoreUnavailable):
        await inbox.take("main/1", timeout_s=1)
    with pytest.raises(StoreUnavailable):
        await inbox.submit(command(new_stream()))
    await client.aclose()


async def test_take_from_a_key_of_another_type_is_unavailable(client: Redis) -> None:
    inbox = RedisInbox(client, client)
    assert await inbox.take("main/1", timeout_s=0) == []
    await client.delete("fleet:{p03}:commands")
    await client.set("fleet:{p03}:commands", "no stream")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await inbox.take("main/1", timeout_s=0)
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await RedisInbox(client, client).take("main/1", timeout_s=0)
    await client.delete("fleet:{p03}:commands")
    assert await inbox.take("main/1", timeout_s=0) == []


async def test_feed_waits_longer_than_one_block_of_the_server(client: Redis) -> None:
    feed = RedisFeed(client, block_s=0.02)
    cursor = await feed.position()
    assert await feed.wait(cursor, timeout_s=0.1) == ([], cursor)


async def test_feed_is_trimmed_and_the_log_is_not(client: Redis) -> None:
    log, stream = RedisEventLog(client, max_hints=1), new_stream()
    head = None
    for _ in range(300):
        head = (await log.append(append_request(stream, head))).head
    (feed,) = await client.keys("*:feed")
    assert await client.xlen(feed) < 300
    assert len(await log.read(stream)) == 300


@pytest.mark.rule("RC-54")
async def test_claim_of_a_run_whose_reply_is_lost_is_still_claimed(redis_url: str, client: Redis) -> None:
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.lose_reply_to(b"EVALSHA")
        proxy.lose_reply_to(b"EVAL")
        outcome = await RedisRunLedger(through).claim(
            KEY, story=StoryId("st-one"), epoch=1, spec=digest_of(b"spec"), supervisor="node-a", ttl_s=30
        )
        assert proxy.lost == 2
    assert outcome == Claimed()


async def test_claim_of_a_lease_whose_reply_is_lost_holds_the_newest_epoch(redis_url: str, client: Redis) -> None:
    leases = RedisLeaseStore(client)
    await leases.claim(new_stream(), "main/1", ttl_s=5)
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.lose_reply_to(b"EVALSHA")
        lease = await RedisLeaseStore(through).claim(new_stream(), "main/1", ttl_s=5)
        assert proxy.lost == 1
    assert lease.epoch == 2
    await leases.renew(lease)
