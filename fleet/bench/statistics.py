"""What a benchmark may claim: intervals of a pass rate, and paired comparison of two arms on the same tasks."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Z95 = 1.959963984540054
_WORDS = 8
"""Draws that one hash gives."""


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float


def wilson_interval(passed: int, total: int, *, z: float = Z95) -> Interval:
    """The Wilson score interval of a rate; (0, 1) when nothing was tried.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if total == 0:
        return Interval(0.0, 1.0)
    rate, square = passed / total, z * z
    middle = (rate + square / (2 * total)) / (1 + square / total)
    half = z * math.sqrt(rate * (1 - rate) / total + square / (4 * total * total)) / (1 + square / total)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mcnemar_p(gains: int, losses: int) -> float:
    """Two-sided exact p of so many tasks gained and lost, if both were equally likely; 1 without any.

    Source: McNemar (1947), with the exact binomial distribution instead of its approximation.
    """
    total = gains + losses
    tail = sum(math.comb(total, k) for k in range(min(gains, losses) + 1))
    return min(1.0, 2 * tail / 2**total)


def bootstrap_difference(
    differences: Mapping[str, Sequence[int]], *, seed: int, resamples: int = 2000
) -> Interval | None:
    """The 95 % percentile interval of the mean difference; None without tasks. The same seed gives the same bytes.

    Tasks are drawn, not rows: the seeds of one task are not independent of each other.

    Args:
        differences: task -> per seed 1, 0 or -1.
    """
    tasks = [differences[name] for name in sorted(differences) if differences[name]]
    if not tasks:
        return None
    means = sorted(_mean_of([tasks[n] for n in _draws(seed, index, len(tasks))]) for index in range(resamples))
    return Interval(means[int(0.025 * (resamples - 1))], means[math.ceil(0.975 * (resamples - 1))])


def _mean_of(tasks: Sequence[Sequence[int]]) -> float:
    return sum(sum(task) for task in tasks) / sum(len(task) for task in tasks)


def _draws(seed: int, index: int, size: int) -> list[int]:
    found: list[int] = []
    for block in range(-(-size // _WORDS)):
        raw = hashlib.sha256(f"{seed}/{index}/{block}".encode()).digest()
        found += [int.from_bytes(raw[n : n + 4], "big") % size for n in range(0, 4 * _WORDS, 4)]
    return found[:size]


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """One arm against another on the tasks and seeds that both finished."""

    pairs: int
    gains: int
    """Pairs that only the first arm solved."""
    losses: int
    difference: float
    """Difference of the pass rates, -1..1."""
    p: float
    """Exact McNemar over all pairs; with several seeds a task it is too small, and the interval is what counts."""
    interval: Interval


def paired_difference(
    arm: Mapping[tuple[str, int], bool], other: Mapping[tuple[str, int], bool], *, seed: int, resamples: int = 2000
) -> PairedDifference | None:
    """The first arm against the second, both as (task, seed) -> solved; None when they share nothing."""
    shared = sorted(arm.keys() & other.keys())
    differences: dict[str, list[int]] = {}
    for task, number in shared:
        differences.setdefault(task, []).append(int(arm[task, number]) - int(other[task, number]))
    interval = bootstrap_difference(differences, seed=seed, resamples=resamples)
    if interval is None:
        return None
    values = [value for of_task in differences.values() for value in of_task]
    gains, losses = values.count(1), values.count(-1)
    return PairedDifference(
        len(shared), gains, losses, (gains - losses) / len(shared), mcnemar_p(gains, losses), interval
    )
