"""One thing that is wrong with a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Problem", "ProblemCode"]

ProblemCode = Literal[
    "reply",
    "task_count",
    "task_title",
    "task_description",
    "task_role",
    "task_kind",
    "task_hours",
    "task_priority",
    "task_keywords",
    "task_dependency",
    "task_trace",
    "task_paths",
    "ac_uncovered",
    "plan_cycle",
]
"""PL-13, PL-20, PL-30; `reply`: the answer is not of the asked form at all."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong and where; `message` is sent back to the planner as it is (PL-21)."""

    code: ProblemCode
    message: str
    task_index: int | None = None
    """Index of the task in the answer, None when it is about the whole plan."""
    ids: tuple[str, ...] = ()
    """The tasks or criteria it names."""
