"""Graph effects of step, workspace, delivery and report events (GR-23..GR-25, GR-29, GR-30, GR-62..GR-67)."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.events.report import ReportGenerated
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.events.workspace import (
    DeploymentRecorded,
    DocsProduced,
    IncidentClosed,
    IncidentOpened,
    WorkspaceReported,
    WorkspaceScored,
)
from fleet.graph.changes import GraphChange, NodeChange
from fleet.graph.effects.at import At, Ref, link, texts
from fleet.graph.effects.story import milestone
from fleet.graph.schema import Label, Rel


def workspace_report_id(run_id: str) -> str:
    """Id of the report of a run, which has no id of its own."""
    return f"{run_id}/report"


def step_started(at: At, e: StepStarted) -> Iterator[GraphChange]:
    """The step is a run under way: by whom, for which task, under which rule and approval."""
    run = _step(at, e.step_id)
    yield at.describe(
        *run,
        tool=e.tool,
        op=e.op,
        kind=e.kind,
        effect=e.effect,
        as_role=e.as_role,
        rule_id=e.policy.rule_id,
        started_at=at.ts_ms,
    )
    yield from at.by(Rel.EXECUTED_BY, run, e.principal)
    if e.task_id is not None:
        yield link(Rel.PART_OF, run, (Label.TASK, e.task_id))
    if e.approval_id is not None:
        yield link(Rel.ALLOWED_BY, run, (Label.APPROVAL, e.approval_id))


def step_finished(at: At, e: StepFinished) -> Iterator[GraphChange]:
    """The run has its outcome and its artifacts."""
    run = _step(at, e.step_id)
    yield at.update(
        *run,
        outcome=e.outcome,
        exit_code=e.exit_code,
        finished_at=at.ts_ms,
        tree_in=e.provenance.tree_in_digest,
        tree_out=e.provenance.tree_out_digest,
    )
    for artifact in e.artifacts:
        yield _artifact(artifact.artifact_digest, artifact.size_bytes)
        yield link(Rel.PRODUCED, run, (Label.ARTIFACT, artifact.artifact_digest), {"path": artifact.path})


def step_outcome_unknown(at: At, e: StepOutcomeUnknown) -> Iterator[GraphChange]:
    """The run may or may not have happened."""
    yield at.update(*_step(at, e.step_id), outcome="unknown")


def step_resolved(at: At, e: StepResolved) -> Iterator[GraphChange]:
    """Somebody said whether the run happened."""
    yield at.update(*_step(at, e.step_id), outcome=e.outcome)


def workspace_reported(at: At, e: WorkspaceReported) -> Iterator[GraphChange]:
    """The run of the pipeline left a report on this tree."""
    run: Ref = (Label.RUN, e.run_id)
    report: Ref = (Label.REPORT, workspace_report_id(e.run_id))
    yield at.describe(*run, tool="tests", op="pipeline", kind="run", tree_in=e.tree_digest, finished_at=at.ts_ms)
    facts = {"digest": e.report_digest, "tree_digest": e.tree_digest, "created_at": at.ts_ms}
    yield at.describe(*report, kind="workspace", **facts)
    yield link(Rel.REPORTED, run, report)
    if e.task_id is not None:
        yield link(Rel.PART_OF, run, (Label.TASK, e.task_id))


def workspace_scored(at: At, e: WorkspaceScored) -> Iterator[GraphChange]:
    """The report has a score and a verdict."""
    yield at.update(Label.REPORT, workspace_report_id(e.run_id), score=e.score, verdict=e.verdict, rigor=e.rigor)


def docs_produced(at: At, e: DocsProduced) -> Iterator[GraphChange]:
    """The documents name the evidence of each criterion."""
    report: Ref = (Label.REPORT, at.scoped(f"docs/v{at.version}"))
    yield at.describe(*report, kind="docs", tree_digest=e.tree_digest, created_at=at.ts_ms)
    for ac_id, evidence in e.criteria.items():
        criterion: Ref = (Label.CRITERION, at.scoped(ac_id))
        yield at.update(*criterion, status="evidenced" if evidence else "open")
        if evidence:
            yield link(Rel.EVIDENCE_FOR, report, criterion, tests=evidence)


def report_generated(at: At, e: ReportGenerated) -> Iterator[GraphChange]:
    """The technical report is in the blob store."""
    yield at.describe(Label.REPORT, e.report_id, kind="technical", digest=e.report_digest, created_at=at.ts_ms)


def deployment_recorded(at: At, e: DeploymentRecorded) -> Iterator[GraphChange]:
    """How the deployment of the story ended."""
    deployment: Ref = (Label.DEPLOYMENT, e.deployment_id)
    yield at.describe(
        *deployment,
        environment=e.environment,
        status=e.status,
        revision=e.revision,
        tree_digest=e.tree_digest,
        at=at.ts_ms,
    )
    yield link(Rel.DEPLOYED_AS, at.ref, deployment)
    yield link(Rel.BY, deployment, _step(at, e.step_id))
    yield from milestone(at, name=f"deployment {e.status}", ref=e.deployment_id)


def incident_opened(at: At, e: IncidentOpened) -> Iterator[GraphChange]:
    """The incident is open."""
    incident: Ref = (Label.INCIDENT, e.incident_id)
    facts = {"severity": e.severity, "status": "open", "opened_at": at.ts_ms}
    yield at.describe(*incident, **facts, **texts(summary=e.summary))
    if e.deployment_id is not None:
        yield link(Rel.IN, incident, (Label.DEPLOYMENT, e.deployment_id))
    if e.task_id is not None:
        yield link(Rel.HANDLED_BY, incident, (Label.TASK, e.task_id))


def incident_closed(at: At, e: IncidentClosed) -> Iterator[GraphChange]:
    """The incident is over."""
    yield at.update(Label.INCIDENT, e.incident_id, status="closed", closed_at=at.ts_ms)


def _step(at: At, step_id: str) -> Ref:
    return Label.RUN, at.scoped(step_id)


def _artifact(digest: str, size_bytes: int) -> NodeChange:
    """Only what follows from the content: several streams may name the same artifact (GR-5)."""
    return NodeChange(Label.ARTIFACT, str(digest), {"stub": False, "digest": str(digest), "size_bytes": size_bytes})
