"""The contract of Inbox, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.ids import CommandId
from fleet.log.port import MAX_ATTEMPTS, Answer, Backlog, Delivery, HasBacklog, Inbox
from tests.support.stores import Stores, command, eventually, new_stream

DONE = Answer(ok=True, result={"story_id": "st-one", "score": "98.7"})


async def take_one(inbox: Inbox, consumer: str = "main/1", *, timeout_s: float = 2) -> Delivery:
    (delivery,) = await inbox.take(consumer, timeout_s=timeout_s)
    return delivery


@pytest.mark.rule("EV-7", "EV-10")
async def test_submitted_command_is_taken_answered_and_gone(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    delivery = await take_one(stores.inbox)
    assert (delivery.command, delivery.attempts) == (sent, 1)
    assert await stores.inbox.answer(sent.command_id, timeout_s=0) is None
    await stores.inbox.acknowledge(delivery, DONE)
    assert await stores.twin().inbox.answer(sent.command_id, timeout_s=0) == DONE
    assert await stores.inbox.take("main/1", timeout_s=0) == []


async def test_refused_command_carries_its_problem(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    refused = Answer(ok=False, problem={"code": "story_not_found", "message": "no such story", "details": {}})
    await stores.inbox.acknowledge(await take_one(stores.inbox), refused)
    assert await stores.inbox.answer(sent.command_id, timeout_s=0) == refused


async def test_commands_queued_before_the_first_consumer_are_delivered(stores: Stores) -> None:
    sent = [command(new_stream(f"st-{number}")) for number in range(8)]
    for one in sent:
        await stores.inbox.submit(one)
    taken = await stores.inbox.take("main/1", timeout_s=60)
    assert {delivery.command.command_id for delivery in taken} == {one.command_id for one in sent}


async def test_commands_of_one_stream_keep_their_order(stores: Stores) -> None:
    stream = new_stream()
    sent = [command(stream) for _ in range(5)]
    for one in sent:
        await stores.inbox.submit(one)
    assert [delivery.command for delivery in await stores.inbox.take("main/1", timeout_s=60)] == sent


async def test_two_consumers_share_the_commands(stores: Stores) -> None:
    sent = [command(new_stream()) for _ in range(10)]
    for one in sent:
        await stores.inbox.submit(one)
    one, two = await asyncio.gather(
        stores.inbox.take("left/1", timeout_s=0.2), stores.twin().inbox.take("right/1", timeout_s=0.2)
    )
    ids = [delivery.command.command_id for delivery in [*one, *two]]
    assert sorted(ids) == sorted(command.command_id for command in sent)


async def test_waiting_consumer_is_woken_by_a_command(stores: Stores) -> None:
    sent = command(new_stream())
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = group.create_task(stores.inbox.take("main/1", timeout_s=60))
        await asyncio.sleep(0)
        await stores.twin().inbox.submit(sent)
    assert [delivery.command for delivery in waiting.result()] == [sent]


async def test_taken_command_is_not_delivered_again_while_its_consumer_is_given_time(stores: Stores) -> None:
    await stores.inbox.submit(command(new_stream()))
    await take_one(stores.inbox)
    assert await stores.inbox.take("other/1", timeout_s=0.05) == []


async def test_command_of_a_dead_consumer_is_delivered_to_another_with_its_attempts(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.hasty_inbox.submit(sent)
    await take_one(stores.hasty_inbox, "dead/1")
    second = await take_one(stores.hasty_inbox, "main/1", timeout_s=60)
    assert (second.command, second.attempts) == (sent, 2)
    third = await take_one(stores.hasty_inbox, "main/1", timeout_s=60)
    assert third.attempts == 3
    await stores.hasty_inbox.acknowledge(third, DONE)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.3) == []


@pytest.mark.rule("EV-10")
async def test_submit_of_an_answered_command_does_nothing(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    await stores.inbox.acknowledge(await take_one(stores.inbox), DONE)
    await stores.inbox.submit(sent)
    assert await stores.inbox.take("main/1", timeout_s=0) == []


async def test_command_submitted_twice_is_handled_once_when_answered_before_the_second_delivery(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.hasty_inbox.submit(sent)
    await stores.hasty_inbox.submit(sent)
    first, _ = await stores.hasty_inbox.take("main/1", timeout_s=60)
    await stores.hasty_inbox.acknowledge(first, DONE)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.3) == []


@pytest.mark.rule("EV-10")
async def test_first_answer_stays(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    delivery = await take_one(stores.inbox)
    await stores.inbox.acknowledge(delivery, DONE)
    await stores.inbox.acknowledge(delivery, Answer(ok=False, problem={"code": "version_conflict"}))
    assert await stores.inbox.answer(sent.command_id, timeout_s=0) == DONE


async def test_answer_waits_until_it_is_there(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    delivery = await take_one(stores.inbox)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        waiting = group.create_task(stores.inbox.answer(sent.command_id, timeout_s=60))
        await asyncio.sleep(0)
        await stores.twin().inbox.acknowledge(delivery, DONE)
    assert waiting.result() == DONE


async def test_answer_that_does_not_come_is_none_when_the_time_is_over(stores: Stores) -> None:
    assert await stores.inbox.answer(CommandId("user:ada/none"), timeout_s=0.06) is None


async def test_command_id_with_braces_and_slashes_finds_its_answer(stores: Stores) -> None:
    sent = command(new_stream())
    odd = type(sent)(CommandId("user:ada/{p99}/:reply:*"), sent.stream, sent.name, sent.principal)
    await stores.inbox.submit(odd)
    await stores.inbox.acknowledge(await take_one(stores.inbox), DONE)
    assert await eventually(lambda: stores.inbox.answer(odd.command_id, timeout_s=0), within_s=60) == DONE


async def test_abandoned_command_comes_alone_and_before_new_ones(stores: Stores) -> None:
    sent = [command(new_stream(f"st-{number}")) for number in range(3)]
    for one in sent:
        await stores.hasty_inbox.submit(one)
    assert len(await stores.hasty_inbox.take("dead/1", timeout_s=60)) == 3
    again: list[Delivery] = []
    fresh = command(new_stream())
    while len(again) < 3:
        (delivery,) = await stores.hasty_inbox.take("main/1", timeout_s=60)
        await stores.hasty_inbox.acknowledge(delivery, DONE)
        again.append(delivery)
        if len(again) == 1:
            await stores.hasty_inbox.submit(fresh)
    assert {delivery.command.command_id for delivery in again} == {one.command_id for one in sent}
    assert {delivery.attempts for delivery in again} == {2}
    assert (await take_one(stores.hasty_inbox)).command == fresh


@pytest.mark.rule("EV-23")
async def test_command_that_outages_defer_is_delivered_without_limit(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.hasty_inbox.submit(sent)
    for _ in range(MAX_ATTEMPTS + 3):
        delivery = await take_one(stores.hasty_inbox, timeout_s=60)
        assert (delivery.command, delivery.attempts) == (sent, 1)
        await stores.hasty_inbox.defer(delivery)
        await stores.hasty_inbox.defer(delivery)
    assert await stores.letters.letters() == []
    assert await stores.hasty_inbox.answer(sent.command_id, timeout_s=0) is None


async def test_defer_of_a_delivery_that_another_consumer_has_now_changes_nothing(stores: Stores) -> None:
    await stores.hasty_inbox.submit(command(new_stream()))
    first = await take_one(stores.hasty_inbox, "slow/1")
    second = await take_one(stores.hasty_inbox, "main/1", timeout_s=60)
    await stores.hasty_inbox.defer(first)
    third = await take_one(stores.hasty_inbox, "main/1", timeout_s=60)
    assert (second.attempts, third.attempts) == (2, 3)
    await stores.hasty_inbox.acknowledge(third, DONE)
    await stores.hasty_inbox.defer(third)
    assert await stores.hasty_inbox.take("main/1", timeout_s=0.3) == []


@pytest.mark.rule("EV-23")
async def test_command_that_one_consumer_defers_again_and_again_comes_to_the_other(stores: Stores) -> None:
    sent = command(new_stream())
    await stores.inbox.submit(sent)
    await stores.inbox.defer(await take_one(stores.inbox, "wrong/1"))

    async def defer_all() -> None:
        while True:
            for delivery in await stores.inbox.take("wrong/1", timeout_s=60):
                await stores.inbox.defer(delivery)

    deferring = asyncio.create_task(defer_all())
    try:
        # The other one looks a little after the first has deferred, in step with it.
        await asyncio.sleep(0.4)
        async with asyncio.timeout(20):
            while not (found := await stores.inbox.take("right/1", timeout_s=60)):
                pass
    finally:
        deferring.cancel()
        await asyncio.gather(deferring, return_exceptions=True)
    assert [d.command for d in found] == [sent]


async def older(queue: HasBacklog) -> bool:
    return 0 < (await queue.backlog()).oldest_ms < 10_000


@pytest.mark.rule("AP-121")
async def test_backlog_counts_commands_until_they_are_answered(stores: Stores) -> None:
    inbox: HasBacklog = stores.inbox  # type: ignore[assignment]
    assert await inbox.backlog() == Backlog(pending=0, oldest_ms=0)
    for _ in range(3):
        await stores.inbox.submit(command(new_stream()))
    taken = await stores.inbox.take("main/1", timeout_s=60)
    assert (await inbox.backlog()).pending == 3
    assert await eventually(lambda: older(inbox), within_s=60)
    for delivery in taken:
        await stores.inbox.acknowledge(delivery, DONE)
    assert await inbox.backlog() == Backlog(pending=0, oldest_ms=0)
