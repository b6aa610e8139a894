"""WorkspaceReport, schema 1: what the pipeline measured on one tree (RC-60..RC-69).

A section whose tool did not run is absent, and so is a field that nobody measured: missing evidence, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, cast

from pydantic import ConfigDict, Field, StrictBool, ValidationError, model_validator

from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import Digest, EntityId, StoryId
from fleet.kernel.types import CommitId, Frozen, Rigor, StageStatus, StaticGate

MAX_FAILURES = 50
"""How many failures a section lists (RC-62)."""

Count = Annotated[int, Field(strict=True, ge=0)]
# The bounds on digits keep an exact fraction of the value small.
Percent = Annotated[Decimal, Field(ge=0, le=100, max_digits=9, decimal_places=6)]
StageName = Literal["checkout", "patch", "build", "unit", "static", "e2e", "report", "publish"]


class StageRun(Frozen):
    """How one stage of the pipeline ended (RC-78). Times are UTC milliseconds."""

    name: StageName
    status: StageStatus
    exit_code: Annotated[int, Field(strict=True)] | None = None
    started_at: Count | None = None
    finished_at: Count | None = None
    log: Digest | None = None


class Timings(Frozen):
    """Wall time per stage, in milliseconds; None where the stage did not run."""

    checkout_ms: Count | None = None
    build_ms: Count | None = None
    unit_ms: Count | None = None
    static_ms: Count | None = None
    e2e_ms: Count | None = None
    total_ms: Count | None = None


class BuildSection(Frozen):
    """RC-61."""

    ok: StrictBool | None = None
    exit_code: Annotated[int, Field(strict=True)] | None = None
    log: Digest | None = None


class TestFailure(Frozen):
    """One failed or errored test."""

    __test__ = False

    id: Annotated[str, Field(min_length=1)]
    message: str = ""
    file: str = ""
    line: Count | None = None


class TestSection(Frozen):
    """RC-62, RC-66: the counts leave out the tests of `known_failing`, which fail on the base tree too (PL-52)."""

    __test__ = False

    ok: StrictBool | None = None
    passed: Count | None = None
    failed: Count | None = None
    errored: Count | None = None
    skipped: Count | None = None
    known_failing: tuple[str, ...] = ()
    failures: Annotated[tuple[TestFailure, ...], Field(max_length=MAX_FAILURES)] = ()
    junit: Digest | None = None
    preview: Digest | None = None
    """JUnit file of the pages of the preview, which the counts include (RC-75)."""
    artifacts: tuple[Digest, ...] = ()
    """Pictures of those pages."""


class CoverageSection(Frozen):
    """RC-63: coverage of new or changed executable lines. `new_lines` 0 means measured, and none changed (RG-14)."""

    new_pct: Percent | None = None
    new_lines: Count | None = None
    new_covered: Count | None = None
    total_pct: Percent | None = None
    tool: str = ""
    report: Digest | None = None

    @model_validator(mode="after")
    def _covered_within_lines(self) -> Self:
        if self.new_lines is not None and self.new_covered is not None and self.new_covered > self.new_lines:
            raise ValueError(f"new_covered {self.new_covered} is more than new_lines {self.new_lines}")
        return self


class ToolRun(Frozen):
    """One analyser that ran, with the digest of its own findings."""

    name: str
    version: str = ""
    findings: Digest | None = None


class SonarResult(Frozen):
    """What a configured Sonar server said."""

    project_key: str
    quality_gate: StaticGate


class StaticSection(Frozen):
    """RC-64: new findings against the base tree; those of `security` are counted in by severity (RG-15)."""

    ok: StrictBool | None = None
    gate: StaticGate | None = None
    new_critical: Count | None = None
    new_major: Count | None = None
    new_minor: Count | None = None
    tools: tuple[ToolRun, ...] = ()
    sonar: SonarResult | None = None


class LintSection(Frozen):
    """RC-65: new against the base tree."""

    ok: StrictBool | None = None
    errors: Count | None = None
    warnings: Count | None = None
    tool: str = ""


SECRETS = "secrets"
"""The tool that looks for secrets in what a change adds."""


class SecuritySection(Frozen):
    """RC-67."""

    secrets_found: Count | None = None
    critical: Count | None = None
    high: Count | None = None
    tools: tuple[ToolRun, ...] = ()


class PatchSection(Frozen):
    """RC-68: the diff that was applied."""

    applied: StrictBool
    digest: Digest | None = None
    files: tuple[str, ...] = ()
    added: Count = 0
    removed: Count = 0


class PullRequest(Frozen):
    """RC-68: the change request at the forge."""

    url: str
    state: str


class WorkspaceReport(Frozen):
    """Everything that was measured on one tree; the only input of a verdict (RG-10)."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    run_id: EntityId
    story_id: StoryId
    task_id: EntityId | None = None
    commit: CommitId | None = None
    base_commit: CommitId | None = None
    tree_digest: Digest
    rigor: Rigor
    complete: StrictBool
    """False: the pipeline stopped early and sections are missing (RC-76)."""
    stages: tuple[StageRun, ...] = ()
    timings: Timings = Timings()
    build: BuildSection | None = None
    unit: TestSection | None = None
    coverage: CoverageSection | None = None
    static: StaticSection | None = None
    lint: LintSection | None = None
    e2e: TestSection | None = None
    security: SecuritySection | None = None
    patch: PatchSection | None = None
    pr: PullRequest | None = None

    @property
    def digest(self) -> Digest:
        """Digest of the report's canonical JSON."""
        return digest_of_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The report's JSON form; what did not run is absent, not null (RC-69)."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def stage(self, name: StageName) -> StageRun | None:
        """The last record of one stage, None when the stage was never reached."""
        return next((s for s in reversed(self.stages) if s.name == name), None)


def parse_report(document: Mapping[str, Any]) -> WorkspaceReport:
    """The report of a JSON object, edge aliases translated (RC-69): `job_id`, `case_id`, `unit.coverage`.

    `unit.coverage` becomes coverage.total_pct only: it says nothing about new code.

    Raises:
        InvalidInput: the document is no report of schema 1; `problems` names every finding with its JSON pointer.
    """
    try:
        return WorkspaceReport.model_validate(_canonical(document))
    except ValidationError as error:
        problems = [
            {"field": "/" + "/".join(str(p) for p in e["loc"]), "message": e["msg"]}
            for e in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = problems[0]
        raise InvalidInput(
            f"this is no workspace report: {first['field']}: {first['message']} ({len(problems)} problems in all)",
            problems=problems,
        ) from error


def _canonical(document: Mapping[str, Any]) -> dict[str, Any]:
    canonical = dict(document)
    for alias, name in (("job_id", "run_id"), ("case_id", "story_id"), ("subtask_id", "task_id")):
        if alias in canonical and name not in canonical:
            canonical[name] = canonical.pop(alias)
    unit = canonical.get("unit")
    if isinstance(unit, Mapping) and "coverage" in unit:
        figures = cast("Mapping[str, Any]", unit)
        canonical["unit"] = {k: v for k, v in figures.items() if k != "coverage"}
        section: Any = canonical.get("coverage") or {}
        canonical["coverage"] = (
            {"total_pct": figures["coverage"], **section} if isinstance(section, Mapping) else section
        )
    return canonical


def static_gate(*, ran: bool, new_critical: int, new_major: int, quality_gate: StaticGate | None = None) -> StaticGate:
    """The static gate: Sonar's when configured, else ERROR on criticals, WARN on majors, OK; NONE when nothing ran."""
    if quality_gate is not None:
        return quality_gate
    if not ran:
        return "NONE"
    if new_critical:
        return "ERROR"
    return "WARN" if new_major else "OK"
