"""The score of each dimension and their weighted total, in exact fractions (RG-20..RG-25)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from fleet.kernel.types import Dimension, EvidenceState
from fleet.workspace.evidence import ReportCase
from fleet.workspace.levels import DIMENSIONS, LevelConfig

_FULL = Fraction(100)
_NOTHING = Fraction(0)


@dataclass(frozen=True, slots=True)
class ScoredDimension:
    """One dimension: its points of the table, its exact score 0..100, what was found and what was asked for."""

    name: Dimension
    weight: int
    score: Fraction
    evidence: EvidenceState
    value: str | None
    limit: str | None

    @property
    def is_counted(self) -> bool:
        """False when its weight is spread over the others in proportion."""
        return self.evidence in ("present", "missing")


@dataclass(frozen=True, slots=True)
class _Found:
    score: Fraction
    value: str | None


def score_dimensions(
    case: ReportCase, level: LevelConfig, *, waived: Collection[Dimension] = ()
) -> list[ScoredDimension]:
    """Every dimension in the order of the table."""
    return [_dimension(d, case, level, d in waived) for d in DIMENSIONS]


def total_score(dimensions: Sequence[ScoredDimension]) -> Fraction:
    """sum(weight * score) / sum(weight) over what counts: the spread of RG-14, RG-43 and RG-77 keeps proportions."""
    counted = [d for d in dimensions if d.is_counted]
    weight = sum(d.weight for d in counted)
    assert weight > 0, "build always counts and weighs something"
    return sum((d.weight * d.score for d in counted), _NOTHING) / weight


def decimal_text(value: Fraction, *, places: int) -> str:
    """The value rounded down to this many decimals, e.g. `98.7`; never rounded up over a threshold (RG-25)."""
    scaled = value.numerator * 10**places // value.denominator
    whole, rest = divmod(scaled, 10**places)
    return f"{whole}.{rest:0{places}d}"


def _dimension(name: Dimension, case: ReportCase, level: LevelConfig, is_waived: bool) -> ScoredDimension:
    weight, limit = level.weights.of(name), _limit(name, level)
    applicable = {"coverage": case.coverage_is_applicable, "e2e": case.e2e_is_applicable}.get(name)
    if applicable is not None and not applicable():
        return ScoredDimension(name, weight, _NOTHING, "not_applicable", None, limit)
    measure = _measure(name, case, level)
    value = measure.value if measure else None
    if is_waived:
        return ScoredDimension(name, weight, _NOTHING, "waived", value, limit)
    if measure is None:
        is_skipped = name in ("unit", "e2e") and case.is_mostly_skipped(name)
        return ScoredDimension(name, weight, _NOTHING, "missing", "mostly_skipped" if is_skipped else None, limit)
    return ScoredDimension(name, weight, measure.score, "present", value, limit)


def _measure(name: Dimension, case: ReportCase, level: LevelConfig) -> _Found | None:
    match name:
        case "build":
            ok = case.build()
            return None if ok is None else _Found(_FULL if ok else _NOTHING, "ok" if ok else "failed")
        case "unit" | "e2e":
            return _tests(name, case, level)
        case "static":
            return _static(case, level)
        case "coverage":
            pct = case.coverage_pct()
            limit = Fraction(level.coverage.min_new_pct)
            return None if pct is None else _Found(_toward(pct, limit), f"{decimal_text(pct, places=2)} %")
        case "lint":
            return _lint(case, level)


def _toward(value: Fraction, limit: Fraction) -> Fraction:
    """100 from the limit on, below it in proportion; a limit of 0 is always reached."""
    return _FULL if value >= limit else _FULL * value / limit


def _tests(name: Literal["unit", "e2e"], case: ReportCase, level: LevelConfig) -> _Found | None:
    reading = case.tests(name)
    if reading is None:
        return None
    limit = Fraction((level.unit if name == "unit" else level.e2e).min_pass_rate)
    text = f"{decimal_text(reading.rate, places=4)} ({reading.passed} of {reading.passed + reading.failed} passed)"
    skipped = f", {reading.skipped} skipped" if reading.skipped else ""
    return _Found(
        _toward(reading.rate, limit), text + skipped + (" mostly_skipped" if reading.is_mostly_skipped else "")
    )


def _static(case: ReportCase, level: LevelConfig) -> _Found | None:
    reading = case.static()
    if reading is None:
        return None
    text = f"gate {reading.gate}, {reading.new_critical} critical, {reading.new_major} major"
    if not reading.is_ok:
        return _Found(_NOTHING, f"not ok: {text}")
    held = (
        reading.gate in level.static.gate
        and _within(reading.new_critical, level.static.max_critical)
        and _within(reading.new_major, level.static.max_major)
    )
    return _Found(_FULL if held else Fraction(50), text)


def _within(count: int, maximum: int | None) -> bool:
    return maximum is None or count <= maximum


def _lint(case: ReportCase, level: LevelConfig) -> _Found | None:
    errors, maximum = case.lint_errors(), level.lint.max_errors
    if errors is None:
        return None
    score = _FULL if maximum is None or errors <= maximum else Fraction(100 * maximum, errors)
    return _Found(score, f"{errors} errors")


def _limit(name: Dimension, level: LevelConfig) -> str | None:
    match name:
        case "build":
            return "ok"
        case "unit":
            return f">= {level.unit.min_pass_rate}"
        case "e2e":
            return f">= {level.e2e.min_pass_rate}"
        case "coverage":
            return f">= {level.coverage.min_new_pct} %"
        case "lint":
            return _at_most(level.lint.max_errors, "errors")
        case "static":
            critical = _at_most(level.static.max_critical, "critical")
            major = _at_most(level.static.max_major, "major")
            return ", ".join(p for p in (f"gate {' or '.join(level.static.gate)}", critical, major) if p)


def _at_most(maximum: int | None, what: str) -> str | None:
    return None if maximum is None else f"at most {maximum} {what}"
