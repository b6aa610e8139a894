"""Workspace and delivery events (EV-170..EV-177)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fleet.events.payload import Payload, Value, is_absent
from fleet.events.values import Count, DecimalText, EventGroup, Millis, Origin
from fleet.kernel.ids import Digest, EntityId, Principal, StepId
from fleet.kernel.types import DeploymentStatus, Dimension, EvidenceState, Rigor, StaticGate, Verdict

Measured = bool | int | str | None
"""A measured value or a limit; ratios as decimal strings. None: nothing was measured, or there is no limit."""


class TestSummary(Value):
    """Counts of one test stage."""

    __test__ = False

    passed: Count
    failed: Count
    errored: Count
    skipped: Count


class CoverageSummary(Value):
    """Coverage of new or changed lines, percent as a decimal string."""

    new_pct: DecimalText | None = None
    new_lines: Count
    new_covered: Count
    total_pct: DecimalText | None = None


class StaticSummary(Value):
    """Findings of static analysis that are new against the base tree."""

    ok: bool
    gate: StaticGate
    new_critical: Count
    new_major: Count
    new_minor: Count = 0


class LintSummary(Value):
    """Lint findings that are new against the base tree."""

    ok: bool
    errors: Count
    warnings: Count


# Source: RC-69.
class WorkspaceSummary(Value):
    """Sections of the report in short; None is missing evidence, never zero."""

    build_ok: bool | None = None
    unit: TestSummary | None = None
    coverage: CoverageSummary | None = None
    static: StaticSummary | None = None
    lint: LintSummary | None = None
    e2e: TestSummary | None = None
    secrets_found: Count | None = None


class GateScore(Value):
    """One hard gate: its value against its limit."""

    name: str
    ok: bool
    value: Measured = None
    limit: Measured = None


class DimensionScore(Value):
    """One weighted dimension: `weight` as configured, `score` 0..100 as a decimal string."""

    name: Dimension
    weight: Count
    score: DecimalText
    evidence: EvidenceState
    value: Measured = None
    limit: Measured = None


# Source: RG-47.
class CriterionTest(Value):
    """A test that names a criterion and passed, and that the author of the change did not write."""

    test: Annotated[str, Field(min_length=1)]
    source: Literal["example", "given", "independent"]
    """`example`: of the story's text; `given`: a test of the repository that the story names, unchanged;
    `independent`: written by the tester, and kept by the validity filter."""
    council_id: Annotated[EntityId | None, Field(exclude_if=is_absent)] = None
    """Of an independent test."""


# Source: RG-46.
class FlakyResults(Value):
    """Tests whose results differ between reports of one tree, by suite."""

    unit: tuple[str, ...] = ()
    e2e: tuple[str, ...] = ()


class DocFile(Value):
    """One document of the result."""

    path: Annotated[str, Field(min_length=1)]
    artifact_digest: Digest


class HealthCheck(Value):
    """One check of a deployment in one window."""

    name: str
    ok: bool
    value: str | None = None
    threshold: str | None = None


class _WorkspaceEvent(Payload):
    group: ClassVar[EventGroup] = "workspace"
    origin: ClassVar[Origin] = "steps"


# Source: RC-60.
class WorkspaceReported(_WorkspaceEvent):
    """The pipeline ran on this tree; the whole report is the blob `report_digest`."""

    type = "WorkspaceReported"
    run_id: EntityId
    task_id: EntityId | None = None
    tree_digest: Digest
    report_digest: Digest
    complete: bool
    summary: WorkspaceSummary
    criteria: Annotated[dict[EntityId, tuple[CriterionTest, ...]] | None, Field(exclude_if=is_absent)] = None
    """Criterion -> what shows it on this tree. None: nothing was bound, as in stories of before."""
    flaky: Annotated[FlakyResults | None, Field(exclude_if=is_absent)] = None
    """Where the tree was reported on before: the tests on whose results its reports disagree."""


# Source: RG-45.
class WorkspaceScored(_WorkspaceEvent):
    """The verdict on this tree at this rigor."""

    type = "WorkspaceScored"
    origin = "scorer"
    run_id: EntityId
    tree_digest: Digest
    rigor: Rigor
    score: DecimalText
    verdict: Verdict
    limited_by: Rigor
    gates: tuple[GateScore, ...]
    dimensions: tuple[DimensionScore, ...]
    reasons: tuple[str, ...] = ()
    waivers: tuple[Dimension, ...] = ()
    inconsistent: bool = False
    approvals: Annotated[tuple[EntityId, ...] | None, Field(exclude_if=is_absent)] = None
    """The waivers that were looked at, by their approvals; absent where there was none."""


# Source: RG-43.
class DimensionWaived(_WorkspaceEvent):
    """A person took one dimension out of the score until `expires_at`."""

    type = "DimensionWaived"
    origin = "approvals"
    dimension: Dimension
    reason: str
    principal: Principal
    approval_id: EntityId
    expires_at: Millis


# Source: LC-48.
class DocsProduced(_WorkspaceEvent):
    """The documents belong to this tree; `criteria` names the evidence of each acceptance criterion."""

    type = "DocsProduced"
    origin = "tasks"
    docs: tuple[DocFile, ...]
    tree_digest: Digest
    criteria: dict[EntityId, tuple[str, ...]]


# Source: LC-62.
class DeploymentRecorded(_WorkspaceEvent):
    """How a deployment of this tree ended; `unknown` does not count as succeeded."""

    type = "DeploymentRecorded"
    deployment_id: EntityId
    environment: str
    tree_digest: Digest
    image_digest: Digest | None = None
    revision: str | None = None
    status: DeploymentStatus
    step_id: StepId
    rollback_ref: str | None = None
    """The deployment that a rollback goes back to, or of one that was rolled back, the one that runs again."""
    monitor_s: Count | None = None
    """Seconds without a breach after which it counts as healthy (LC-63)."""
    detail: str | None = None
    """What the target said, for people."""


# Source: LC-49.
class HealthObserved(_WorkspaceEvent):
    """Health of an environment in one window, from and to in UTC milliseconds."""

    type = "HealthObserved"
    environment: str
    deployment_id: EntityId | None = None
    ok: bool
    checks: tuple[HealthCheck, ...]
    from_: Annotated[Millis, Field(alias="from")]
    to: Millis


class IncidentOpened(_WorkspaceEvent):
    """Something is wrong in an environment."""

    type = "IncidentOpened"
    origin = "tasks"
    incident_id: EntityId
    severity: Literal["low", "medium", "high", "critical"]
    summary: str
    source: str
    deployment_id: EntityId | None = None
    task_id: EntityId | None = None


class IncidentClosed(_WorkspaceEvent):
    """The incident is over."""

    type = "IncidentClosed"
    origin = "tasks"
    incident_id: EntityId
    resolution: str | None = None
