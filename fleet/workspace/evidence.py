"""What a report proves at one level: exact numbers where there is evidence, None where there is none (RG-10..RG-14)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from pydantic import StrictBool

from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Frozen, Reason, Rigor, StaticGate
from fleet.workspace.levels import STRICT_LEVELS
from fleet.workspace.report import SECRETS, StageName, TestSection, WorkspaceReport

Suite = Literal["unit", "e2e"]
Section = Literal["build", "unit", "coverage", "static", "lint", "e2e", "security"]

_STAGE_OF: dict[Section, StageName] = {
    "build": "build",
    "unit": "unit",
    "coverage": "unit",
    "static": "static",
    "lint": "static",
    "security": "static",
    "e2e": "e2e",
}


class E2eDeclaration(Frozen):
    """The project says that it has no user-visible surface (RG-77)."""

    reason: Reason
    base_has_suite: StrictBool
    """Whether the base tree has an end-to-end suite: then the declaration does not hold."""
    qa_approved: StrictBool = False
    """A QA approval of the declaration; needed at L3."""

    def holds_at(self, rigor: Rigor) -> bool:
        """True when e2e is not applicable at this level."""
        return not self.base_has_suite and (rigor != "L3" or self.qa_approved)


class FlakyTests(NamedTuple):
    """Tests on whose result two reports of one tree disagree, by suite (RG-46)."""

    unit: frozenset[str] = frozenset()
    e2e: frozenset[str] = frozenset()


class TestReading(NamedTuple):
    """What a suite proves: `rate` is exact; flaky tests that passed are in `failed` at L2 and L3."""

    passed: int
    failed: int
    skipped: int

    @property
    def is_mostly_skipped(self) -> bool:
        """True when more than half of the collected tests were skipped (RG-12)."""
        return self.skipped > self.passed + self.failed

    @property
    def rate(self) -> Fraction:
        """passed / (passed + failed), 0..1."""
        return Fraction(self.passed, self.passed + self.failed)


class StaticReading(NamedTuple):
    """What the static analysis proves; `is_ok` is false when the gate is ERROR, whatever the tool claims (RG-13)."""

    is_ok: bool
    gate: StaticGate
    new_critical: int
    new_major: int


@dataclass(frozen=True, slots=True)
class ReportCase:
    """A report as it is read at one level."""

    report: WorkspaceReport
    rigor: Rigor
    e2e_declaration: E2eDeclaration | None = None
    flaky: FlakyTests = FlakyTests()

    def build(self) -> bool | None:
        """Whether the build is ok; a claim beside a non-zero exit code is not believed. None without evidence."""
        section = self.report.build
        if section is None or _was_skipped(self.report, "build") or section.ok is None or section.exit_code is None:
            return None
        return section.ok and section.exit_code == 0

    def tests(self, suite: Suite) -> TestReading | None:
        """The suite's counts; None without evidence, which zero tests are too (RG-11)."""
        reading = self._counted(suite)
        if reading is None or (reading.is_mostly_skipped and self.rigor in STRICT_LEVELS):
            return None
        return reading

    def is_mostly_skipped(self, suite: Suite) -> bool:
        """True when the suite ran, but skipped more than half of its tests (RG-12)."""
        reading = self._counted(suite)
        return reading is not None and reading.is_mostly_skipped

    def _counted(self, suite: Suite) -> TestReading | None:
        section = self.report.unit if suite == "unit" else self.report.e2e
        if section is None or _was_skipped(self.report, suite):
            return None
        return _read_tests(section, self._flaky_of(suite))

    def _flaky_of(self, suite: Suite) -> frozenset[str]:
        if self.rigor not in STRICT_LEVELS:
            return frozenset()
        return self.flaky.unit if suite == "unit" else self.flaky.e2e

    def coverage_pct(self) -> Fraction | None:
        """Coverage of new lines in percent; None without evidence, or when there are no new lines."""
        section = self.report.coverage
        if section is None or _was_skipped(self.report, "coverage") or not section.new_lines:
            return None
        return None if section.new_pct is None else Fraction(section.new_pct)

    def static(self) -> StaticReading | None:
        """The static analysis; None without evidence, which gate NONE is too."""
        analysis = self.report.static
        if analysis is None or _was_skipped(self.report, "static") or analysis.ok is None:
            return None
        if analysis.gate in (None, "NONE") or analysis.new_critical is None or analysis.new_major is None:
            return None
        return StaticReading(
            analysis.ok and analysis.gate != "ERROR", analysis.gate, analysis.new_critical, analysis.new_major
        )

    def lint_errors(self) -> int | None:
        """New lint errors; None without evidence."""
        section = self.report.lint
        if section is None or _was_skipped(self.report, "lint") or section.ok is None:
            return None
        return section.errors

    def secrets_found(self) -> int | None:
        """Secrets found; None without evidence (RG-15)."""
        section = self.report.security
        return None if section is None or _was_skipped(self.report, "security") else section.secrets_found

    def coverage_is_applicable(self) -> bool:
        """False when it was measured that no executable line is new or changed (RG-14)."""
        section = self.report.coverage
        return section is None or section.new_lines != 0 or _was_skipped(self.report, "coverage")

    def e2e_is_applicable(self) -> bool:
        """False under a declaration that holds here (RG-77); a suite that ran all the same counts."""
        declared = self.e2e_declaration is not None and self.e2e_declaration.holds_at(self.rigor)
        return self.report.e2e is not None or not declared


def _was_skipped(report: WorkspaceReport, section: Section) -> bool:
    # Secrets are looked for in the change itself, not by a stage: Node has no analyser, so its stage is always skipped,
    # and what was searched and found to be clean counted as not searched. What was found blocks as ever.
    if section == "security" and report.security is not None and any(t.name == SECRETS for t in report.security.tools):
        return False
    stage = report.stage(_STAGE_OF[section])
    return stage is not None and stage.status == "skipped"


def _read_tests(section: TestSection, flaky: frozenset[str]) -> TestReading | None:
    passed, failed, errored, skipped = section.passed, section.failed, section.errored, section.skipped
    if section.ok is None or passed is None or failed is None or errored is None or skipped is None:
        return None
    counted = passed + failed + errored
    if counted == 0:
        return None
    turned = min(passed, len(flaky - {f.id for f in section.failures} - set(section.known_failing)))
    return TestReading(passed - turned, failed + errored + turned, skipped)


def is_inconsistent(report: WorkspaceReport) -> bool:
    """True when a section claims what its own numbers, or the record of its stage, contradict (RG-13)."""
    build, static = report.build, report.static
    sections: tuple[Section, ...] = ("build", "unit", "coverage", "static", "lint", "e2e", "security")
    return (
        (build is not None and build.ok is True and build.exit_code not in (None, 0))
        or any(s is not None and s.ok is True and (s.failed or s.errored) for s in (report.unit, report.e2e))
        or (static is not None and static.ok is True and static.gate == "ERROR")
        or any(getattr(report, s) is not None and _was_skipped(report, s) for s in sections)
    )


def find_flaky(first: WorkspaceReport, second: WorkspaceReport) -> FlakyTests:
    """The tests on whose result two reports of one tree disagree (RG-46).

    A report lists its first failures only. A test that is missing from a cut list may have failed there too, so it
    is not called flaky.

    Raises:
        InvalidInput: the reports are of different trees.
    """
    if first.tree_digest != second.tree_digest:
        raise InvalidInput(
            "only reports of one tree can show flaky tests",
            first=first.tree_digest,
            second=second.tree_digest,
        )
    return FlakyTests(unit=_disagreements(first.unit, second.unit), e2e=_disagreements(first.e2e, second.e2e))


def _disagreements(first: TestSection | None, second: TestSection | None) -> frozenset[str]:
    if first is None or second is None:
        return frozenset()
    return _only_in(first, second) | _only_in(second, first)


def _only_in(one: TestSection, other: TestSection) -> frozenset[str]:
    is_cut = len(other.failures) != (other.failed or 0) + (other.errored or 0)
    if is_cut or not other.passed:
        return frozenset()
    excluded = {f.id for f in other.failures} | set(other.known_failing) | set(one.known_failing)
    return frozenset(f.id for f in one.failures) - excluded
