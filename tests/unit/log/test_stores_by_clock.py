"""What the stores in memory do when hours pass; the suites in tests/contract hold the rest."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import LeaseHeld, OwnershipLost
from fleet.kernel.ids import RunKey, StoryId
from fleet.log.memory import MemoryEventLog, MemoryFeed, MemoryInbox, MemoryLeaseStore
from fleet.log.port import Answer
from fleet.sandbox.memory import MemoryRunLedger
from fleet.sandbox.port import Claimed, Running
from tests.support.stores import command, eventually, new_stream

DONE = Answer(ok=True)


@pytest.mark.rule("EV-4")
async def test_lease_lives_for_its_time_from_the_last_renewal() -> None:
    clock = MemoryClock()
    leases, stream = MemoryLeaseStore(MemoryEventLog(), clock), new_stream()
    lease = await leases.claim(stream, "main/1", ttl_s=15)
    clock.advance(14)
    await leases.renew(lease)
    clock.advance(14.9)
    with pytest.raises(LeaseHeld):
        await leases.claim(stream, "other/1", ttl_s=15)
    clock.advance(0.1)
    with pytest.raises(OwnershipLost):
        await leases.renew(lease)
    assert (await leases.claim(stream, "other/1", ttl_s=15)).epoch == 2


async def test_run_is_claimed_anew_at_its_deadline() -> None:
    clock = MemoryClock(now_ms=0)
    ledger, key, spec = MemoryRunLedger(clock), RunKey(sha256(b"run").hexdigest()), digest_of(b"spec")

    async def claim(supervisor: str) -> object:
        return await ledger.claim(key, story=StoryId("st-one"), epoch=1, spec=spec, supervisor=supervisor, ttl_s=60)

    assert await claim("node-a") == Claimed()
    clock.advance(59)
    assert await claim("node-b") == Running("node-a", 60_000)
    clock.advance(1)
    assert await claim("node-b") == Claimed()


async def test_feed_wait_ends_by_the_clock() -> None:
    clock = MemoryClock()
    feed = MemoryFeed(MemoryEventLog(), clock)
    waiting = asyncio.create_task(feed.wait("0", timeout_s=30))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    clock.advance(30)
    assert await waiting == ([], "0")


@pytest.mark.rule("EV-10")
async def test_answer_is_forgotten_after_a_day_and_the_command_may_come_again() -> None:
    clock = MemoryClock()
    inbox, sent = MemoryInbox(clock), command(new_stream())
    await inbox.submit(sent)
    (delivery,) = await inbox.take("main/1", timeout_s=0)
    await inbox.acknowledge(delivery, DONE)
    clock.advance(86_399)
    assert await inbox.answer(sent.command_id, timeout_s=0) == DONE
    clock.advance(1)
    assert await inbox.answer(sent.command_id, timeout_s=0) is None
    await inbox.submit(sent)
    assert len(await inbox.take("main/1", timeout_s=0)) == 1


async def test_take_delivers_an_abandoned_command_while_it_waits() -> None:
    clock = MemoryClock()
    inbox = MemoryInbox(clock, batch=1)
    await inbox.submit(command(new_stream()))
    await inbox.take("dead/1", timeout_s=0)
    waiting = asyncio.create_task(inbox.take("main/1", timeout_s=3600))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    clock.advance(30)
    (delivery,) = await waiting
    assert delivery.attempts == 2


async def test_take_hands_out_one_batch_at_a_time() -> None:
    inbox = MemoryInbox(MemoryClock(), batch=2)
    for _ in range(3):
        await inbox.submit(command(new_stream()))
    assert [len(await inbox.take("main/1", timeout_s=0)) for _ in range(3)] == [2, 1, 0]
