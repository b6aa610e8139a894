"""Hard gates: checks that block by themselves, before any weighting (RG-30..RG-32)."""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction
from typing import Literal, NamedTuple

from fleet.kernel.types import Dimension, Frozen
from fleet.workspace.evidence import ReportCase
from fleet.workspace.levels import GateName, LevelConfig
from fleet.workspace.score import decimal_text


class GateResult(Frozen):
    """One hard gate: `ok` is false when the evidence is missing or the limit is not met."""

    name: GateName
    ok: bool
    value: str | None
    """What was found, None without evidence."""
    limit: str


class _Checked(NamedTuple):
    ok: bool
    value: str | None
    limit: str


_DIMENSION_OF: dict[GateName, Dimension] = {
    "unit": "unit",
    "static_critical": "static",
    "static_gate": "static",
    "coverage_evidence": "coverage",
    "coverage": "coverage",
    "e2e": "e2e",
    "lint": "lint",
}


def check_gates(case: ReportCase, level: LevelConfig, *, waived: Collection[Dimension] = ()) -> list[GateResult]:
    """The level's hard gates, in the order of its table. Those of a waived or not applicable dimension are left out."""
    return [
        GateResult(name=name, ok=checked.ok, value=checked.value, limit=checked.limit)
        for name in level.hard
        if _applies(name, case, waived)
        for checked in (_check(name, case, level),)
    ]


def _applies(name: GateName, case: ReportCase, waived: Collection[Dimension]) -> bool:
    dimension = _DIMENSION_OF.get(name)
    if dimension is None:
        return True
    if dimension == "coverage" and not case.coverage_is_applicable():
        return False
    if dimension == "e2e" and not case.e2e_is_applicable():
        return False
    return dimension not in waived


def _check(name: GateName, case: ReportCase, level: LevelConfig) -> _Checked:
    match name:
        case "build":
            ok = case.build()
            return _Checked(ok is True, None if ok is None else ("ok" if ok else "failed"), "ok")
        case "secrets":
            count = case.secrets_found()
            return _Checked(count == 0, _text(count), "0 secrets")
        case "unit" | "e2e":
            return _rate(name, case, level)
        case "static_critical" | "static_gate":
            return _static(name, case, level)
        case "coverage_evidence":
            return _Checked(case.coverage_pct() is not None, _percent(case.coverage_pct()), "measured")
        case "coverage":
            pct, limit = case.coverage_pct(), level.coverage.min_new_pct
            return _Checked(pct is not None and pct >= limit, _percent(pct), f">= {limit} %")
        case "lint":
            errors, maximum = case.lint_errors(), level.lint.max_errors
            return _Checked(errors is not None and _within(errors, maximum), _text(errors), _at_most(maximum, "errors"))


def _rate(name: Literal["unit", "e2e"], case: ReportCase, level: LevelConfig) -> _Checked:
    reading = case.tests(name)
    limit = (level.unit if name == "unit" else level.e2e).min_pass_rate
    if reading is None:
        return _Checked(False, None, f">= {limit}")
    return _Checked(reading.rate >= Fraction(limit), decimal_text(reading.rate, places=4), f">= {limit}")


def _static(name: Literal["static_critical", "static_gate"], case: ReportCase, level: LevelConfig) -> _Checked:
    analysis, limits = case.static(), level.static
    if name == "static_critical":
        limit = _at_most(limits.max_critical, "critical")
        return _Checked(
            analysis is not None and _within(analysis.new_critical, limits.max_critical),
            None if analysis is None else str(analysis.new_critical),
            limit,
        )
    limit = f"gate {' or '.join(limits.gate)}, {_at_most(limits.max_major, 'major')}"
    if analysis is None:
        return _Checked(False, None, limit)
    held = analysis.is_ok and analysis.gate in limits.gate and _within(analysis.new_major, limits.max_major)
    return _Checked(held, f"gate {analysis.gate}, {analysis.new_major} major", limit)


def _within(count: int, maximum: int | None) -> bool:
    return maximum is None or count <= maximum


def _at_most(maximum: int | None, what: str) -> str:
    return f"any number of {what}" if maximum is None else f"at most {maximum} {what}"


def _text(count: int | None) -> str | None:
    return None if count is None else str(count)


def _percent(value: Fraction | None) -> str | None:
    return None if value is None else f"{decimal_text(value, places=2)} %"
