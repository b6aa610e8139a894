"""What one arm gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.bench.service.execution import Solution


@dataclass(frozen=True, slots=True)
class Solved:
    """The choice, how the arm ended, and what simpler rules would have chosen of the same drafts."""

    pick: Solution | None
    ended: str
    picks: Mapping[str, Solution | None] = field(default_factory=dict[str, "Solution | None"])
