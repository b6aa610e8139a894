"""Rate caps delay calls, and say when to come again where the delay is too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.models.routing.rate import RateCap, RateLimiter, RateNeed


def admitted(
    limiter: RateLimiter, tenant: str = "a", *, tokens: int = 1, now_ms: int = 0, longest_ms: int = 10**9
) -> int:
    """The wait of a call that takes its share at once, as if it had waited; nothing is taken when that is too long."""
    need = RateNeed(tenant, tokens)
    wait = limiter.wait(need, now_ms=now_ms)
    if wait.ms <= longest_ms:
        limiter.take(need, now_ms=now_ms)
    return wait.ms


def test_without_caps_no_call_waits() -> None:
    limiter = RateLimiter()
    assert limiter.is_unlimited
    assert [admitted(limiter, tokens=10**6) for _ in range(100)] == [0] * 100


@pytest.mark.rule("MB-28")
def test_minutes_worth_comes_at_once_and_the_rest_in_even_steps() -> None:
    limiter = RateLimiter(RateCap(requests_per_min=60))
    assert not limiter.is_unlimited
    waits = [admitted(limiter) for _ in range(63)]
    assert waits[:60] == [0] * 60
    assert waits[60:] == [1000, 2000, 3000]


@pytest.mark.rule("MB-28")
def test_call_that_would_wait_too_long_takes_nothing() -> None:
    limiter = RateLimiter(RateCap(requests_per_min=1))
    assert admitted(limiter) == 0
    assert [admitted(limiter, longest_ms=5000) for _ in range(3)] == [60_000] * 3
    assert admitted(limiter, now_ms=60_000, longest_ms=5000) == 0


def test_tokens_are_capped_beside_requests() -> None:
    limiter = RateLimiter(RateCap(requests_per_min=1000, tokens_per_min=6000))
    assert admitted(limiter, tokens=6000) == 0
    assert admitted(limiter, tokens=100) == 1000


def test_call_larger_than_a_minutes_worth_waits_for_a_full_bucket_and_is_never_refused_for_ever() -> None:
    limiter = RateLimiter(RateCap(tokens_per_min=600))
    assert admitted(limiter, tokens=6000) == 0
    wait_ms = admitted(limiter, tokens=600)
    assert wait_ms == 600_000


def test_each_tenant_has_a_cap_of_its_own() -> None:
    limiter = RateLimiter(tenants={"named": RateCap(requests_per_min=2), "*": RateCap(requests_per_min=1)})
    assert [admitted(limiter, "named") for _ in range(3)] == [0, 0, 30_000]
    assert [admitted(limiter, "x"), admitted(limiter, "y"), admitted(limiter, "x")] == [0, 0, 60_000]
    only_named = RateLimiter(tenants={"named": RateCap(requests_per_min=1)})
    assert [admitted(only_named, "other") for _ in range(5)] == [0] * 5


def test_tenants_beyond_those_remembered_start_anew() -> None:
    limiter = RateLimiter(tenants={"*": RateCap(requests_per_min=1)})
    for number in range(10_001):
        assert admitted(limiter, f"t{number}") == 0
    assert admitted(limiter, "t0") == 0
    assert admitted(limiter, "t10000") == 60_000


@settings(max_examples=50, deadline=None)
@given(gaps=st.lists(st.integers(0, 3000), min_size=1, max_size=80), per_min=st.integers(1, 120))
def test_calls_that_are_let_through_within_any_minute_are_at_most_two_minutes_worth(
    gaps: list[int], per_min: int
) -> None:
    """A full bucket and what flows in meanwhile: the bound of every token bucket."""
    limiter, now_ms, starts = RateLimiter(RateCap(requests_per_min=per_min)), 0, list[int]()
    for gap in gaps:
        now_ms += gap
        starts.append(now_ms + admitted(limiter, now_ms=now_ms))
    assert starts == sorted(starts)
    for first in starts:
        assert sum(first <= start < first + 60_000 for start in starts) <= 2 * per_min
