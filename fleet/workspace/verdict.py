"""From a report to a verdict: hard gates, total, and the worst of all levels up to the story's own (RG-40..RG-46)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest, EntityId
from fleet.kernel.types import Dimension, EvidenceState, Frozen, Rigor, Verdict, WaivableDimension
from fleet.workspace.evidence import E2eDeclaration, FlakyTests, ReportCase, is_inconsistent
from fleet.workspace.gates import GateResult, check_gates
from fleet.workspace.levels import LEVELS, STRICT_LEVELS, RigorConfig, check_rigor
from fleet.workspace.report import WorkspaceReport
from fleet.workspace.score import ScoredDimension, decimal_text, score_dimensions, total_score

_MAX_FLAKY = 20
_WORSE: tuple[Verdict, ...] = ("pass", "warn", "block")


class Waiver(Frozen):
    """A granted `waive_dimension` approval of role qa for one dimension of one story; never build (RG-43)."""

    approval_id: EntityId
    dimension: WaivableDimension


class DimensionResult(Frozen):
    """One dimension of a score: `weight` are its points of the table, `score` is 0..100 rounded down to one decimal."""

    name: Dimension
    weight: int
    score: str
    evidence: EvidenceState
    value: str | None
    limit: str | None


# Source: RG-45.
class WorkspaceScore(Frozen):
    """The verdict on one report at one level and everything that explains it."""

    run_id: EntityId
    tree_digest: Digest
    rigor: Rigor
    score: str
    """The level's own total, rounded down to one decimal; comparisons used the exact value (RG-25)."""
    verdict: Verdict
    """The effective verdict: the worst of this and all lower levels (RG-41)."""
    limited_by: Rigor
    """The level that decided: its own when that is no better than any lower one."""
    gates: tuple[GateResult, ...]
    dimensions: tuple[DimensionResult, ...]
    reasons: tuple[str, ...]
    inconsistent: bool
    waivers: tuple[Dimension, ...]
    """The dimensions whose weight was spread over the others by a waiver (RG-43)."""

    def to_json(self) -> dict[str, Any]:
        """The score's JSON form."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class _LevelResult:
    rigor: Rigor
    verdict: Verdict
    total: Fraction
    gates: list[GateResult]
    dimensions: list[ScoredDimension]


def score_workspace(
    report: WorkspaceReport,
    *,
    rigor: str,
    config: RigorConfig,
    expected_tree: Digest,
    waivers: Sequence[Waiver] = (),
    e2e_declaration: E2eDeclaration | None = None,
    flaky: FlakyTests = FlakyTests(),  # noqa: B008 (an immutable value)
) -> WorkspaceScore:
    """The score and effective verdict of a report; every valid report of the expected tree gets one (RG-44).

    Args:
        waivers: those that have not expired. At L3 none holds; one of e2e approves the project's declaration.
        e2e_declaration: the project's statement that it has no user-visible surface (RG-77).
        flaky: tests on whose result reports of this tree disagree (`find_flaky`); they count as failed at L2 and L3.

    Raises:
        InvalidInput: the report is of another tree, or no such level exists; nothing may be recorded then.
    """
    level = check_rigor(rigor)
    if report.tree_digest != expected_tree:
        raise InvalidInput(
            f"run {report.run_id} reports on tree {report.tree_digest}, expected {expected_tree}; run it on that tree",
            field="tree_digest",
            value=report.tree_digest,
            expected=expected_tree,
        )
    held = () if level == "L3" else tuple(waivers)
    if e2e_declaration is not None and any(w.dimension == "e2e" for w in waivers):
        e2e_declaration = e2e_declaration.model_copy(update={"qa_approved": True})
    waived = frozenset[Dimension](w.dimension for w in held)
    results = [
        _at_level(ReportCase(report, name, e2e_declaration, flaky), config, waived)
        for name in LEVELS[: LEVELS.index(level) + 1]
    ]
    own, decided = results[-1], _deciding(results)
    without = [w.dimension for w in waivers if not held and not (w.dimension == "e2e" and e2e_declaration is not None)]
    reasons = _reasons(own, decided) + [f"waiver of {name} does not hold at L3" for name in without]
    if names := sorted(flaky.unit | flaky.e2e):
        counts = "counts as failed" if level in STRICT_LEVELS else "is listed"
        reasons.append(f"results differ on this tree, which {counts} at {level}: {', '.join(names[:_MAX_FLAKY])}")
    return WorkspaceScore(
        run_id=report.run_id,
        tree_digest=report.tree_digest,
        rigor=level,
        score=decimal_text(own.total, places=1),
        verdict=decided.verdict,
        limited_by=decided.rigor,
        gates=tuple(own.gates),
        dimensions=tuple(_result(d) for d in own.dimensions),
        reasons=tuple(reasons),
        inconsistent=is_inconsistent(report),
        waivers=tuple(w.dimension for w in held),
    )


def _at_level(case: ReportCase, config: RigorConfig, waived: frozenset[Dimension]) -> _LevelResult:
    level = config.level(case.rigor)
    gates = check_gates(case, level, waived=waived)
    dimensions = score_dimensions(case, level, waived=waived)
    total = total_score(dimensions)
    if not all(g.ok for g in gates):
        verdict: Verdict = "block"
    elif total >= config.verdict.pass_from:
        verdict = "pass"
    else:
        verdict = "warn" if total >= config.verdict.warn_from else "block"
    return _LevelResult(case.rigor, verdict, total, gates, dimensions)


def _deciding(results: list[_LevelResult]) -> _LevelResult:
    """The story's own level unless a lower one is worse; of several equally bad ones the lowest."""
    worst = max(results, key=lambda r: _WORSE.index(r.verdict))
    return results[-1] if results[-1].verdict == worst.verdict else worst


def _result(dimension: ScoredDimension) -> DimensionResult:
    return DimensionResult(
        name=dimension.name,
        weight=dimension.weight,
        score=decimal_text(dimension.score, places=1),
        evidence=dimension.evidence,
        value=dimension.value,
        limit=dimension.limit,
    )


def _reasons(own: _LevelResult, decided: _LevelResult) -> list[str]:
    """Every gate and dimension below full score, with value and limit."""
    reasons = [f"gate {g.name} failed: {g.value or 'no evidence'}, needs {g.limit}" for g in own.gates if not g.ok]
    reasons += [
        f"{d.name} scores {decimal_text(d.score, places=1)}: {d.value or 'no evidence'}, needs {d.limit or 'a result'}"
        for d in own.dimensions
        if d.is_counted and d.score < 100
    ]
    if decided is not own:
        blocked = "".join(f", gate {g.name} failed" for g in decided.gates if not g.ok)
        reasons.append(
            f"limited by {decided.rigor}: {decided.verdict} at {decimal_text(decided.total, places=1)}{blocked}"
        )
    return reasons
