"""Write docs/metrics.md from the catalogue of metrics; `--check` only says whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from fleet.telemetry.catalogue import metrics_page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"


def main(arguments: list[str]) -> int:
    """Write the page, or say that it is out of date."""
    if "--check" not in arguments:
        PAGE.write_text(metrics_page())
        return 0
    if PAGE.exists() and PAGE.read_text() == metrics_page():
        return 0
    sys.stderr.write("docs/metrics.md is out of date: run `python scripts/metrics.py`\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
