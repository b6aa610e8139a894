"""Estimates by Delphi: medians and quartiles on a fixed scale of points (PL-80..PL-83)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.kernel.errors import ReplyMalformed
from fleet.planning.planning_config import EstimateConfig

_REASON = 400
"""Characters of a reason."""


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


def iqr_on_scale(values: Sequence[int]) -> int:
    """Upper minus lower quartile, in points; 0 of a single value."""
    rising = sorted(values)
    return _quartile(rising, 3) - _quartile(rising, 1)


def estimate_form(scale: Sequence[int]) -> dict[str, Any]:
    """The form of one blind answer: a value of the scale, and why (CN-70)."""
    properties: dict[str, Any] = {
        "value": {"type": "integer", "enum": list(scale)},
        "reason": {"type": "string", "minLength": 1, "maxLength": _REASON},
    }
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_estimate(answer: Mapping[str, Any], scale: Sequence[int]) -> tuple[int, str]:
    """Value and reason of an answer. ReplyMalformed when the value is off the scale, or there is no reason (PL-83)."""
    value, reason = answer.get("value"), answer.get("reason")
    if not isinstance(value, int) or isinstance(value, bool) or value not in scale:
        raise ReplyMalformed(f"the value is none of {', '.join(map(str, scale))}")
    if not isinstance(reason, str) or not reason.strip():
        raise ReplyMalformed("the reason is missing")
    return value, reason.strip()[:_REASON]


def told_of_round(median: int, reasons: Sequence[str]) -> str:
    """What members are told of the round before: its median and its reasons, in an order that names nobody (PL-80)."""
    said = "\n".join(f"- {reason}" for reason in sorted(reasons))
    return (
        f"The estimates are far apart. Their median is {median} points. What the members said:\n{said}\nEstimate again."
    )


def _quartile(rising: Sequence[int], quarter: int) -> int:
    """Nearest rank: the least value that at least `quarter` quarters of all do not exceed."""
    return rising[-(-quarter * len(rising) // 4) - 1]
