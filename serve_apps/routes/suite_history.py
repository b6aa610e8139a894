"""How each test of a story came out, report after report; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.kernel.ids import Digest

_RED = ("failed", "errored")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One test in one report."""

    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """One run of the tests on one tree."""

    version: int
    at_ms: int
    tree: Digest
    task_id: str | None
    cases: Mapping[str, CaseResult]
    known_failing: frozenset[str] = frozenset()
    """Tests that fail on the base tree too (PL-52)."""
    is_whole: bool = True
    """False when only the first failures are known, and no test that passed."""


@dataclass(frozen=True, slots=True)
class TestHistory:
    """One test: its result in each report, None where it did not run or nothing is known."""

    __test__ = False

    test_id: str
    results: tuple[CaseResult | None, ...]
    is_flaky: bool
    """On one and the same tree it passed and failed (RG-46)."""
    is_known_failing: bool

    @property
    def latest(self) -> CaseResult | None:
        """The last result that there is."""
        return next((result for result in reversed(self.results) if result is not None), None)


def test_histories(reports: Sequence[SuiteReport]) -> tuple[TestHistory, ...]:
    """Every test that some report names: those that fail now first, then flaky ones, then by id."""
    names = sorted({name for report in reports for name in report.cases})
    histories = [_history(name, reports) for name in names]
    return tuple(sorted(histories, key=lambda one: (not _is_red(one.latest), not one.is_flaky, one.test_id)))


test_histories.__test__ = False  # type: ignore[attr-defined]


def _history(name: str, reports: Sequence[SuiteReport]) -> TestHistory:
    results = tuple(report.cases.get(name) for report in reports)
    seen: dict[Digest, set[bool]] = {}
    for report, result in zip(reports, results, strict=True):
        if result is not None and result.outcome != "skipped":
            seen.setdefault(report.tree, set()).add(_is_red(result))
    return TestHistory(
        test_id=name,
        results=results,
        is_flaky=any(len(colours) == 2 for colours in seen.values()),
        is_known_failing=any(name in report.known_failing for report in reports[-1:]),
    )


def _is_red(result: CaseResult | None) -> bool:
    return result is not None and result.outcome in _RED
