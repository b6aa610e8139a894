"""What dead letters and the feed's group in memory do when days pass; the suites in tests/contract hold the rest."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.clock import MemoryClock
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryDeadLetters, MemoryEventLog, MemoryFeedGroup, MemoryInbox
from fleet.log.port import MAX_ATTEMPTS, Backlog, Failure
from tests.support.stores import append_request, command, eventually, new_stream

FAILED = Failure("projector", StreamId("story:st-one"), 7, code="internal_error", reason="KeyError")


@pytest.mark.rule("EV-22")
async def test_letter_tells_first_and_last_failure_by_the_clock() -> None:
    clock = MemoryClock(now_ms=1_000)
    letters = MemoryDeadLetters(clock)
    for _ in range(MAX_ATTEMPTS - 1):
        await letters.failed(FAILED)
        clock.advance(10)
    letter = await letters.failed(FAILED)
    assert letter
    assert (letter.first_seen_ms, letter.last_seen_ms) == (1_000, 41_000)
    clock.advance(30 * 86_400)
    assert await letters.failed(FAILED) == letter


async def test_count_below_the_limit_is_forgotten_a_week_after_its_last_failure() -> None:
    clock = MemoryClock()
    letters = MemoryDeadLetters(clock)
    for _ in range(MAX_ATTEMPTS - 1):
        assert await letters.failed(FAILED) is None
    clock.advance(7 * 86_400)
    for _ in range(MAX_ATTEMPTS - 1):
        assert await letters.failed(FAILED) is None
    assert await letters.failed(FAILED) is not None


async def test_waiting_consumer_gets_what_is_abandoned_meanwhile() -> None:
    clock, log = MemoryClock(), MemoryEventLog()
    group = MemoryFeedGroup(log, clock)
    await log.append(append_request(new_stream()))
    (left,) = await group.take("dead/1", timeout_s=0)
    waiting = asyncio.create_task(group.take("projector/1", timeout_s=3600))
    await eventually(lambda: clock.sleepers == 1, within_s=60)
    clock.advance(30)
    (again,) = await waiting
    assert (again.hint, again.attempts) == (left.hint, 2)


async def test_hints_are_handed_out_one_batch_at_a_time_and_their_age_is_told() -> None:
    clock, log = MemoryClock(), MemoryEventLog()
    group = MemoryFeedGroup(log, clock, batch=2)
    for _ in range(3):
        await log.append(append_request(new_stream()))
    assert await group.backlog() == Backlog(3, 0)
    assert [len(await group.take("projector/1", timeout_s=0)) for _ in range(3)] == [2, 1, 0]
    clock.advance(31)
    assert [len(await group.take("projector/2", timeout_s=0)) for _ in range(3)] == [2, 1, 0]
    assert await group.backlog() == Backlog(3, 31_000)


@pytest.mark.rule("EV-23")
async def test_deferred_command_comes_again_after_a_second() -> None:
    clock = MemoryClock()
    inbox = MemoryInbox(clock)
    await inbox.submit(command(new_stream()))
    (delivery,) = await inbox.take("main/1", timeout_s=0)
    await inbox.defer(delivery)
    assert await inbox.take("main/1", timeout_s=0) == []
    clock.advance(1)
    assert [again.attempts for again in await inbox.take("main/1", timeout_s=0)] == [1]
    assert await inbox.backlog() == Backlog(1, 1_000)


@pytest.mark.rule("EV-22")
async def test_command_set_aside_is_told_with_the_time_it_was_queued() -> None:
    clock = MemoryClock(now_ms=0)
    inbox = MemoryInbox(clock, max_attempts=2)
    letters = MemoryDeadLetters(clock, inbox=inbox)
    await inbox.submit(command(new_stream()))
    for _ in range(2):
        assert len(await inbox.take("dead/1", timeout_s=0)) == 1
        clock.advance(30)
    assert await inbox.take("main/1", timeout_s=0) == []
    (letter,) = await letters.letters()
    assert (letter.attempts, letter.first_seen_ms, letter.last_seen_ms) == (2, 0, 60_000)
