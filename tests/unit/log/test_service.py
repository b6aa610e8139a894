"""One reader of the feed for all who wait in a process (EV-7, EV-20)."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.errors import InvalidInput, StoreUnavailable
from fleet.kernel.ids import StreamId
from fleet.log.memory import MemoryEventLog, MemoryFeed
from fleet.log.port import Appended, FeedHint
from fleet.log.service import SharedFeed
from tests.support.stores import append_request, new_stream


class WatchedFeed(MemoryFeed):
    """Counts who asks it at the same time, and does not answer while it is told so."""

    def __init__(self, log: MemoryEventLog) -> None:
        super().__init__(log)
        self.asked = self.most = self.now = 0
        self.is_down = False

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        self.asked, self.now = self.asked + 1, self.now + 1
        self.most = max(self.most, self.now)
        try:
            if self.is_down:
                raise StoreUnavailable("the store is away")
            return await super().wait(cursor, timeout_s=timeout_s)
        finally:
            self.now -= 1


class Bench:
    def __init__(self, *, streams: int = 100, away_s: float = 0) -> None:
        self.log = MemoryEventLog()
        self.below = WatchedFeed(self.log)
        self.feed = SharedFeed(self.below, streams=streams, away_s=away_s)

    async def grow(self, stream: StreamId) -> int:
        """The version that one more event brings the stream to."""
        outcome = await self.log.append(append_request(stream, await self.log.head(stream)))
        assert isinstance(outcome, Appended)
        return outcome.head.version


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.rule("EV-7", "AP-103")
async def test_hundreds_of_readers_ask_the_store_once_and_all_are_woken(bench: Bench) -> None:
    stream, cursor = new_stream(), await bench.feed.position()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = [group.create_task(bench.feed.wait(cursor, timeout_s=10)) for _ in range(500)]
        while not bench.below.now:
            await asyncio.sleep(0)
        await bench.grow(stream)
    assert all(task.result()[0] == [FeedHint(stream, 1)] for task in waiting)
    assert (bench.below.most, bench.below.asked) == (1, 1)


async def test_reader_goes_on_behind_what_it_had_and_slow_ones_get_the_newest_of_each_stream(bench: Bench) -> None:
    one, two = new_stream("st-left"), new_stream("st-right")
    start = await bench.feed.position()
    slow, quick = start, start
    seen: list[FeedHint] = []
    # Somebody always waits, so nothing is passed over.
    keeper = asyncio.create_task(bench.feed.wait(start, timeout_s=60))
    for stream in (one, two, one, one):
        await bench.grow(stream)
        hints, quick = await bench.feed.wait(quick, timeout_s=5)
        seen += hints
    assert seen == [FeedHint(one, 1), FeedHint(two, 1), FeedHint(one, 2), FeedHint(one, 3)]
    hints, slow = await bench.feed.wait(slow, timeout_s=5)
    assert hints == [FeedHint(two, 1), FeedHint(one, 3)]
    assert slow == quick == await bench.feed.position()
    assert (await keeper)[0]


async def test_position_is_after_what_was_hinted_before_and_what_nobody_waited_for_is_passed_over(bench: Bench) -> None:
    stream = new_stream()
    await bench.grow(stream)
    cursor = await bench.feed.position()
    assert await bench.feed.wait(cursor, timeout_s=0.05) == ([], cursor)
    async with asyncio.timeout(20):
        while bench.below.now:
            await asyncio.sleep(0.05)
    await bench.grow(stream)
    later = await bench.feed.position()
    assert await bench.feed.wait(later, timeout_s=0.05) == ([], later)
    await bench.grow(stream)
    assert (await bench.feed.wait(later, timeout_s=5))[0] == [FeedHint(stream, 3)]


async def test_reader_that_is_at_work_between_two_waits_misses_nothing_when_another_one_comes() -> None:
    bench, stream = Bench(away_s=60), new_stream()
    cursor = await bench.feed.position()
    await bench.grow(stream)
    hints, cursor = await bench.feed.wait(cursor, timeout_s=5)
    assert hints == [FeedHint(stream, 1)]
    await bench.grow(stream)
    await bench.feed.position()
    assert (await bench.feed.wait(cursor, timeout_s=5))[0] == [FeedHint(stream, 2)]


async def test_store_that_is_away_is_told_to_all_who_wait_and_then_asked_again(bench: Bench) -> None:
    stream, cursor = new_stream(), await bench.feed.position()
    bench.below.is_down = True
    told = await asyncio.gather(*(bench.feed.wait(cursor, timeout_s=5) for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in told} == {StoreUnavailable}
    assert bench.below.asked == 1
    bench.below.is_down = False
    await bench.grow(stream)
    assert (await bench.feed.wait(cursor, timeout_s=5))[0] == [FeedHint(stream, 1)]


async def test_reader_that_goes_away_takes_nothing_from_the_others(bench: Bench) -> None:
    stream, cursor = new_stream(), await bench.feed.position()
    first, second = (asyncio.create_task(bench.feed.wait(cursor, timeout_s=10)) for _ in range(2))
    while not bench.below.now:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await bench.grow(stream)
    assert (await second)[0] == [FeedHint(stream, 1)]


@pytest.mark.rule("EV-20")
async def test_memory_is_bounded_by_the_number_of_streams() -> None:
    bench = Bench(streams=3)
    start = cursor = await bench.feed.position()
    keeper = asyncio.create_task(bench.feed.wait(start, timeout_s=60))
    streams = [new_stream(f"st-n{number}") for number in range(5)]
    for stream in streams:
        await bench.grow(stream)
        _, cursor = await bench.feed.wait(cursor, timeout_s=5)
    hints, _ = await bench.feed.wait(start, timeout_s=5)
    assert [hint.stream for hint in hints] == streams[2:]
    await keeper


@pytest.mark.parametrize("cursor", ["", "-", "never", "1", "99999999999999999999", "٣"])
async def test_foreign_cursor_is_invalid(bench: Bench, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        await bench.feed.wait(cursor, timeout_s=0)
