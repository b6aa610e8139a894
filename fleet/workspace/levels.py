"""The four rigor levels as data (RG-1..RG-4). Shipped values: config/rigor.yaml."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal, Self, cast, get_args

from pydantic import ConfigDict, Field, model_validator

from fleet.kernel.documents import WrongKey, WrongKeys
from fleet.kernel.errors import InvalidInput
from fleet.kernel.types import Dimension, Frozen, Rigor

LEVELS: tuple[Rigor, ...] = get_args(Rigor)
"""From the most lenient to the strictest."""
STRICT_LEVELS: frozenset[Rigor] = frozenset({"L2", "L3"})
"""Where a mostly skipped run is no evidence (RG-12) and a flaky test counts as failed (RG-46)."""

DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
GateName = Literal[
    "build", "secrets", "unit", "static_critical", "static_gate", "coverage_evidence", "coverage", "e2e", "lint"
]
"""The rows of RG-31."""

_ALIASES: dict[str, Rigor] = {"experimental": "L0", "standard": "L1", "high": "L2", "critical": "L3"}


Count = Annotated[int, Field(strict=True, ge=0)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]
# The bounds on digits keep an exact fraction of the value small.
Rate = Annotated[Decimal, Field(ge=0, le=1, max_digits=7, decimal_places=6)]


class DimensionWeights(Frozen):
    """Points of 100 per dimension; build has at least one, so that there is always something to score."""

    build: Annotated[int, Field(strict=True, ge=1, le=100)]
    unit: Percent
    static: Percent
    e2e: Percent
    coverage: Percent
    lint: Percent

    def of(self, dimension: Dimension) -> int:
        """Points of one dimension."""
        return cast(int, getattr(self, dimension))

    @model_validator(mode="after")
    def _sum_is_100(self) -> Self:
        total = sum(self.of(d) for d in DIMENSIONS)
        if total != 100:
            raise ValueError(f"the weights sum to {total}; they must sum to 100")
        return self


class TestLimit(Frozen):
    """Least passed / (passed + failed + errored), 0..1."""

    min_pass_rate: Rate


class CoverageLimit(Frozen):
    """Least coverage of new or changed executable lines, in percent."""

    min_new_pct: Percent


class StaticLimit(Frozen):
    """Allowed outcomes of the static gate and the most new findings; an absent maximum is unlimited (RG-3)."""

    gate: Annotated[tuple[Literal["OK", "WARN"], ...], Field(min_length=1)]
    max_critical: Count | None = None
    max_major: Count | None = None


class LintLimit(Frozen):
    """Most lint errors that are new against the base tree; an absent maximum is unlimited (RG-3)."""

    max_errors: Count | None = None


class LevelConfig(Frozen):
    """One column of RG-2 and RG-31."""

    dor_min: Percent
    """Least readiness score of a story (SC-30)."""
    weights: DimensionWeights
    unit: TestLimit
    coverage: CoverageLimit
    static: StaticLimit
    e2e: TestLimit
    lint: LintLimit
    hard: tuple[GateName, ...]
    """Gates that block by themselves, whatever the total."""


class VerdictLimits(Frozen):
    """Totals (of 100) from which a report passes or is warned about (RG-40)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    pass_from: Annotated[Percent, Field(alias="pass")]
    warn_from: Annotated[Percent, Field(alias="warn")]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.warn_from > self.pass_from:
            raise ValueError(f"verdict.warn {self.warn_from} is above verdict.pass {self.pass_from}")
        return self


class RigorConfig(Frozen):
    """config/rigor.yaml: the four levels and the verdict's limits; validated so that no level loosens (RG-4, RG-32)."""

    L0: LevelConfig
    L1: LevelConfig
    L2: LevelConfig
    L3: LevelConfig
    verdict: VerdictLimits

    def level(self, rigor: Rigor) -> LevelConfig:
        """The settings of one level."""
        return cast(LevelConfig, getattr(self, rigor))

    @model_validator(mode="after")
    def _never_loosens(self) -> Self:
        lacking = [gate for gate in ("build", "secrets") if gate not in self.L0.hard]
        problems = [WrongKey("L0.hard", f"it must name {gate!r}") for gate in lacking]
        for lower, upper in pairwise(LEVELS):
            looser = _loosened(self.level(lower), self.level(upper))
            problems += [WrongKey(f"{upper}.{path}", reason) for path, reason in looser]
        if problems:
            raise WrongKeys(problems)
        return self


def _loosened(lower: LevelConfig, upper: LevelConfig) -> list[WrongKey]:
    """What the stricter level allows and the lower one does not."""
    minima = {
        "dor_min": (lower.dor_min, upper.dor_min),
        "unit.min_pass_rate": (lower.unit.min_pass_rate, upper.unit.min_pass_rate),
        "e2e.min_pass_rate": (lower.e2e.min_pass_rate, upper.e2e.min_pass_rate),
        "coverage.min_new_pct": (lower.coverage.min_new_pct, upper.coverage.min_new_pct),
    }
    maxima = {
        "static.max_critical": (lower.static.max_critical, upper.static.max_critical),
        "static.max_major": (lower.static.max_major, upper.static.max_major),
        "lint.max_errors": (lower.lint.max_errors, upper.lint.max_errors),
    }
    problems = [WrongKey(name, f"{b} is below {a} of the level below") for name, (a, b) in minima.items() if b < a]
    problems += [
        WrongKey(name, f"{'unlimited' if b is None else b} is above {a} of the level below")
        for name, (a, b) in maxima.items()
        if a is not None and (b is None or b > a)
    ]
    if extra := sorted(set(upper.static.gate) - set(lower.static.gate)):
        problems.append(WrongKey("static.gate", f"it allows {extra}, the level below does not"))
    if lost := sorted(set(lower.hard) - set(upper.hard)):
        problems.append(WrongKey("hard", f"it lacks {lost} of the level below"))
    return problems


def check_rigor(name: str) -> Rigor:
    """The level of this canonical name; there is no default level.

    Raises:
        InvalidInput: any other name (RG-1).
    """
    if name not in LEVELS:
        raise InvalidInput(
            f"rigor {name[:40]!r} does not exist: use one of {', '.join(LEVELS)}",
            field="rigor",
            value=name[:40],
            allowed=list(LEVELS),
        )
    return name
