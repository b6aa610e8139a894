"""Who goes on when rate caps have room again: persons first, nobody never, and tenants hold up themselves alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.chat import Priority
from fleet.models.routing.fair_queue import ORDER
from fleet.models.routing.rate import HeldCall, RateCap, RateLimiter, RateLine, RateNeed

LONG = 10**9


def line(per_min: int = 60, **caps: int) -> RateLine:
    """A line whose engine cap is used up."""
    limiter = RateLimiter(RateCap(requests_per_min=per_min), {k: RateCap(requests_per_min=v) for k, v in caps.items()})
    for _ in range(per_min):
        limiter.take(RateNeed("before", 1), now_ms=0)
    return RateLine(limiter)


def held(where: RateLine, priority: Priority, *, tenant: str = "a", now_ms: int = 0, tokens: int = 1) -> HeldCall:
    call = where.offer(RateNeed(tenant, tokens), priority, now_ms=now_ms, longest_ms=LONG)
    assert isinstance(call, HeldCall)
    return call


@pytest.mark.rule("MB-28")
def test_person_goes_on_before_those_that_came_earlier() -> None:
    where = line()
    batch, story, person = (held(where, name) for name in ("batch", "story", "person"))
    assert where.admit(now_ms=0) == []
    assert where.next_ms(now_ms=0) == 1000
    assert [where.admit(now_ms=now_ms) for now_ms in (1000, 2000, 3000)] == [[person], [story], [batch]]
    assert where.next_ms(now_ms=3000) is None


@pytest.mark.rule("MB-28")
def test_wait_that_is_told_counts_those_that_go_first_and_no_others() -> None:
    where = line()
    for _ in range(5):
        held(where, "batch")
    held(where, "person")
    assert where.offer(RateNeed("a", 1), "person", now_ms=0, longest_ms=1) == 2000
    assert where.offer(RateNeed("a", 1), "batch", now_ms=0, longest_ms=1) == 7000
    assert len(where) == 6


@pytest.mark.rule("MB-28")
def test_call_that_waited_long_is_passed_by_three_more_and_then_goes_on() -> None:
    where = line()
    batch = held(where, "batch")
    persons = [held(where, "person", now_ms=n + 1) for n in range(6)]
    order = where.admit(now_ms=20_000)
    assert order == [*persons[:3], batch, *persons[3:]]


@pytest.mark.rule("MB-28")
def test_tenant_that_used_up_its_own_cap_holds_up_nobody_else() -> None:
    limiter = RateLimiter(None, {"greedy": RateCap(requests_per_min=1)})
    where = RateLine(limiter)
    first, second, other = held(where, "person", tenant="greedy"), held(where, "person", tenant="greedy"), None
    other = held(where, "batch", tenant="other")
    assert where.admit(now_ms=0) == [first, other]
    assert where.next_ms(now_ms=0) == 60_000
    assert where.admit(now_ms=60_000) == [second]


def test_call_that_left_is_passed_over() -> None:
    where = line()
    first, second = held(where, "story"), held(where, "story")
    assert where.remove(first)
    assert not where.remove(first)
    assert where.admit(now_ms=1000) == [second]


@settings(max_examples=50, deadline=None)
@given(arrivals=st.lists(st.tuples(st.sampled_from(ORDER), st.integers(0, 400)), min_size=1, max_size=40))
def test_every_call_goes_on_in_order_of_its_priority_and_the_cap_holds(arrivals: list[tuple[Priority, int]]) -> None:
    where, now_ms, waiting, gone = line(per_min=120), 0, list[HeldCall](), list[tuple[int, HeldCall]]()
    for priority, gap_ms in arrivals:
        now_ms += gap_ms
        gone += [(now_ms, call) for call in where.admit(now_ms=now_ms)]
        waiting.append(held(where, priority, now_ms=now_ms))
    while len(where):
        gone += [(now_ms, call) for call in where.admit(now_ms=now_ms)]
        now_ms += where.next_ms(now_ms=now_ms) or 0
    assert sorted(call.number for _, call in gone) == [call.number for call in waiting]
    assert all(sum(start <= at < start + 60_000 for at, _ in gone) <= 240 for start, _ in gone)
    behind = [
        call for at, call in gone if call.arrived_ms < at < call.arrived_ms + 15_000 and call.priority == "person"
    ]
    for person in behind:
        at = next(when for when, call in gone if call is person)
        passed = [call for when, call in gone if person.arrived_ms < when < at and call.priority != "person"]
        assert all(when - call.arrived_ms >= 15_000 for when, call in gone if call in passed)
