"""What only inbox, feed, its group, dead letters and ledger in Redis do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from hashlib import sha256

import pytest
from redis.asyncio import Redis

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, LogCorrupted, NotFound, StoreUnavailable
from fleet.kernel.ids import RunKey, StoryId
from fleet.log.port import MAX_ATTEMPTS, Answer, Command, DeadLetter, Failure, FeedHint
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.feed import RedisFeed, RedisFeedGroup
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.keys import commands_key, dlq_key, partition_of
from fleet.log.redis.lease import RedisLeaseStore
from fleet.log.redis.log import RedisEventLog
from fleet.sandbox.port import Claimed
from fleet.sandbox.redis import RedisRunLedger
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
    (delivery,) = await inbox.take("main/1", timeout_s=60)
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
    taken = await inbox.take("main/1", timeout_s=60)
    assert [delivery.command for delivery in taken] == [good]
    assert await inbox.take("main/1", timeout_s=0) == []
    letters = RedisDeadLetters(client, client)
    parked = await letters.letters()
    assert len(parked) == 5
    assert {letter.failure.raw for letter in parked} >= {"{", "[]", ""}
    assert {(letter.failure.source, letter.failure.code, letter.attempts) for letter in parked} == {
        ("commands", "invalid_input", 1)
    }
    assert all(letter.first_seen_ms <= letter.last_seen_ms for letter in parked)
    for letter in parked:
        with pytest.raises(InvalidInput, match="cannot be retried"):
            await letters.retry(letter.letter_id)
    assert await letters.letters() == parked


@pytest.mark.rule("EV-22")
async def test_malformed_command_is_filed_under_its_stream_if_that_can_be_read(client: Redis) -> None:
    inbox, sent = RedisInbox(client, client), command(new_stream())
    await inbox.submit(sent)
    (queue,) = await client.keys("*:commands")
    await client.xadd(queue, {"command": f'{{"stream":"{sent.stream}"}}'})
    await client.xadd(queue, {"command": b"\xff"})
    await inbox.take("main/1", timeout_s=60)
    filed = {letter.failure.stream for letter in await RedisDeadLetters(client, client).letters()}
    assert filed == {sent.stream, "platform:main"}


async def test_take_makes_its_groups_again_when_they_are_gone(client: Redis) -> None:
    inbox = RedisInbox(client, client)
    assert await inbox.take("main/1", timeout_s=0) == []
    await client.flushdb()
    sent = command(new_stream())
    await inbox.submit(sent)
    (delivery,) = await inbox.take("main/1", timeout_s=60)
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
        for delivery in await inbox.take("main/1", timeout_s=60):
            found.add(delivery.command.command_id)
            await inbox.acknowledge(delivery, DONE)
    assert await inbox.take("main/1", timeout_s=0.05) == []


async def test_take_and_answer_without_a_server_are_unavailable() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    inbox = RedisInbox(client, client)
    with pytest.raises(StoreUnavailable):
        await inbox.take("main/1", timeout_s=60)
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


async def died_of(inbox: RedisInbox, sent: Command) -> None:
    """The command is queued and delivered as often as it may be, each time to a consumer that dies."""
    await inbox.submit(sent)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        (delivery,) = await inbox.take(f"dead/{attempt}", timeout_s=60)
        assert delivery.attempts == attempt


async def is_parked(inbox: RedisInbox, log: Redis) -> DeadLetter:
    """The one letter of what the inbox sets aside; it delivers nothing meanwhile."""
    async with asyncio.timeout(10):
        while not (found := await RedisDeadLetters(log, log).letters()):
            assert await inbox.take("main/1", timeout_s=0.05) == []
    (letter,) = found
    return letter


def hasty(log: Redis, cache: Redis) -> RedisInbox:
    return RedisInbox(log, cache, abandoned_after_s=0.02, block_s=0.02, margin_s=2)


@pytest.mark.rule("EV-22")
async def test_poison_command_is_parked_with_the_log_and_answered_on_the_cache(client: Redis, cache: Redis) -> None:
    inbox, sent = hasty(client, cache), command(new_stream())
    await died_of(inbox, sent)
    letter = await is_parked(inbox, client)
    (dlq,) = await client.keys("*:dlq")
    ((_, fields),) = await client.xrange(dlq)
    names = {"source", "reason", "code", "raw", "attempts", "first_seen", "last_seen", "stream", "version"}
    assert {name.decode() for name in fields} == names | {"id"}
    assert await cache.keys("*:dlq*") == []
    assert await client.xlen(dlq.replace(b":dlq", b":commands")) == 0
    await RedisDeadLetters(client, cache).retry(letter.letter_id)
    assert await cache.keys("*:reply:*") == []
    (delivery,) = await inbox.take("main/1", timeout_s=60)
    assert delivery.command == sent


async def test_poison_command_whose_letter_cannot_be_written_is_kept_and_parked_once_later(client: Redis) -> None:
    inbox, sent = hasty(client, client), command(new_stream())
    await died_of(inbox, sent)
    queue = commands_key(partition_of(sent.stream))
    dlq = dlq_key(partition_of(sent.stream))
    await client.set(dlq, "no stream")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await inbox.take("dying/1", timeout_s=60)
    assert await inbox.answer(sent.command_id, timeout_s=0) is not None
    assert await client.xlen(queue) == 1
    await client.delete(dlq)
    letter = await is_parked(hasty(client, client), client)
    assert await client.xlen(queue) == 0
    await client.delete(queue)
    await client.set(queue, "no stream")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await RedisDeadLetters(client, client).retry(letter.letter_id)
    assert await RedisDeadLetters(client, client).letters() == [letter]


@pytest.mark.rule("EV-23")
async def test_looking_for_abandoned_commands_while_the_cache_is_down_counts_nothing(client: Redis) -> None:
    sent = command(new_stream())
    await hasty(client, client).submit(sent)
    (first,) = await hasty(client, client).take("dead/1", timeout_s=60)
    nowhere = connect_redis("redis://127.0.0.1:1/0")
    for _ in range(MAX_ATTEMPTS + 2):
        with pytest.raises(StoreUnavailable):
            await hasty(client, nowhere).take("main/1", timeout_s=60)
    await nowhere.aclose()
    (again,) = await hasty(client, client).take("main/1", timeout_s=60)
    assert (first.attempts, again.attempts) == (1, 2)


async def test_abandoned_command_is_claimed_by_one_of_eight_consumers(client: Redis) -> None:
    await RedisInbox(client, client).submit(sent := command(new_stream()))
    patient = [RedisInbox(client, client, abandoned_after_s=0.5, block_s=0.02) for _ in range(8)]
    await patient[0].take("dead/1", timeout_s=60)
    found = await asyncio.gather(*[inbox.take(f"main/{n}", timeout_s=0.6) for n, inbox in enumerate(patient)])
    assert [(delivery.command, delivery.attempts) for taken in found for delivery in taken] == [(sent, 2)]


async def test_claim_of_an_abandoned_command_whose_reply_is_lost_counts_once(client: Redis, redis_url: str) -> None:
    await hasty(client, client).submit(command(new_stream()))
    await hasty(client, client).take("dead/1", timeout_s=60)
    async with proxied(own_database(redis_url)) as (proxy, url):
        through = connect_redis(url)
        inbox = RedisInbox(through, client, abandoned_after_s=0.02, block_s=0.02)
        proxy.lose_reply_to(b"EVAL")
        (again,) = await inbox.take("main/1", timeout_s=60)
        assert proxy.lost == 1
        await through.aclose()
    (third,) = await hasty(client, client).take("main/2", timeout_s=60)
    assert (again.attempts, third.attempts) == (2, 3)


async def test_poison_command_that_was_answered_meanwhile_leaves_without_a_letter(client: Redis, cache: Redis) -> None:
    inbox, sent = hasty(client, cache), command(new_stream())
    await died_of(inbox, sent)
    # A consumer that died after it had stored the answer, and before it acknowledged.
    await RedisInbox(client, cache).submit(again := Command(sent.command_id, new_stream(), sent.name, sent.principal))
    taken = await RedisInbox(client, cache).take("late/1", timeout_s=0)
    await inbox.acknowledge(next(delivery for delivery in taken if delivery.command == again), DONE)
    queue = commands_key(partition_of(sent.stream))
    async with asyncio.timeout(10):
        while await client.xlen(queue):
            assert await inbox.take("main/1", timeout_s=0.05) == []
    assert await inbox.answer(sent.command_id, timeout_s=0) == DONE
    assert await RedisDeadLetters(client, cache).letters() == []


async def test_malformed_command_that_was_delivered_too_often_is_parked_as_malformed(client: Redis) -> None:
    inbox = hasty(client, client)
    assert await inbox.take("main/1", timeout_s=0) == []
    entry = await client.xadd("fleet:{p03}:commands", {"command": "{"})
    await client.xreadgroup("council", "dead/1", {"fleet:{p03}:commands": ">"})
    await client.xclaim("fleet:{p03}:commands", "council", "dead/1", 0, [entry], retrycount=9)
    letter = await is_parked(inbox, client)
    assert (letter.failure.code, letter.attempts) == ("invalid_input", 9)


async def test_deleted_command_that_was_left_is_dropped(client: Redis) -> None:
    await hasty(client, client).submit(sent := command(new_stream()))
    await hasty(client, client).take("dead/1", timeout_s=60)
    queue = commands_key(partition_of(sent.stream))
    await client.xtrim(queue, maxlen=0, approximate=False)
    async with asyncio.timeout(10):
        while (await client.xpending(queue, "council"))["pending"]:
            assert await hasty(client, client).take("main/1", timeout_s=0.05) == []


FAILED = Failure("projector", new_stream("st-poison"), 7, code="internal_error", reason="KeyError", raw="{}")


async def parked(letters: RedisDeadLetters) -> DeadLetter:
    for _ in range(MAX_ATTEMPTS):
        letter = await letters.failed(FAILED)
    assert letter
    return letter


@pytest.mark.rule("EV-22")
async def test_eight_callers_that_fail_again_and_again_write_one_letter(client: Redis, redis_url: str) -> None:
    clients = [connect_redis(own_database(redis_url)) for _ in range(8)]
    calls = [RedisDeadLetters(one, one).failed(FAILED) for one in clients for _ in range(6)]
    answers = await asyncio.gather(*calls)
    for one in clients:
        await one.aclose()
    (dlq,) = await client.keys("*:dlq")
    assert await client.xlen(dlq) == 1
    assert answers.count(None) == MAX_ATTEMPTS - 1
    assert len({answer.letter_id for answer in answers if answer}) == 1


async def test_failure_whose_reply_is_lost_counts_once(client: Redis, redis_url: str) -> None:
    await RedisDeadLetters(client, client).failed(FAILED)
    async with proxied(own_database(redis_url)) as (proxy, url):
        through = connect_redis(url)
        letters = RedisDeadLetters(through, through)
        for _ in range(MAX_ATTEMPTS - 2):
            proxy.lose_reply_to(b"EVALSHA")
            assert await letters.failed(FAILED) is None
        proxy.lose_reply_to(b"EVALSHA")
        letter = await letters.failed(FAILED)
        assert proxy.lost == MAX_ATTEMPTS - 1
        await through.aclose()
    assert letter
    assert letter.attempts == MAX_ATTEMPTS
    assert await RedisDeadLetters(client, client).letters() == [letter]


async def test_retry_whose_reply_is_lost_is_done_once(client: Redis, redis_url: str) -> None:
    inbox, sent = hasty(client, client), command(new_stream())
    await died_of(inbox, sent)
    letter = await is_parked(inbox, client)
    async with proxied(own_database(redis_url)) as (proxy, url):
        through = connect_redis(url)
        proxy.lose_reply_to(b"\r\n300000\r\n")
        proxy.lose_reply_to(b"\r\n300000\r\n")
        assert await RedisDeadLetters(through, client).retry(letter.letter_id) == letter
        assert proxy.lost == 2
        await through.aclose()
    taken = await inbox.take("main/1", timeout_s=60)
    assert [delivery.command for delivery in taken] == [sent]


async def test_letters_retried_at_the_same_time_are_retried_once(client: Redis) -> None:
    letter = await parked(RedisDeadLetters(client, client))
    # Connected before, so that all of them find the letter before one of them has removed it.
    await asyncio.gather(*[client.ping() for _ in range(4)])
    calls = [RedisDeadLetters(client, client).retry(letter.letter_id) for _ in range(4)]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert done.count(letter) == 1
    assert sum(isinstance(error, NotFound) for error in done) == 3


async def test_counts_below_the_limit_are_forgotten_in_a_week_and_letters_never(client: Redis) -> None:
    letters = RedisDeadLetters(client, client)
    await letters.failed(FAILED)
    (record,) = await client.keys("*:dlq:dl-*")
    assert 600_000 < await client.ttl(record) <= 604_800
    await parked(letters)
    assert await client.ttl(record) == -1


async def test_letter_deleted_by_hand_may_be_written_again(client: Redis) -> None:
    letters = RedisDeadLetters(client, client)
    first = await parked(letters)
    (dlq,) = await client.keys("*:dlq")
    await client.delete(dlq)
    with pytest.raises(NotFound):
        await letters.retry(first.letter_id)
    assert (await parked(letters)).letter_id == first.letter_id
    assert len(await letters.letters()) == 1


@pytest.mark.parametrize("fields", [{"source": "projector"}, {"source": "nobody"}, {"id": "dl-00-000000000000"}])
async def test_entry_that_is_no_letter_is_named_and_stops_no_consumer(client: Redis, fields: dict[str, str]) -> None:
    letter = await parked(RedisDeadLetters(client, client))
    entry = await client.xadd("fleet:{p03}:dlq", fields)
    with pytest.raises(LogCorrupted, match=entry.decode()) as caught:
        await RedisDeadLetters(client, client).letters()
    assert caught.value.details["key"] == "fleet:{p03}:dlq"
    assert await RedisDeadLetters(client, client).parked("projector") == {FAILED.stream: letter}


async def test_group_makes_itself_again_when_it_is_gone(client: Redis) -> None:
    group = RedisFeedGroup(client)
    assert await group.take("projector/1", timeout_s=0) == []
    await client.flushdb()
    assert (await group.backlog()).pending == 0
    await client.flushdb()
    await RedisEventLog(client).append(append_request(stream := new_stream()))
    (delivery,) = await group.take("projector/1", timeout_s=60)
    assert delivery.hint == FeedHint(stream, 1)


async def test_hints_of_a_dead_consumer_that_were_trimmed_do_not_come(client: Redis) -> None:
    group = RedisFeedGroup(client, abandoned_after_s=0.02, block_s=0.02)
    await RedisEventLog(client).append(append_request(new_stream()))
    assert len(await group.take("dead/1", timeout_s=60)) == 1
    (feed,) = [key for key in await client.keys("*:feed") if await client.xlen(key)]
    await client.xtrim(feed, maxlen=0, approximate=False)
    async with asyncio.timeout(10):
        while (await client.xpending(feed, "projector"))["pending"]:
            assert await group.take("projector/1", timeout_s=0.05) == []


async def test_more_abandoned_hints_than_one_batch_are_all_found(client: Redis) -> None:
    log, stream, head = RedisEventLog(client), new_stream(), None
    for _ in range(7):
        head = (await log.append(append_request(stream, head))).head
    while await RedisFeedGroup(client).take("dead/1", timeout_s=0):
        pass
    group = RedisFeedGroup(client, abandoned_after_s=0.02, batch=2, block_s=0.02)
    found: set[int] = set()
    async with asyncio.timeout(10):
        while len(found) < 7:
            taken = await group.take("projector/1", timeout_s=0.1)
            found |= {delivery.hint.version for delivery in taken}
            await group.acknowledge(taken)
    assert await group.take("projector/1", timeout_s=0.05) == []


async def test_entry_that_is_no_hint_leaves_the_group_and_the_others_go_on(client: Redis) -> None:
    group = RedisFeedGroup(client)
    await RedisEventLog(client).append(append_request(stream := new_stream()))
    (feed,) = await client.keys("*:feed")
    for fields in ({"s": "nonsense", "v": "1"}, {"s": stream, "v": "x"}, {"v": "1"}):
        await client.xadd(feed, fields)
    assert [delivery.hint for delivery in await group.take("projector/1", timeout_s=60)] == [FeedHint(stream, 1)]
    assert (await client.xpending(feed, "projector"))["pending"] == 1


async def test_two_groups_get_all_hints_each(client: Redis) -> None:
    await RedisEventLog(client).append(append_request(stream := new_stream()))
    for name in ("projector", "auditor"):
        (delivery,) = await RedisFeedGroup(client, group=name).take("one/1", timeout_s=60)
        assert delivery.hint == FeedHint(stream, 1)


@pytest.mark.rule("AP-121")
async def test_backlog_of_a_feed_from_which_a_hint_was_deleted_is_at_most_what_is_there(client: Redis) -> None:
    log, stream, head = RedisEventLog(client), new_stream(), None
    group = RedisFeedGroup(client)
    for _ in range(4):
        head = (await log.append(append_request(stream, head))).head
    (feed,) = await client.keys("*:feed")
    second = (await client.xrange(feed))[1][0]
    await client.xdel(feed, second)
    measured = await group.backlog()
    assert measured.pending == 3


async def test_group_without_a_server_is_unavailable() -> None:
    client = connect_redis("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable):
        await RedisFeedGroup(client).take("projector/1", timeout_s=60)
    with pytest.raises(StoreUnavailable):
        await RedisDeadLetters(client, client).failed(FAILED)
    with pytest.raises(StoreUnavailable):
        await RedisDeadLetters(client, client).letters()
    await client.aclose()


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


@pytest.mark.rule("AP-103")
async def test_hundreds_of_readers_of_one_process_wait_at_the_same_time(client: Redis) -> None:
    log, feed = RedisEventLog(client), RedisFeed(client)
    cursor = await feed.position()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = [group.create_task(feed.wait(cursor, timeout_s=50)) for _ in range(300)]
        await eventually_connected(client, at_least=300)
        await log.append(append_request(stream := new_stream()))
    assert {hint.stream for task in waiting for hint in task.result()[0]} == {stream}


async def eventually_connected(client: Redis, *, at_least: int) -> None:
    """So many clients stand in a blocking call."""
    while int((await client.info("clients"))["blocked_clients"]) < at_least:
        await asyncio.sleep(0.02)
