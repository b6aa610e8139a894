"""The contract of FeedGroup, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.ids import StreamId
from fleet.log.port import Appended, FeedGroup, FeedHint, HasBacklog, HintDelivery
from tests.support.stores import Stores, append_request, eventually, new_stream


async def take_all(group: FeedGroup, consumer: str, *, wanted: int) -> list[HintDelivery]:
    """As many deliveries as are wanted; a test that waits for more than there are ends by its time."""
    found: list[HintDelivery] = []
    async with asyncio.timeout(60):
        while len(found) < wanted:
            found += await group.take(consumer, timeout_s=0.2)
    return found


async def appended(stores: Stores, stream: StreamId) -> Appended:
    outcome = await stores.log.append(append_request(stream))
    assert isinstance(outcome, Appended)
    return outcome


@pytest.mark.rule("EV-7", "EV-20")
async def test_hint_is_taken_acknowledged_and_gone(stores: Stores) -> None:
    stream = new_stream()
    await appended(stores, stream)
    (delivery,) = await stores.group.take("projector/1", timeout_s=60)
    assert (delivery.hint, delivery.attempts) == (FeedHint(stream, 1), 1)
    await stores.group.acknowledge([delivery])
    await stores.group.acknowledge([delivery])
    assert await stores.twin().group.take("projector/2", timeout_s=0) == []


async def test_acknowledging_nothing_does_nothing(stores: Stores) -> None:
    await stores.group.acknowledge([])


async def test_hints_written_before_the_first_consumer_are_delivered(stores: Stores) -> None:
    streams = {StreamId(f"story:st-early-{number}") for number in range(20)}
    for stream in streams:
        await appended(stores, stream)
    taken = await take_all(stores.group, "projector/1", wanted=20)
    assert {delivery.hint.stream for delivery in taken} == streams


async def test_two_consumers_share_the_hints(stores: Stores) -> None:
    streams = [new_stream() for _ in range(10)]
    for stream in streams:
        await appended(stores, stream)
    one, two = await asyncio.gather(
        stores.group.take("left/1", timeout_s=0.2), stores.twin().group.take("right/1", timeout_s=0.2)
    )
    assert sorted(delivery.hint.stream for delivery in [*one, *two]) == sorted(streams)


async def test_waiting_consumer_is_woken_by_an_append(stores: Stores) -> None:
    stream = new_stream()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(stores.group.take("projector/1", timeout_s=60))
        await asyncio.sleep(0)
        await stores.twin().log.append(append_request(stream))
    assert [delivery.hint for delivery in waiting.result()] == [FeedHint(stream, 1)]


async def test_wait_without_a_hint_ends_with_its_time(stores: Stores) -> None:
    assert await stores.group.take("projector/1", timeout_s=0.05) == []


async def test_hint_of_a_consumer_that_is_given_time_is_not_delivered_again(stores: Stores) -> None:
    await appended(stores, new_stream())
    await take_all(stores.group, "slow/1", wanted=1)
    assert await stores.group.take("other/1", timeout_s=0.05) == []


async def test_hints_of_a_dead_consumer_are_delivered_to_another_with_their_attempts(stores: Stores) -> None:
    streams = {new_stream() for _ in range(6)}
    for stream in streams:
        await appended(stores, stream)
    left = await take_all(stores.hasty_group, "dead/1", wanted=6)
    await stores.hasty_group.acknowledge(left[:2])
    again = await take_all(stores.hasty_group, "projector/2", wanted=4)
    assert {delivery.hint for delivery in again} == {delivery.hint for delivery in left[2:]}
    assert {delivery.attempts for delivery in again} == {2}
    await stores.hasty_group.acknowledge(again)
    assert await stores.hasty_group.take("projector/2", timeout_s=0.3) == []


async def older(queue: HasBacklog) -> bool:
    return 0 < (await queue.backlog()).oldest_ms < 10_000


@pytest.mark.rule("AP-121")
async def test_backlog_counts_hints_until_they_are_acknowledged(stores: Stores) -> None:
    group: HasBacklog = stores.group  # type: ignore[assignment]
    assert (await group.backlog()).pending == 0
    assert (await group.backlog()).oldest_ms == 0
    head = (await appended(stores, stream := new_stream())).head
    await appended(stores, new_stream())
    assert (await group.backlog()).pending == 2
    taken = await take_all(stores.group, "projector/1", wanted=2)
    await stores.log.append(append_request(stream, head))
    assert (await group.backlog()).pending == 3
    assert await eventually(lambda: older(group), within_s=60)
    await stores.group.acknowledge([*taken, *await take_all(stores.group, "projector/1", wanted=1)])
    assert (await group.backlog()).pending == 0
