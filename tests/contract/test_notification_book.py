"""The contract of NotificationBook, on every adapter."""

from __future__ import annotations

import asyncio

import pytest

from fleet.kernel.ids import StreamId
from fleet.notifications.port import OwedNotice
from tests.support.stores import Stores

ONE, TWO = StreamId("story:st-one-1"), StreamId("story:st-two-2")


@pytest.mark.rule("LC-80")
async def test_new_target_hears_of_what_comes_after_its_beginning(stores: Stores) -> None:
    assert await stores.notices.looked("bot") is None
    await stores.notices.begin("bot", {ONE: 7})
    await stores.twin().notices.begin("bot", {ONE: 9, TWO: 3})
    assert await stores.twin().notices.looked("bot") == {ONE: 7}
    assert await stores.notices.looked("other") is None
    assert await stores.notices.owed("bot") == []


async def test_target_of_an_empty_log_has_begun_too(stores: Stores) -> None:
    await stores.notices.begin("bot", {})
    assert await stores.twin().notices.looked("bot") == {}


@pytest.mark.rule("LC-80")
async def test_what_is_owed_comes_with_the_step_forward_and_stays_until_it_is_settled(stores: Stores) -> None:
    await stores.notices.begin("bot", {})
    assert await stores.notices.advance("bot", TWO, expected=0, version=10, owed=[9, 4])
    assert await stores.notices.advance("bot", ONE, expected=0, version=3, owed=[2])
    assert await stores.notices.advance("bot", ONE, expected=3, version=200)
    book = stores.twin().notices
    assert await book.looked("bot") == {ONE: 200, TWO: 10}
    assert await book.owed("bot") == [OwedNotice(TWO, 9), OwedNotice(TWO, 4), OwedNotice(ONE, 2)]
    for _ in range(2):
        await book.settle("bot", OwedNotice(TWO, 9))
    assert await stores.notices.owed("bot") == [OwedNotice(TWO, 4), OwedNotice(ONE, 2)]
    assert await stores.notices.owed("other") == []


async def test_step_from_where_the_book_is_not_changes_nothing(stores: Stores) -> None:
    await stores.notices.begin("bot", {ONE: 5})
    assert not await stores.notices.advance("bot", ONE, expected=4, version=6, owed=[6])
    assert not await stores.notices.advance("bot", TWO, expected=1, version=2, owed=[2])
    assert await stores.notices.looked("bot") == {ONE: 5}
    assert await stores.notices.owed("bot") == []


async def test_of_racing_processes_one_makes_the_step_and_nothing_is_owed_twice(stores: Stores) -> None:
    await stores.notices.begin("bot", {})
    twins = [stores.twin().notices for _ in range(8)]
    done = await asyncio.gather(*[t.advance("bot", ONE, expected=0, version=4, owed=[3]) for t in twins])
    assert done.count(True) == 1
    assert await stores.notices.owed("bot") == [OwedNotice(ONE, 3)]
