"""Intervals and paired tests against known values."""

from __future__ import annotations

import pytest

from fleet.bench.statistics import bootstrap_difference, mcnemar_p, paired_difference, wilson_interval


def test_wilson_interval_has_the_published_values():
    low, high = wilson_interval(30, 40)
    assert (round(low, 3), round(high, 3)) == (0.598, 0.858)
    low, high = wilson_interval(0, 10)
    assert (low, round(high, 4)) == (0.0, 0.2775)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("gains", "losses", "p"), [(4, 0, 0.125), (0, 0, 1.0), (5, 5, 1.0), (10, 2, 0.03857421875)])
def test_mcnemar_is_the_exact_binomial_test(gains: int, losses: int, p: float):
    assert mcnemar_p(gains, losses) == pytest.approx(p)
    assert mcnemar_p(losses, gains) == mcnemar_p(gains, losses)


def test_bootstrap_is_seeded_and_draws_tasks():
    differences = {f"t{n}": [1] if n < 6 else [0] for n in range(20)}
    found = bootstrap_difference(differences, seed=3, resamples=400)
    assert found == bootstrap_difference(dict(reversed(differences.items())), seed=3, resamples=400)
    assert found is not None
    assert 0.05 <= found.low < 0.3 < found.high <= 0.6
    assert bootstrap_difference({}, seed=1) is None
    assert bootstrap_difference({"t": [1, 1]}, seed=1, resamples=10) == (1.0, 1.0)


def test_paired_difference_compares_what_both_finished():
    arm = {("a", 1): True, ("b", 1): True, ("c", 1): False, ("d", 1): True}
    other = {("a", 1): True, ("b", 1): False, ("c", 1): True, ("e", 1): True}
    found = paired_difference(arm, other, seed=1, resamples=50)
    assert found is not None
    assert (found.pairs, found.gains, found.losses, found.difference, found.p) == (3, 1, 1, 0.0, 1.0)
    assert paired_difference(arm, {}, seed=1) is None
