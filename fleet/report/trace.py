"""Traceability: how many objects have all their required links, and which lack one (RP-20, RP-30..RP-39)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.council import BallotCast, CouncilDecided, DraftReceived, EvidenceRecorded
from fleet.events.decision import DecisionAccepted, DecisionProposed, DecisionRejected, DecisionSuperseded
from fleet.events.plan import PlanProposed
from fleet.events.report import Orphan, Traceability
from fleet.events.task import TaskAdded, TaskTransitioned, TreeMerged
from fleet.events.workspace import DeploymentRecorded, DocsProduced
from fleet.report.history import Events, StepRecord, of_type, step_records
from fleet.report.model import TraceClass
from fleet.story.guards import shown_criteria
from fleet.story.state import StoryState

MAX_ORPHANS = 200
"""Most orphans in an event, whose body is bounded (EV-13); the report itself lists all."""

Missing = Iterable[tuple[str, list[str]]]
"""Each object of a class with what it lacks; nothing when all links are there."""


@dataclass(frozen=True, slots=True)
class _Story:
    state: StoryState
    events: Events
    steps: tuple[StepRecord, ...]


def trace(state: StoryState, events: Events) -> tuple[TraceClass, ...]:
    """Linked and total per class of RP-21, with one orphan per missing link."""
    story = _Story(state=state, events=events, steps=step_records(events))
    return tuple(_class(rule, name, query(story)) for (rule, name), query in _CLASSES.items())


def traceability(classes: Iterable[TraceClass]) -> Traceability:
    """All classes together, as `ReportGenerated` holds it; at most MAX_ORPHANS orphans."""
    listed = list(classes)
    orphans = tuple(orphan for c in listed for orphan in c.orphans)
    return Traceability(
        linked=sum(c.linked for c in listed), total=sum(c.total for c in listed), orphans=orphans[:MAX_ORPHANS]
    )


def _class(rule: str, name: str, objects: Missing) -> TraceClass:
    rows = list(objects)
    orphans = [Orphan(id=id, missing=what, rule=rule) for id, missing in rows for what in missing]
    linked = sum(not missing for _, missing in rows)
    return TraceClass(rule=rule, name=name, linked=linked, total=len(rows), orphans=tuple(orphans))


def _lacks(**links: object) -> list[str]:
    return [name.replace("_", " ") for name, present in links.items() if not present]


def _criteria(s: _Story) -> Missing:
    covered = {ref for t in s.state.tasks.values() if t.state != "cancelled" for ref in t.task.acceptance_refs}
    evidence: Mapping[str, tuple[str, ...]] = s.state.docs.criteria if s.state.docs else {}
    waived = {c.ac_id for c in shown_criteria(s.state, s.state.tree) if c.waiver is not None}
    must_have_evidence = s.state.closed or s.state.docs is not None
    for criterion in s.state.content.acceptance_criteria:
        is_shown = criterion.ac_id in waived or evidence.get(criterion.ac_id)
        yield (
            criterion.ac_id,
            _lacks(
                task=criterion.ac_id in covered,
                evidence=is_shown or not must_have_evidence,
            ),
        )


def _tasks(s: _Story) -> Missing:
    plans = {p.plan_id for _, p in of_type(s.events, PlanProposed)}
    worked = {r.started.task_id for r in s.steps} | {p.task_id for _, p in of_type(s.events, TreeMerged)}
    moves = [p for _, p in of_type(s.events, TaskTransitioned)]
    for task in dict((p.task.task_id, p.task) for _, p in of_type(s.events, TaskAdded)).values():
        mine = [m for m in moves if m.task_id == task.task_id]
        done = bool(mine) and mine[-1].to == "done"
        author = next((m.principal for m in reversed(mine) if m.action == "COMMIT_CODE"), None)
        # The system passes a review that the kind of task does not need: that is nobody's review.
        reviewed = any(m.action in _REVIEWS and m.principal != author and not m.skipped_by_config for m in mine)
        yield (
            task.task_id,
            _lacks(
                plan_version=task.plan_id in plans,
                criterion_or_decision=task.acceptance_refs,
                author_of_the_work=author is not None or not done,
                run_or_artifact=task.task_id in worked or not done,
                review_by_another=reviewed or not done,
            ),
        )


_REVIEWS = frozenset({"APPROVE_DESIGN", "APPROVE_TESTS", "APPROVE_STORY"})


def _decisions(s: _Story) -> Missing:
    tasks = {p.task.task_id for _, p in of_type(s.events, TaskAdded)}
    decided = {p.decision_id for kind in (DecisionAccepted, DecisionRejected) for _, p in of_type(s.events, kind)}
    replaced = {p.decision_id: p.by_decision_id for _, p in of_type(s.events, DecisionSuperseded)}
    proposed = {p.decision_id for _, p in of_type(s.events, DecisionProposed)}
    statuses = {key: value.status for key, value in s.state.decisions.items()}
    for _, decision in of_type(s.events, DecisionProposed):
        open_ = statuses.get(decision.decision_id, "PROPOSED") == "PROPOSED"
        yield (
            decision.decision_id,
            _lacks(
                decider=open_ or decision.decision_id in decided or decision.decision_id in replaced,
                successor=replaced.get(decision.decision_id, decision.decision_id) in proposed,
                affected_task=all(t in tasks for t in decision.affects),
            ),
        )


def _councils(s: _Story) -> Missing:
    candidates = {p.council_id for _, p in of_type(s.events, DraftReceived)}
    evidence = {p.council_id for _, p in of_type(s.events, EvidenceRecorded)}
    ballots = {p.council_id for _, p in of_type(s.events, BallotCast)}
    for _, council in of_type(s.events, CouncilDecided):
        yield (
            council.council_id,
            _lacks(
                candidates=council.council_id in candidates or council.verdict is not None,
                evidence=council.council_id in evidence,
                ballots_or_early_exit=council.council_id in ballots or council.decided_in == "P3",
                token_sum=council.tokens,
            ),
        )


def _runs(s: _Story) -> Missing:
    tasks = {p.task.task_id for _, p in of_type(s.events, TaskAdded)}
    approvals = {p.approval_id for _, p in of_type(s.events, ApprovalRequested)}
    for step in s.steps:
        if not step.is_model_call:
            # A step that names neither task nor council serves the story as a whole, e.g. the measurement of its tree.
            yield (
                step.started.step_id,
                _lacks(
                    result=step.finished or step.resolved,
                    task=step.started.task_id is None or step.started.task_id in tasks,
                    council=step.started.council_id is None or step.started.council_id in s.state.councils,
                    approval=step.started.approval_id is None or step.started.approval_id in approvals,
                ),
            )


def _approvals(s: _Story) -> Missing:
    grants = {p.approval_id: p for _, p in of_type(s.events, ApprovalGranted)}
    others = {
        p.approval_id
        for kind in (ApprovalRejected, ApprovalExpired, ApprovalRevoked)
        for _, p in of_type(s.events, kind)
    }
    for _, request in of_type(s.events, ApprovalRequested):
        grant = grants.get(request.approval_id)
        pending = grant is None and request.approval_id not in others and not s.state.closed
        yield (
            request.approval_id,
            _lacks(
                decider=grant is not None or request.approval_id in others or pending,
                delegation=grant is None or not grant.delegated or grant.delegation_id,
                same_subject=grant is None or grant.subject_digest == request.subject.digest,
            ),
        )


def _files(s: _Story) -> Missing:
    worked = {r.started.task_id for r in s.steps if not r.is_model_call}
    documented = {p.tree_digest for _, p in of_type(s.events, DocsProduced)}
    last: dict[str, TreeMerged] = {}
    for _, merge in of_type(s.events, TreeMerged):
        for file in merge.files:
            if merge.restored_from is None:
                last[file.path] = merge
            elif file.change == "removed":
                last.pop(file.path, None)  # the work that made it was undone
    for path, merge in sorted(last.items()):
        # The story's own documents are merged without a task; DocsProduced names their tree (LC-48).
        is_docs = merge.task_id is None and merge.result_digest in documented
        yield (
            path,
            _lacks(
                task=merge.task_id or is_docs, run=is_docs or (merge.task_id is not None and merge.task_id in worked)
            ),
        )


def _model_calls(s: _Story) -> Missing:
    for step in s.steps:
        if step.is_model_call:
            end = step.finished
            # A call that failed has no reply to name; its error stands in its place.
            ok = end is not None and end.outcome == "succeeded"
            failed = end is not None and not ok and bool(end.error_code or end.reason)
            yield (
                step.started.step_id,
                _lacks(
                    result=end,
                    prompt=failed or (end is not None and end.provenance.prompt_digest),
                    engine=failed or (end is not None and end.provenance.engine),
                    model=failed or (end is not None and end.provenance.model),
                    tokens=failed or step.tokens,
                ),
            )


def _deployments(s: _Story) -> Missing:
    steps = {r.started.step_id: r.started for r in s.steps}
    for _, deployment in of_type(s.events, DeploymentRecorded):
        run = steps.get(deployment.step_id)
        yield (
            deployment.deployment_id,
            _lacks(run=run, approval=run and run.approval_id, known_outcome=deployment.status != "unknown"),
        )


_CLASSES: Mapping[tuple[str, str], Callable[[_Story], Missing]] = {
    ("RP-30", "acceptance criteria"): _criteria,
    ("RP-31", "tasks"): _tasks,
    ("RP-32", "decisions"): _decisions,
    ("RP-33", "council decisions"): _councils,
    ("RP-34", "runs"): _runs,
    ("RP-35", "approvals"): _approvals,
    ("RP-36", "changed files"): _files,
    ("RP-37", "model calls"): _model_calls,
    ("RP-38", "deployments"): _deployments,
}
