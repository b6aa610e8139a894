"""Which generated tests can be believed (CN-33)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

DropReason = Literal["not_collected", "contradicts_example", "not_run", "unstable", "failed_by_all"]
PASSED = "passed"


@dataclass(frozen=True, slots=True)
class TestRuns:
    """How one generated test behaved. An outcome is `passed` or any other text that says how it did not pass."""

    __test__ = False

    test_id: str
    is_collected: bool
    runs: Mapping[str, tuple[str, str]]
    """Candidate id -> outcomes of two runs; gate-passing candidates only."""
    contradicts_example: bool = False
    """It expects, for the input of a given example, something else than the example says."""
    base: str | None = None
    """Outcome on the base tree, by rule version 4; kept for the record, it drops nothing (CN-32, CN-33)."""


class UntrustedTest(NamedTuple):
    """A test that is not trusted, and why: a DropReason, or what an older record says."""

    test: str
    reason: str


@dataclass(frozen=True, slots=True)
class FilteredTests:
    """The trusted set; empty when `trusted` is false, because too many tests were dropped."""

    kept: tuple[str, ...]
    dropped: tuple[UntrustedTest, ...]
    trusted: bool

    @property
    def questions(self) -> tuple[str, ...]:
        """Tests that every candidate fails: a question to the person in the minority report."""
        return tuple(d.test for d in self.dropped if d.reason == "failed_by_all")

    def score(self, outcomes: Mapping[str, str]) -> int:
        """Trusted tests that passed, out of a candidate's outcome by test."""
        return sum(outcomes.get(test) == PASSED for test in self.kept)


def filter_tests(tests: Sequence[TestRuns]) -> FilteredTests:
    """Drop what cannot be believed; when more than half is dropped, believe nothing. Order of input is kept."""
    reasons = [(t.test_id, _reason(t)) for t in tests]
    dropped = tuple([UntrustedTest(test, reason) for test, reason in reasons if reason is not None])
    trusted = bool(tests) and 2 * len(dropped) <= len(tests)
    kept = tuple(test for test, reason in reasons if reason is None) if trusted else ()
    return FilteredTests(kept, dropped, trusted)


def _reason(test: TestRuns) -> DropReason | None:
    if not test.is_collected:
        return "not_collected"
    if test.contradicts_example:
        return "contradicts_example"
    if not test.runs:
        return "not_run"
    if any(first != second for first, second in test.runs.values()):
        return "unstable"
    if all(first != PASSED for first, _ in test.runs.values()):
        return "failed_by_all"
    return None
