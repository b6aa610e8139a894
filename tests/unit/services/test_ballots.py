"""Blind ballots: seeded labels, both orders, and only what both answers agree on counts (CN-45, CN-46)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.services.procedures.ballots import label_order, merge_rankings

CANDIDATES = ("cd-a1", "cd-b2", "cd-c3", "cd-d4")
orders = st.permutations(CANDIDATES).map(tuple)
FEW = settings(max_examples=60, deadline=None)


@pytest.mark.rule("CN-46")
@given(first=orders, second=orders)
@FEW
def test_merged_ranking_is_in_the_order_of_both_answers(first: tuple[str, ...], second: tuple[str, ...]):
    merged = merge_rankings(first, second)
    for ranking in (first, second):
        assert sorted(merged, key=ranking.index) == list(merged)
    assert len(merged) != 1


@pytest.mark.rule("CN-46", "CN-86")
@given(ranking=orders)
@FEW
def test_same_answer_twice_counts_whole_and_the_opposite_not_at_all(ranking: tuple[str, ...]):
    assert merge_rankings(ranking, ranking) == ranking
    assert merge_rankings(ranking, tuple(reversed(ranking))) == ()


def test_longest_agreement_is_kept():
    assert merge_rankings(("a", "b", "c", "d"), ("d", "a", "b", "c")) == ("a", "b", "c")
    assert merge_rankings(("a",), ("a",)) == ("a",)
    assert merge_rankings((), ()) == ()


@pytest.mark.rule("CN-45")
@given(shown=orders, seed=st.integers(0, 2**31))
@FEW
def test_order_of_labels_depends_on_seed_and_voter_and_not_on_the_order_given(shown: tuple[str, ...], seed: int):
    order = label_order(shown, seed=seed, voter="developer-001")
    assert sorted(order) == sorted(CANDIDATES)
    assert order == label_order(CANDIDATES, seed=seed, voter="developer-001")


@pytest.mark.rule("CN-45")
def test_voters_see_different_orders():
    assert len({label_order(CANDIDATES, seed=7, voter=f"developer-00{n}") for n in range(1, 8)}) > 3
