"""Coverage of the product by package, lines and branches together; fails below the bar of a package.

Of `fleet/`, the rules of a package need 95 % and all else in it 90 %. The packages beside it have bars of their own.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from scripts.layout import OUTER, part_of

CORE_PERCENT, OUTER_PERCENT = 95.0, 90.0
BESIDE = {"actors": 68.0, "cluster": 95.0, "serve_apps": 95.0, "swe_fleet_client": 75.0}
"""Bars of the packages beside `fleet`, a little below what was measured: much of them runs in processes of a fleet."""
WHOLE = "fleet, all of it"
ELSEWHERE = frozenset(
    {
        "fleet/sandbox/backends/containers/backend.py",
        "fleet/extensions/browser/browser.py",
        "fleet/extensions/operations/docker.py",
        "fleet/extensions/operations/postgresql.py",
    }
)
"""Drive programs that need not be installed: their tests are those of `make test-wide`."""


class Row(NamedTuple):
    """One package: how much of it was run, and how much has to be."""

    package: str
    percent: float
    branches: float
    needed: float

    @property
    def is_enough(self) -> bool:
        """Whether it is over its bar."""
        return self.percent >= self.needed and (self.package != WHOLE or self.branches >= self.needed)


def rows(report: Mapping[str, Any]) -> list[Row]:
    """One row per package, the whole of `fleet` last; a package beside `fleet` of which nothing was run has 0 %."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path, entry in report["files"].items():
        if path in ELSEWHERE:
            continue
        summary = entry["summary"]
        figures = [summary[k] for k in ("covered_lines", "num_statements", "covered_branches", "num_branches")]
        package = Path(path).parts[0]
        for name in (package,) if package in BESIDE else (part_of(path), WHOLE):
            sums[name] = [a + b for a, b in zip(sums[name], figures, strict=True)]
    for name in (*BESIDE, WHOLE):
        sums.setdefault(name, [0, 1, 0, 0])
    return [row_of(name, sums[name]) for name in sorted(sums.keys() - {*BESIDE, WHOLE}) + [*BESIDE, WHOLE]]


def row_of(name: str, figures: list[int]) -> Row:
    """The percentages of one package."""
    lines, all_lines, branches, all_branches = figures
    is_core = name not in OUTER and "." not in name and name != WHOLE
    total = all_lines + all_branches
    return Row(
        name,
        100.0 * (lines + branches) / total if total else 100.0,
        100.0 * branches / all_branches if all_branches else 100.0,
        BESIDE.get(name, CORE_PERCENT if is_core else OUTER_PERCENT),
    )


def main(arguments: list[str]) -> int:
    """Print the table; 1 when a package is below its bar."""
    found = rows(json.loads(Path(arguments[0]).read_text()))
    sys.stdout.write(f"{'package':<22}{'covered':>9}{'branches':>10}{'needed':>8}\n")
    for row in found:
        mark = "" if row.is_enough else "  TOO LOW"
        sys.stdout.write(f"{row.package:<22}{row.percent:>8.1f}%{row.branches:>9.1f}%{row.needed:>7.0f}%{mark}\n")
    return 0 if all(row.is_enough for row in found) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
