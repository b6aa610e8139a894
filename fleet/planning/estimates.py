"""Estimates by Delphi: medians and quartiles on a fixed scale of points (PL-80..PL-83)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.planning.planning_config import EstimateConfig

__all__ = ["AnotherRound", "Estimated", "NoEstimate", "close_estimate_round", "median_on_scale"]


@dataclass(frozen=True, slots=True)
class Estimated:
    """The estimate stands; without convergence it is listed for the po, and blocks nothing (PL-82)."""

    points: int
    """The median."""
    iqr: int
    """Upper minus lower quartile, in points."""
    rounds: int
    converged: bool
    values: tuple[int, ...]
    """Anonymous values of the last round, rising."""


@dataclass(frozen=True, slots=True)
class AnotherRound:
    """The values are too far apart: the members see this median and the anonymous reasons, and answer again."""

    median: int


@dataclass(frozen=True, slots=True)
class NoEstimate:
    """Too few values; nothing is made up (PL-83)."""

    values: int
    needed: int


def close_estimate_round(
    answers: Sequence[int | None], *, round_number: int, config: EstimateConfig
) -> Estimated | AnotherRound | NoEstimate:
    """What one round of blind answers leads to (PL-81..PL-83).

    Args:
        answers: one per member; None, or a value off the scale after its repair request, counts as absent.
        round_number: 1 for the first round.
    """
    values = sorted(v for v in answers if v is not None and v in config.scale)
    needed = len(answers) // 2 + 1
    if len(values) < needed:
        return NoEstimate(len(values), needed)
    median, low, high = median_on_scale(values), _quartile(values, 1), _quartile(values, 3)
    converged = config.scale.index(high) - config.scale.index(low) <= 1
    if not converged and round_number < config.max_rounds:
        return AnotherRound(median)
    return Estimated(median, high - low, round_number, converged, tuple(values))


def median_on_scale(values: Sequence[int]) -> int:
    """The median; of two middle values the higher one, so that it is always on the scale (PL-81)."""
    assert values, "there is no median of nothing"
    return sorted(values)[len(values) // 2]


def _quartile(rising: Sequence[int], quarter: int) -> int:
    """Nearest rank: the least value that at least `quarter` quarters of all do not exceed."""
    return rising[-(-quarter * len(rising) // 4) - 1]
