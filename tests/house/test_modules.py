"""A module is as long as its one thing, and benchmarks stand by themselves."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("fleet", "serve_apps", "actors", "cluster")
MOST_LINES = 600

LONGER: dict[str, str] = {
    "fleet/log/memory.py": "one store: its parts share one table of streams and one clock",
}
"""Modules over the limit, and the reason why each is one thing."""


def lengths() -> dict[str, int]:
    """Lines by module."""
    found = (path for folder in CODE for path in (ROOT / folder).rglob("*.py") if "node_modules" not in path.parts)
    return {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in found}


def test_module_over_the_limit_has_a_reason() -> None:
    over = {name for name, lines in lengths().items() if lines > MOST_LINES}
    assert over == LONGER.keys(), f"the limit is {MOST_LINES} lines: split along a natural seam, or give a reason"


def test_benchmarks_need_no_test_code() -> None:
    pattern = re.compile(r"^\s*(?:from|import) tests\b", re.MULTILINE)
    assert [p.name for p in (ROOT / "benchmarks").rglob("*.py") if pattern.search(p.read_text())] == []
