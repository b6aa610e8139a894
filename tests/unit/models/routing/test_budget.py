"""Reserve, call, settle: arithmetic over totals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.kernel.errors import BudgetExceeded
from fleet.models.routing.budget import BudgetLimits, BudgetTotals, Spend, crossings, fit_max_tokens, reserve, settle

amounts = st.integers(0, 1000)


@pytest.mark.rule("MB-22")
def test_reservation_that_does_not_fit_is_refused_and_names_the_scope() -> None:
    totals = BudgetTotals(spent=Spend(tokens=60), reserved=Spend(tokens=30))
    with pytest.raises(BudgetExceeded) as caught:
        reserve(totals, Spend(tokens=11), limits=BudgetLimits(tokens=100), scope="task")
    assert caught.value.details == {"scope": "task", "quantity": "tokens", "limit": 100, "used": 90, "need": 11}
    assert reserve(totals, Spend(tokens=10), limits=BudgetLimits(tokens=100), scope="task").used.tokens == 100


def test_absent_limit_is_unlimited() -> None:
    assert reserve(BudgetTotals(), Spend(tokens=10**12), limits=BudgetLimits(calls=1), scope="task").reserved.tokens


@pytest.mark.rule("MB-23")
@settings(max_examples=60, deadline=None)
@given(needs=st.lists(st.tuples(amounts, amounts), max_size=6))
def test_used_never_falls_but_by_settling_a_reservation_for_less(needs: list[tuple[int, int]]) -> None:
    totals = BudgetTotals()
    for need, actual in needs:
        before = totals.used.tokens
        totals = reserve(totals, Spend(tokens=need), limits=BudgetLimits(), scope="story")
        assert totals.used.tokens == before + need
        totals = settle(totals, Spend(tokens=need), Spend(tokens=actual))
        assert totals.used.tokens == before + actual
    assert totals.reserved == Spend()


@pytest.mark.rule("MB-22")
def test_max_tokens_is_lowered_to_the_tightest_scope_but_not_below_what_is_useful() -> None:
    scopes = {
        "story": (BudgetTotals(), BudgetLimits(tokens=10_000)),
        "task": (BudgetTotals(spent=Spend(tokens=400)), BudgetLimits(tokens=1000, output_tokens=500)),
        "step": (BudgetTotals(), BudgetLimits()),
    }
    assert fit_max_tokens(100, 700, scopes=scopes) == 500
    assert fit_max_tokens(100, 200, scopes=scopes) == 200
    with pytest.raises(BudgetExceeded, match="task budget of 1000 tokens has room for 100"):
        fit_max_tokens(500, 700, scopes=scopes)
    assert fit_max_tokens(10, 700, scopes={}) == 700


@pytest.mark.rule("MB-25")
@pytest.mark.parametrize(
    ("before", "after", "levels"),
    [
        (0, 79, []),
        (79, 80, ["warning"]),
        (80, 99, []),
        (10, 100, ["exhausted"]),
        (99, 120, ["exhausted"]),
        (100, 130, []),
    ],
)
def test_each_threshold_is_reported_once(before: int, after: int, levels: list[str]) -> None:
    found = crossings(Spend(tokens=before, calls=after), Spend(tokens=after, calls=after), BudgetLimits(tokens=100))
    assert [crossing.level for crossing in found] == levels
    assert all(crossing.quantity == "tokens" for crossing in found)
