"""The contract of Feed, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.errors import InvalidInput, VersionConflict
from fleet.kernel.ids import StreamId
from fleet.log.port import Appended, FeedHint
from tests.support.stores import Stores, append_request, new_stream


@pytest.mark.rule("EV-7")
async def test_each_append_gives_one_hint_with_the_version_it_reached(stores: Stores) -> None:
    one, two = new_stream("st-left"), new_stream("st-right")
    cursor = await stores.feed.position()
    await stores.log.append(append_request(one, bodies=[b"1", b"2"]))
    await stores.log.append(append_request(two))
    hints, cursor = await stores.feed.wait(cursor, timeout_s=2)
    while len(hints) < 2:
        more, cursor = await stores.feed.wait(cursor, timeout_s=2)
        hints += more
    assert sorted(hints, key=lambda hint: hint.stream) == [FeedHint(one, 2), FeedHint(two, 1)]
    assert await stores.feed.wait(cursor, timeout_s=0) == ([], cursor)


async def test_hints_of_many_streams_are_all_found_by_any_reader(stores: Stores) -> None:
    start = await stores.feed.position()
    streams = {StreamId(f"story:st-{number}") for number in range(40)}
    for stream in streams:
        await stores.log.append(append_request(stream))
    for feed in (stores.feed, stores.twin().feed):
        hints, cursor = await feed.wait(start, timeout_s=2)
        assert {hint.stream for hint in hints} == streams
        assert cursor == await feed.position()


async def test_position_is_after_what_was_hinted_before(stores: Stores) -> None:
    outcome = await stores.log.append(append_request(stream := new_stream()))
    assert isinstance(outcome, Appended)
    cursor = await stores.feed.position()
    assert (await stores.feed.wait(cursor, timeout_s=0))[0] == []
    await stores.log.append(append_request(stream, outcome.head))
    assert (await stores.feed.wait(cursor, timeout_s=2))[0] == [FeedHint(stream, 2)]


async def test_waiting_reader_is_woken_by_an_append(stores: Stores) -> None:
    stream = new_stream()
    cursor = await stores.feed.position()
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = group.create_task(stores.feed.wait(cursor, timeout_s=60))
        await asyncio.sleep(0)
        await stores.twin().log.append(append_request(stream))
    assert waiting.result()[0] == [FeedHint(stream, 1)]


async def test_wait_without_news_ends_with_its_time_and_the_same_cursor(stores: Stores) -> None:
    cursor = await stores.feed.position()
    assert await stores.feed.wait(cursor, timeout_s=0.05) == ([], cursor)


async def test_refused_append_and_duplicate_give_no_hint(stores: Stores) -> None:
    request = append_request(new_stream())
    await stores.log.append(request)
    cursor = await stores.feed.position()
    await stores.log.append(request)
    with pytest.raises(VersionConflict):
        await stores.log.append(append_request(request.stream))
    assert (await stores.feed.wait(cursor, timeout_s=0))[0] == []


@pytest.mark.parametrize("cursor", ["", "-", "never", "eyIwMCI6MX0", "eyI5OSI6IjAtMCJ9", "WzFd", "ünknown"])
async def test_foreign_cursor_is_invalid(stores: Stores, cursor: str) -> None:
    with pytest.raises(InvalidInput):
        await stores.feed.wait(cursor, timeout_s=0)
