"""What a stage of a TASK is, and the result files that it leaves (RC-47, RC-78)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

INSIDE = Path(__file__).resolve().parent
LIMITS_S = {"build": 1200, "unit": 1200, "integration": 1200, "lint": 600, "static": 600, "e2e": 1800, "preview": 1800}

JUNIT = "test-reports/junit.xml"
E2E_JUNIT = "test-reports/e2e.xml"
PREVIEW_JUNIT = "test-reports/preview.xml"
COVERAGE = "coverage/coverage.xml"
BUILD_JSON = "out/build.json"
LINT_JSON = "out/lint.json"
STATIC_JSON = "out/static.json"

UNAVAILABLE = 69
"""Exit code of a command that found nothing to measure with (EX_UNAVAILABLE of sysexits.h)."""


@dataclass
class Stage:
    """One stage: what to run, the files it must leave (`expects`), those it may leave (`also`), its time in seconds.

    Without a command the language has nothing for this stage, and it is recorded as skipped.
    """

    name: str
    command: list[str]
    expects: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    stdout: str | None = None
    before: list[list[str]] = field(default_factory=list[list[str]])
    after: list[list[str]] = field(default_factory=list[list[str]])
    may_be_empty: bool = False
    tool: str = ""
    """What measures in this stage, for the report; "" when nothing does."""
    part_of: str = ""
    """The stage that this one continues: both share its time."""
    unavailable: int | None = None
    """The exit code that says: what measures is not here, so nothing was measured (`error`, never `failed`)."""

    @property
    def limit_s(self) -> int:
        """Seconds of RC-78."""
        return LIMITS_S[self.name]
