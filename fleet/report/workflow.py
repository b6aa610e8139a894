"""How tasks go through their workflow: time in each state, and what reviews let pass at once (LC-138)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fleet.kernel.types import Frozen
from fleet.story.state import TaskState

_REVIEWS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"architect": ("arch_approved", "REJECT_DESIGN"), "qa": ("qa_passed", "REJECT_TESTS")}
)
"""By role that reviews, the state of a task that passed, and the action that sends one back."""


class Stay(Frozen):
    """How long tasks were in a state, all visits of a task together; seconds."""

    tasks: int
    median_s: int
    p90_s: int


def stays(tasks: Sequence[TaskState]) -> dict[str, Stay]:
    """By task state, how long the tasks were in it that left it."""
    seconds_in: dict[str, list[int]] = {}
    for task in tasks:
        for state, ms in task.stayed_ms.items():
            seconds_in.setdefault(state, []).append(ms // 1000)
    return {
        state: Stay(tasks=len(seconds), median_s=_rank(seconds, 50), p90_s=_rank(seconds, 90))
        for state, seconds in sorted(seconds_in.items())
    }


def _rank(values: Sequence[int], percent: int) -> int:
    """The value that this share of all is at most, by the nearest rank."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def first_try_rates(tasks: Sequence[TaskState]) -> dict[str, float | None]:
    """By role that reviews, the share of passed tasks that it never sent back, 0 to 1. None before the first."""
    return {role: _rate(tasks, passed, sent_back) for role, (passed, sent_back) in _REVIEWS.items()}


def _rate(tasks: Sequence[TaskState], passed: str, sent_back: str) -> float | None:
    through = [task for task in tasks if passed in task.entered_ms]
    return round(sum(sent_back not in task.rejections for task in through) / len(through), 4) if through else None
