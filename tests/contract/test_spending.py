"""The contract of DaySpending, on every adapter (MB-20..MB-23)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import count

import pytest

from fleet.events.budget import BudgetScope
from fleet.kernel.errors import BudgetExceeded
from fleet.kernel.ids import StoryId
from fleet.models.routing.budget import BudgetLimits, Spend
from fleet.owner.spending.port import SpendingHold
from tests.support.stores import Stores

PLATFORM = BudgetScope(kind="platform", id="main")
PROJECT = BudgetScope(kind="project", id="pr-default")
OTHER = BudgetScope(kind="project", id="pr-other")
STORY = StoryId("st-one1")
DAY = "2026-01-02"
_NUMBERS = count(1)


def hold(tokens: int = 100, **changes: object) -> SpendingHold:
    whole = SpendingHold(
        hold_id=f"st-one1/step-{next(_NUMBERS)}/1",
        story_id=STORY,
        day=DAY,
        scopes=(PLATFORM, PROJECT),
        need=Spend(tokens=tokens, calls=1),
    )
    return replace(whole, **changes)  # pyright: ignore[reportArgumentType]


async def used(stores: Stores, scope: BudgetScope = PLATFORM, day: str = DAY) -> tuple[int, int]:
    (totals,) = await stores.spending.totals([scope], day)
    return totals.spent.tokens, totals.reserved.tokens


@pytest.mark.rule("MB-22")
async def test_hold_counts_in_all_its_scopes_and_is_replaced_by_what_was_used(stores: Stores) -> None:
    held = hold()
    await stores.spending.reserve(held, limits={})
    assert await used(stores) == await used(stores, PROJECT) == (0, 100)
    assert await stores.spending.settle(held, Spend(tokens=70, calls=1))
    assert await used(stores.twin()) == await used(stores, PROJECT) == (70, 0)
    assert [t.spent.calls for t in await stores.spending.totals([PLATFORM, PROJECT, OTHER], DAY)] == [1, 1, 0]


@pytest.mark.rule("MB-22")
async def test_hold_that_one_scope_cannot_hold_counts_in_none_and_the_scope_is_named(stores: Stores) -> None:
    limits = {PLATFORM: BudgetLimits(tokens=1000), PROJECT: BudgetLimits(tokens=150)}  # pyright: ignore[reportUnhashable]
    await stores.spending.reserve(hold(), limits=limits)
    with pytest.raises(BudgetExceeded, match="project pr-default") as caught:
        await stores.spending.reserve(hold(51), limits=limits)
    named = {"scope": "project", "kind": "project", "id": "pr-default"}
    assert caught.value.details == named | {"quantity": "tokens", "limit": 150, "used": 100, "need": 51}
    assert await used(stores) == (0, 100)
    await stores.spending.reserve(hold(50), limits=limits)
    assert await used(stores) == (0, 150)


@pytest.mark.rule("MB-23")
async def test_hold_that_is_repeated_counts_once_before_and_after_it_is_settled(stores: Stores) -> None:
    held = hold()
    for _ in range(3):
        await stores.twin().spending.reserve(held, limits={PLATFORM: BudgetLimits(tokens=100)})  # pyright: ignore[reportUnhashable]
    assert await used(stores) == (0, 100)
    await stores.spending.settle(held, Spend(tokens=40))
    assert not await stores.twin().spending.settle(held, Spend(tokens=40))
    await stores.spending.reserve(held, limits={})
    assert await used(stores) == (40, 0)


async def test_hold_is_settled_on_its_own_day_whenever_that_happens(stores: Stores) -> None:
    held = hold()
    await stores.spending.reserve(held, limits={})
    await stores.spending.settle(replace(held, day="2026-01-03", need=Spend()), Spend(tokens=9))
    assert await used(stores) == (9, 0)
    assert await used(stores, day="2026-01-03") == (0, 0)


async def test_hold_is_settled_in_its_own_scopes_with_its_own_need_whatever_the_caller_knows_of_it(
    stores: Stores,
) -> None:
    held = hold(2**52, need=Spend(tokens=2**52, calls=1, wall_ms=3))
    await stores.spending.reserve(held, limits={})
    assert await stores.spending.settle(replace(held, scopes=(PROJECT, OTHER), need=Spend()), Spend(tokens=2**51))
    assert await used(stores) == await used(stores, PROJECT) == (2**51, 0)
    assert await used(stores, OTHER) == (0, 0)


async def test_unknown_hold_settles_nothing(stores: Stores) -> None:
    assert not await stores.spending.settle(hold(), Spend(tokens=9))
    assert await used(stores) == (0, 0)


@pytest.mark.rule("MB-23")
async def test_open_holds_of_a_story_are_found_by_every_process_until_they_are_settled(stores: Stores) -> None:
    first, second = hold(), hold(7)
    other = hold(1, hold_id="st-two2/step/1", story_id=StoryId("st-two2"))
    for held in (first, second, other):
        await stores.spending.reserve(held, limits={})
    assert await stores.twin().spending.open_holds(STORY) == sorted((first, second), key=lambda h: h.hold_id)
    await stores.spending.settle(first, Spend())
    assert await stores.spending.open_holds(STORY) == [second]


@pytest.mark.rule("MB-20")
async def test_holds_of_many_processes_never_go_over_the_limit_together(stores: Stores) -> None:
    limits = {PLATFORM: BudgetLimits(tokens=500)}  # pyright: ignore[reportUnhashable]

    async def attempt() -> bool:
        try:
            await stores.twin().spending.reserve(hold(), limits=limits)
        except BudgetExceeded:
            return False
        return True

    assert sum(await asyncio.gather(*(attempt() for _ in range(12)))) == 5
    assert await used(stores) == (0, 500)
