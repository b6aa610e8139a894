"""What a benchmark gives back, and how it is shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured thing: `value` in `unit`, and the yardstick of the same run that it is compared with."""

    name: str
    value: float
    unit: str
    yardstick: str = ""
    yardstick_value: float = 0.0
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Value over yardstick; None without one."""
        return self.value / self.yardstick_value if self.yardstick_value else None


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent of the values lie; at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(figures: Sequence[Figure]) -> str:
    """One line for each figure, with its ratio."""
    lines = [f"{'figure':<58}{'value':>12}  {'unit':<10}{'ratio':>8}  yardstick"]
    for figure in figures:
        ratio = f"{figure.ratio:.2f}" if figure.ratio is not None else ""
        yardstick = f"{figure.yardstick} = {figure.yardstick_value:,.2f}" if figure.yardstick else ""
        against = "; ".join(part for part in (yardstick, figure.note) if part)
        lines.append(f"{figure.name:<58}{figure.value:>12,.2f}  {figure.unit:<10}{ratio:>8}  {against}")
    return "\n".join(lines)


def write(figures: Sequence[Figure], path: Path, *, machine: dict[str, object]) -> None:
    """The figures and what they were measured on, as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(figure) | {"ratio": figure.ratio} for figure in figures]
    path.write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
