"""What only the event log in Redis does: keys, faults of server and network, damage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cluster.local.valkey import StoreKind, Valkey
from fleet.events.envelope import Head, StoredEvent
from fleet.kernel.errors import CommitUnknown, LogCorrupted, LogRegressed, OwnershipLost, StoreFull, StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, Snapshot
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from tests.support.fault_proxy import proxied
from tests.support.stores import append_request, empty_database, new_stream, own_database

STREAM = StreamId("story:st-keys")


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    async with empty_database(own_database(redis_url)) as opened:
        yield opened


@pytest.fixture
async def server(tmp_path: Path) -> AsyncGenerator[Valkey]:
    """A server of this test's own, which it may kill or fill."""
    valkey = Valkey(StoreKind.LOG, tmp_path / "redis")
    await valkey.start()
    yield valkey
    await valkey.stop()


@pytest.mark.rule("EV-1", "EV-3", "EV-4", "EV-5", "EV-7", "EV-11")
async def test_append_writes_the_keys_and_fields_of_the_specification(client: Redis) -> None:
    lease = await RedisLeaseStore(client).claim(STREAM, "main/1", ttl_s=15)
    outcome = await RedisEventLog(client).append(
        append_request(STREAM, Head(epoch=1), bodies=[b"1", b"2"], command_id="st-keys/step/finish")
    )
    assert isinstance(outcome, Appended)
    keys = {key.decode() for key in await client.keys("*")}
    (log_key,) = (key for key in keys if key.endswith(":log"))
    tag = log_key.split("}")[0] + "}"
    assert keys == {
        *(f"{tag}:story:st-keys:{part}" for part in ("log", "head", "lease", "cmds")),
        *(f"{tag}:{part}" for part in ("open", "streams", "feed")),
    }
    assert tag[:8] == "fleet:{p"
    assert tag[8:10] in {f"{number:02d}" for number in range(16)}
    entries = await client.xrange(log_key)
    assert [entry_id for entry_id, _ in entries] == [b"1-0", b"2-0"]
    assert list(entries[0][1]) == [b"t", b"s", b"b", b"ts", b"e", b"c", b"a", b"k", b"p", b"h"]
    head = {b"v": b"2", b"h": outcome.head.hash.encode(), b"epoch": b"1", b"status": b"open"}
    assert await client.hgetall(f"{tag}:story:st-keys:head") == head
    assert await client.hgetall(f"{tag}:story:st-keys:cmds") == {b"st-keys/step/finish": b"1-2"}
    assert await client.smembers(f"{tag}:open") == {b"story:st-keys"}
    ((_, hint),) = await client.xrange(f"{tag}:feed")
    assert hint == {b"s": b"story:st-keys", b"v": b"2"}
    held = await client.hgetall(f"{tag}:story:st-keys:lease")
    assert (held[b"owner"], held[b"epoch"]) == (lease.owner.encode(), b"1")
    assert 0 < await client.pttl(f"{tag}:story:st-keys:lease") <= 15_000


@pytest.mark.rule("EV-2")
async def test_platform_stream_lives_in_partition_00(client: Redis) -> None:
    await RedisEventLog(client).append(append_request(StreamId("platform:main")))
    assert await client.exists("fleet:{p00}:platform:main:log") == 1


async def test_append_closes_the_head_with_the_stream(client: Redis) -> None:
    await RedisEventLog(client).append(append_request(STREAM, closes=True))
    (head,) = [key for key in await client.keys("*:head")]
    assert await client.hget(head, "status") == b"closed"


async def test_append_after_the_scripts_were_flushed_goes_on(client: Redis) -> None:
    log = RedisEventLog(client)
    first = await log.append(append_request(STREAM))
    await client.script_flush()
    await log.append(append_request(STREAM, first.head))
    assert len(await log.read(STREAM)) == 2


async def test_read_goes_through_several_pages(client: Redis) -> None:
    log, head = RedisEventLog(client), Head()
    for _ in range(6):
        outcome = await log.append(append_request(STREAM, head, bodies=[b"{}"] * 100))
        head = outcome.head
    assert [event.version for event in await log.read(STREAM)] == list(range(1, 601))
    assert len(await log.read(STREAM, after=10, limit=550)) == 550


@pytest.mark.rule("EV-18")
@pytest.mark.parametrize("marker", [b"EVALSHA", b"XADD"], ids=["known script", "whole script"])
async def test_append_whose_reply_is_lost_is_repeated_and_found_stored_once(
    redis_url: str, client: Redis, marker: bytes
) -> None:
    await client.script_flush()
    if marker == b"EVALSHA":
        await RedisEventLog(client).append(append_request(new_stream()))
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.lose_reply_to(marker)
        outcome = await RedisEventLog(through).append(append_request(STREAM, bodies=[b"1", b"2"]))
        assert proxy.lost == 1
    assert outcome == Duplicate(1, 2)
    assert len(await RedisEventLog(client).read(STREAM)) == 2


@pytest.mark.rule("EV-14", "EV-18")
async def test_append_whose_reply_is_lost_stays_stored_when_the_owner_changes_meanwhile(
    redis_url: str, client: Redis
) -> None:
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        request = append_request(STREAM)
        await RedisEventLog(through).append(append_request(new_stream()))
        proxy.lose_reply_to(b"EVALSHA", times=1_000)
        with pytest.raises(CommitUnknown):
            await RedisEventLog(through, margin_s=0.2).append(request)
        assert proxy.lost >= 2
    await RedisLeaseStore(client).claim(STREAM, "main/2", ttl_s=5)
    assert await RedisEventLog(client).append(request) == Duplicate(1, 1)
    with pytest.raises(OwnershipLost):
        await RedisEventLog(client).append(append_request(STREAM))


@pytest.mark.rule("EV-18")
async def test_silent_network_is_commit_unknown_when_the_margin_ends(redis_url: str) -> None:
    async with proxied(own_database(redis_url)) as (proxy, url), empty_database(url) as through:
        proxy.is_silent = True
        with pytest.raises(CommitUnknown):
            await RedisEventLog(through, margin_s=0.3).append(append_request(STREAM))


async def test_append_without_a_server_is_unavailable_at_once() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match="append to story:st-keys"):
        await RedisEventLog(client).append(append_request(STREAM))
    with pytest.raises(StoreUnavailable):
        await RedisEventLog(client).read(STREAM)
    await client.aclose()


async def test_append_with_a_wrong_password_is_unavailable_and_does_not_show_it(server: Valkey) -> None:
    client = connect_redis(f"redis://:not-the-password@127.0.0.1:{server.port}/0")
    with pytest.raises(StoreUnavailable, match="correct the password") as caught:
        await RedisEventLog(client).append(append_request(STREAM))
    assert "not-the-password" not in str(caught.value)
    await client.aclose()


async def test_append_to_a_full_server_writes_nothing_and_succeeds_once_there_is_room(server: Valkey) -> None:
    async with empty_database(server.url) as client:
        log = RedisEventLog(client)
        request = append_request(STREAM, bodies=[b"x" * 1000] * 3)
        await client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreFull):
            await log.append(request)
        await client.config_set("maxmemory", "0")
        assert await client.keys("*") == []
        assert isinstance(await log.append(request), Appended)


async def store(log: RedisEventLog, request: AppendRequest) -> None:
    """Append as an owner does: the same command again while the server is down."""
    while True:
        try:
            await log.append(request)
            return
        except StoreUnavailable:
            await asyncio.sleep(0.05)


@pytest.mark.rule("EV-18", "EV-19")
async def test_killed_server_keeps_every_acknowledged_append(server: Valkey) -> None:
    acknowledged: list[StreamId] = []
    killed_at: list[int] = []
    client = connect_redis(server.url)
    log = RedisEventLog(client, margin_s=20)

    async def write(stream: StreamId) -> None:
        for number in range(40):
            head = await head_of(log, stream)
            await store(log, append_request(stream, head, command_id=f"{stream.entity}/{number}", bodies=[b"1", b"2"]))
            acknowledged.append(stream)

    async def kill() -> None:
        for threshold in (30, 90):
            while len(acknowledged) < threshold:
                await asyncio.sleep(0.005)
            server.kill()
            killed_at.append(len(acknowledged))
            await server.stop()  # nothing is left to end: this collects its exit status
            await server.start()

    streams = [new_stream() for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        for stream in streams:
            group.create_task(write(stream))
    assert 0 < killed_at[0] < killed_at[1] < len(acknowledged) == 160
    for stream in streams:
        events = await log.read(stream)
        assert [event.command_id for event in events[::2]] == [f"{stream.entity}/{number}" for number in range(40)]
        assert len(events) == (await log.head(stream)).version == 80
    await client.aclose()


async def head_of(log: RedisEventLog, stream: StreamId) -> Head:
    while True:
        try:
            return await log.head(stream)
        except StoreUnavailable:
            await asyncio.sleep(0.05)


async def three_events(client: Redis) -> tuple[str, tuple[StoredEvent, ...]]:
    outcome = await RedisEventLog(client).append(append_request(STREAM, bodies=[b"1", b"2", b"3"]))
    assert isinstance(outcome, Appended)
    (key,) = await client.keys("*:log")
    return key.decode(), outcome.events


async def rewrite(client: Redis, key: str, change: dict[bytes, bytes], *, at: bytes, as_id: bytes = b"") -> None:
    """Replace one entry's fields, as somebody with access to the server could."""
    entries = await client.xrange(key)
    await client.delete(key)
    for entry_id, fields in entries:
        is_it = entry_id == at
        await client.xadd(key, {**fields, **(change if is_it else {})}, id=(as_id or entry_id) if is_it else entry_id)


TAMPERED = {
    "body": {b"b": b"altered"},
    "actor": {b"a": b"user:mallory"},
    "epoch": {b"e": b"7"},
    "link": {b"p": b"f" * 64},
    "no principal": {b"a": b"Mallory!"},
    "no number": {b"s": b"one"},
    "no text": {b"t": b"\xff"},
    "foreign field": {b"z": b""},
}


@pytest.mark.rule("EV-11", "EV-32")
@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
async def test_read_of_an_altered_entry_names_stream_and_version(client: Redis, change: dict[bytes, bytes]) -> None:
    key, _ = await three_events(client)
    await rewrite(client, key, change, at=b"2-0")
    with pytest.raises(LogCorrupted) as caught:
        await RedisEventLog(client).read(STREAM)
    assert caught.value.details == {"stream": STREAM, "version": 2}
    with pytest.raises(LogCorrupted):
        await RedisEventLog(client).read(STREAM, after=1)
    assert len(await RedisEventLog(client).read(STREAM, after=2)) == 1


async def test_read_of_a_rehashed_entry_finds_the_broken_link_after_it(client: Redis) -> None:
    key, _ = await three_events(client)
    other = await RedisEventLog(client).append(append_request(new_stream(), bodies=[b"1", b"other"]))
    assert isinstance(other, Appended)
    await rewrite(client, key, {b"h": other.events[1].hash.encode(), b"b": b"other"}, at=b"2-0")
    with pytest.raises(LogCorrupted):
        await RedisEventLog(client).read(STREAM)


@pytest.mark.rule("EV-32")
async def test_missing_entry_is_found_by_read_and_stops_every_append(client: Redis) -> None:
    key, events = await three_events(client)
    await client.xdel(key, "2-0")
    log = RedisEventLog(client)
    with pytest.raises(LogCorrupted) as caught:
        await log.read(STREAM)
    assert caught.value.details["version"] == 2
    with pytest.raises(LogCorrupted, match="2 entries while its head is at version 3"):
        await log.append(append_request(STREAM, Head(3, events[-1].hash)))
    assert (await log.head(STREAM)).version == 3


async def test_read_of_a_foreign_entry_id_is_corrupted(client: Redis) -> None:
    key, _ = await three_events(client)
    await rewrite(client, key, {}, at=b"3-0", as_id=b"3-5")
    with pytest.raises(LogCorrupted) as caught:
        await RedisEventLog(client).read(STREAM)
    assert caught.value.details["version"] == 3


@pytest.mark.rule("EV-3", "EV-25")
async def test_erase_leaves_the_epoch_and_the_hints_alone(client: Redis) -> None:
    log, leases = RedisEventLog(client), RedisLeaseStore(client)
    lease = await leases.claim(STREAM, "main/1", ttl_s=15)
    outcome = await log.append(append_request(STREAM, Head(epoch=lease.epoch)))
    await RedisSnapshotStore(client).put(STREAM, Snapshot(version=1, hash="a" * 64, schema="story/1", data=b"fold"))
    await log.erase(STREAM, expected=outcome.head)
    keys = sorted(key.decode().split("}:")[1] for key in await client.keys("*"))
    assert keys == ["feed", "story:st-keys:head"]
    (head,) = await client.keys("*:head")
    assert await client.hgetall(head) == {b"epoch": b"1", b"status": b"erased"}


@pytest.mark.rule("EV-18", "EV-25")
async def test_erase_whose_reply_is_lost_is_repeated(redis_url: str, client: Redis) -> None:
    outcome = await RedisEventLog(client).append(append_request(STREAM))
    async with proxied(own_database(redis_url)) as (proxy, url):
        through = connect_redis(url)
        try:
            proxy.lose_reply_to(b"EVALSHA")
            await RedisEventLog(through).erase(STREAM, expected=outcome.head)
        finally:
            await through.aclose()
        assert proxy.lost == 1
    assert await RedisEventLog(client).streams() == []


@pytest.mark.rule("EV-19")
async def test_refusal_outlives_the_stream_and_its_head(client: Redis) -> None:
    log = RedisEventLog(client)
    await log.append(append_request(STREAM))
    await log.refuse(STREAM, reason="the cursor is ahead")
    # What a server that was restored from an older backup would hold of this stream.
    await client.delete(*await client.keys("*:story:st-keys:*"))
    with pytest.raises(LogRegressed):
        await log.append(append_request(STREAM))
    assert await log.refused() == {STREAM: "the cursor is ahead"}


@pytest.mark.parametrize("entry", [(b"st-keys/a", b"1"), (b"st-keys/a", b"1-x"), (b"two words", b"1-1")])
async def test_damaged_command_table_is_corrupted(client: Redis, entry: tuple[bytes, bytes]) -> None:
    log = RedisEventLog(client)
    await log.append(append_request(STREAM))
    (key,) = await client.keys("*:cmds")
    await client.hset(key, entry[0], entry[1])
    with pytest.raises(LogCorrupted, match="holds a command"):
        await log.commands(STREAM)


@pytest.mark.rule("EV-6")
@pytest.mark.parametrize("damage", ["v", "h", "s", "d", "text"])
async def test_damaged_snapshot_is_none_and_is_replaced(client: Redis, damage: str) -> None:
    snapshots, whole = RedisSnapshotStore(client), Snapshot(version=1, hash="a" * 64, schema="story/1", data=b"fold")
    await snapshots.put(STREAM, whole)
    (key,) = await client.keys("*:snap")
    await (client.hset(key, "v", "one") if damage == "text" else client.hdel(key, damage))
    assert await snapshots.get(STREAM) is None
    await snapshots.put(STREAM, whole)
    assert await snapshots.get(STREAM) == whole
