"""Fold events into the state of a story. Pure: the same events give the same state on every machine (PL-48)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.codec import decode
from fleet.events.context import SummaryRecorded
from fleet.events.decision import DecisionAccepted, DecisionProposed, DecisionRejected, DecisionSuperseded
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.platform import DelegationRevoked
from fleet.events.registry import EVENT_TYPES
from fleet.events.report import OwnershipTaken, ReportGenerated
from fleet.events.step import StepFinished, StepOutcomeUnknown, StepResolved, StepStarted
from fleet.events.story import (
    AcceptanceCriterion,
    ConfigMigrated,
    CriterionWaived,
    QuestionAnswered,
    QuestionRaised,
    RigorChanged,
    StoryArchived,
    StoryCancelled,
    StoryClosed,
    StoryCreated,
    StoryEdited,
    StoryParked,
    StoryPaused,
    StoryResumed,
    StoryScored,
    StoryStarted,
    StoryTransitioned,
    StoryUnparked,
)
from fleet.kernel.errors import LogCorrupted
from fleet.kernel.ids import StoryId
from fleet.story.budgets import StoryBudgets
from fleet.story.evolve import budgets as evolve_budgets
from fleet.story.evolve import council as evolve_council
from fleet.story.evolve import deployments as evolve_deployments
from fleet.story.evolve import tasks as evolve_tasks
from fleet.story.evolve import tree as evolve_tree
from fleet.story.milestones import with_milestone
from fleet.story.ownership import counts_against
from fleet.story.state import Approval, Content, Decision, Grant, ParkReason, Question, Step, StoryState, Summary

Handler = Callable[[StoryState, Any, StoredEvent], StoryState]


def fold(events: Iterable[StoredEvent], state: StoryState | None = None) -> StoryState | None:
    """The state after these events; None when there are none."""
    for event in events:
        state = evolve(state, event)
    return state


def evolve(state: StoryState | None, event: StoredEvent) -> StoryState:
    """The state after one more event, which must be the next version.

    Raises:
        UnsupportedSchema: the event is newer than this reader.
        LogCorrupted: a gap in the versions, or a stream that does not begin with StoryCreated.
    """
    payload = decode(event)
    if event.version != (state.version if state else 0) + 1:
        raise LogCorrupted(
            f"{event.event_id} does not follow version {state.version if state else 0}", event=event.event_id
        )
    if state is None:
        if not isinstance(payload, StoryCreated):
            raise LogCorrupted(
                f"{event.event_id} is {event.type}, but a story begins with StoryCreated", event=event.event_id
            )
        return _created(payload, event)
    handler = _HANDLERS.get(type(payload))
    after = handler(state, payload, event) if handler else state
    # Whatever is recorded is progress: the same crash would not have let it be recorded again and again (LC-94).
    takeovers = after.takeovers_without_progress if isinstance(payload, OwnershipTaken) else 0
    budgets = evolve_budgets.account(state, payload, event)
    return after.with_(
        version=event.version,
        updated_ms=event.ts_ms,
        takeovers_without_progress=takeovers,
        budgets=budgets,
        milestones=with_milestone(state.milestones, event.type, event.version),
    )


def budgets_of(events: Iterable[StoredEvent], *, counts: Callable[[StoredEvent], bool]) -> StoryBudgets:
    """The budgets of a story as if nothing but these of its events had been recorded: limits, and what was used.

    Args:
        events: all of the story, from its first one on; what a step is for is known from them.
        counts: whether the event is one of those that are counted.
    """
    state, budgets = None, StoryBudgets()
    for event in events:
        if state is not None and counts(event):
            budgets = evolve_budgets.account(state.with_(budgets=budgets), decode(event), event)
        state = evolve(state, event)
    return budgets


def _created(p: StoryCreated, event: StoredEvent) -> StoryState:
    return StoryState(
        story_id=StoryId(event.stream.entity),
        version=event.version,
        created_ms=event.ts_ms,
        updated_ms=event.ts_ms,
        milestones=with_milestone((), event.type, event.version),
        author=event.actor,
        project_id=p.project_id,
        epic_id=p.epic_id,
        content=Content(
            title=p.title,
            description=p.description,
            acceptance_criteria=p.acceptance_criteria,
            constraints=p.constraints,
            tags=p.tags,
            digest=p.content_digest,
        ),
        rigor=p.rigor,
        lifecycle=p.lifecycle,
        language=p.language,
        priority=p.priority,
        state=p.first_state,
        config=p.config,
        environment=p.environment,
    )


def _edited(s: StoryState, p: StoryEdited, _: StoredEvent) -> StoryState:
    allowed = {"title", "description", "constraints", "tags"}
    changes: dict[str, Any] = {k: v for k, v in p.changes.items() if k in allowed}
    if "tags" in changes:
        changes["tags"] = tuple(changes["tags"])
    criteria = p.changes.get("acceptance_criteria")
    if isinstance(criteria, list):
        changes["acceptance_criteria"] = tuple(AcceptanceCriterion.model_validate(c) for c in criteria)
    # Tasks that were asked for are those of the text that was there.
    return s.with_(content=replace(s.content, **changes, digest=p.content_digest), derivation=None)


def _scored(s: StoryState, p: StoryScored, _: StoredEvent) -> StoryState:
    return s.with_(score=p)


def _started(s: StoryState, p: StoryStarted, event: StoredEvent) -> StoryState:
    return s.with_(start=p, started_by=event.actor)


def _undelegated(s: StoryState, p: DelegationRevoked, _: StoredEvent) -> StoryState:
    """The story is worked on as if it had been started without this delegation."""
    if s.start is None:
        return s
    left = tuple(d for d in s.start.delegations if d.delegation_id != p.delegation_id)
    return s.with_(start=s.start.model_copy(update={"delegations": left}))


def _transitioned(s: StoryState, p: StoryTransitioned, _: StoredEvent) -> StoryState:
    if not p.loopback:
        return s.with_(state=p.to)
    # A loop-back ends the effect of every decision so far: gates after the target are asked for anew (LC-90). That
    # holds for a refusal as well, or the same plan or tree could never be put forward again.
    approvals = {k: _voided(a) for k, a in s.approvals.items()}
    count = {**s.loopbacks, p.event: s.loopbacks.get(p.event, 0) + 1}
    return s.with_(state=p.to, approvals=approvals, loopbacks=count)


def _voided(approval: Approval) -> Approval:
    return replace(approval, voided=True)


def _parked(s: StoryState, p: StoryParked, event: StoredEvent) -> StoryState:
    return s.with_(disposition="parked", park=ParkReason(cause=p.cause, detail=p.detail, version=event.version))


def _unparked(s: StoryState, _p: StoryUnparked, _: StoredEvent) -> StoryState:
    return s.with_(disposition="active", park=None)


def _waived(s: StoryState, p: CriterionWaived, _: StoredEvent) -> StoryState:
    return s.with_(waivers={**s.waivers, p.ac_id: p})


def _paused(s: StoryState, p: StoryPaused, _: StoredEvent) -> StoryState:
    return s.with_(is_paused=s.is_paused or p.scope == "story")


def _resumed(s: StoryState, p: StoryResumed, _: StoredEvent) -> StoryState:
    return s.with_(is_paused=s.is_paused and p.scope != "story")


def _cancelled(s: StoryState, _p: StoryCancelled, _: StoredEvent) -> StoryState:
    return s.with_(disposition="cancelled")


def _archived(s: StoryState, _p: StoryArchived, _: StoredEvent) -> StoryState:
    return s.with_(disposition="archived")


def _closed(s: StoryState, _p: StoryClosed, _: StoredEvent) -> StoryState:
    return s.with_(closed=True)


def _rigor(s: StoryState, p: RigorChanged, _: StoredEvent) -> StoryState:
    return s.with_(rigor=p.to)


def _approval_requested(s: StoryState, p: ApprovalRequested, event: StoredEvent) -> StoryState:
    return s.with_(approvals={**s.approvals, p.approval_id: Approval(request=p, requested_version=event.version)})


def _approval_granted(s: StoryState, p: ApprovalGranted, event: StoredEvent) -> StoryState:
    grant = Grant(
        principal=p.principal,
        as_role=p.as_role,
        subject_digest=p.subject_digest,
        expires_at_ms=p.grant_expires_at,
        delegated=p.delegated,
        notes=p.notes,
        version=event.version,
    )
    return _approval(s, p.approval_id, status="granted", grant=grant)


def _approval(s: StoryState, approval_id: str, **changes: Any) -> StoryState:
    known = s.approvals.get(approval_id)
    if known is None:
        return s
    return s.with_(approvals={**s.approvals, approval_id: replace(known, **changes)})


def _approval_rejected(s: StoryState, p: ApprovalRejected, _: StoredEvent) -> StoryState:
    return _approval(s, p.approval_id, status="rejected", reason=p.reason)


def _approval_expired(s: StoryState, p: ApprovalExpired, _: StoredEvent) -> StoryState:
    return _approval(s, p.approval_id, status="expired")


def _approval_revoked(s: StoryState, p: ApprovalRevoked, _: StoredEvent) -> StoryState:
    return _approval(s, p.approval_id, status="revoked", reason=p.reason)


def _decision_proposed(s: StoryState, p: DecisionProposed, event: StoredEvent) -> StoryState:
    return s.with_(
        decisions={**s.decisions, p.decision_id: Decision(proposed=p, version=event.version, ts_ms=event.ts_ms)}
    )


def _decision(s: StoryState, decision_id: str, **changes: Any) -> StoryState:
    known = s.decisions.get(decision_id)
    return s if known is None else s.with_(decisions={**s.decisions, decision_id: replace(known, **changes)})


def _decision_accepted(s: StoryState, p: DecisionAccepted, _: StoredEvent) -> StoryState:
    return _decision(s, p.decision_id, status="ACCEPTED", decided_by=p.by, as_role=p.as_role)


def _decision_rejected(s: StoryState, p: DecisionRejected, _: StoredEvent) -> StoryState:
    return _decision(s, p.decision_id, status="REJECTED", decided_by=p.by, as_role=p.as_role)


def _decision_superseded(s: StoryState, p: DecisionSuperseded, _: StoredEvent) -> StoryState:
    return _decision(s, p.decision_id, status="SUPERSEDED")


def _step_started(s: StoryState, p: StepStarted, event: StoredEvent) -> StoryState:
    before = s.steps.get(p.step_id)
    attempt = before.attempt + 1 if before else 1
    step = Step(started=p, started_ms=event.ts_ms, epoch=event.epoch, attempt=attempt)
    return s.with_(steps={**s.steps, p.step_id: step})


def _step_finished(s: StoryState, p: StepFinished, event: StoredEvent) -> StoryState:
    step = s.steps.get(p.step_id)
    if step is None or step.finished is not None:
        return s
    return s.with_(
        steps={**s.steps, p.step_id: replace(step, finished=p, finished_version=event.version)},
        tokens=s.tokens + p.cost.tokens_in + p.cost.tokens_out,
        calls=s.calls + (step.started.kind == "model"),
    )


def _step_unknown(s: StoryState, p: StepOutcomeUnknown, _: StoredEvent) -> StoryState:
    step = s.steps.get(p.step_id)
    return s if step is None else s.with_(steps={**s.steps, p.step_id: replace(step, unknown=p)})


def _step_resolved(s: StoryState, p: StepResolved, _: StoredEvent) -> StoryState:
    step = s.steps.get(p.step_id)
    return s if step is None else s.with_(steps={**s.steps, p.step_id: replace(step, resolution=p.outcome)})


def _owned(s: StoryState, p: OwnershipTaken, event: StoredEvent) -> StoryState:
    count = s.takeovers_without_progress + (p.cause != "new" and counts_against(s, p.owner))
    return s.with_(owner=p.owner, epoch=p.epoch, owned_version=event.version, takeovers_without_progress=count)


def _report(s: StoryState, p: ReportGenerated, event: StoredEvent) -> StoryState:
    return s.with_(report_version=event.version, report_digest=p.report_digest)


def _question(s: StoryState, p: QuestionRaised, _: StoredEvent) -> StoryState:
    question = Question(question_id=p.question_id, kind=p.kind, severity=p.severity, text=p.text)
    return s.with_(questions={**s.questions, p.question_id: question})


def _answered(s: StoryState, p: QuestionAnswered, _: StoredEvent) -> StoryState:
    known = s.questions.get(p.question_id)
    if known is None:
        return s
    return s.with_(questions={**s.questions, p.question_id: replace(known, answer=p.answer)})


def _config(s: StoryState, p: ConfigMigrated, _: StoredEvent) -> StoryState:
    return s.with_(config={**s.config, p.file: p.to_digest})


def _summary(s: StoryState, p: SummaryRecorded, event: StoredEvent) -> StoryState:
    summary = Summary(blob=p.summary_digest, covers_to=p.covers_to, version=event.version)
    return s.with_(summaries={**s.summaries, p.as_role or "": summary})


_HANDLERS: Mapping[type[Payload], Handler] = {
    StoryEdited: _edited,
    StoryScored: _scored,
    StoryStarted: _started,
    DelegationRevoked: _undelegated,
    StoryTransitioned: _transitioned,
    StoryParked: _parked,
    StoryUnparked: _unparked,
    StoryPaused: _paused,
    StoryResumed: _resumed,
    CriterionWaived: _waived,
    StoryCancelled: _cancelled,
    StoryArchived: _archived,
    StoryClosed: _closed,
    RigorChanged: _rigor,
    ConfigMigrated: _config,
    ApprovalRequested: _approval_requested,
    ApprovalGranted: _approval_granted,
    ApprovalRejected: _approval_rejected,
    ApprovalExpired: _approval_expired,
    ApprovalRevoked: _approval_revoked,
    DecisionProposed: _decision_proposed,
    DecisionAccepted: _decision_accepted,
    DecisionRejected: _decision_rejected,
    DecisionSuperseded: _decision_superseded,
    StepStarted: _step_started,
    StepFinished: _step_finished,
    StepOutcomeUnknown: _step_unknown,
    StepResolved: _step_resolved,
    OwnershipTaken: _owned,
    ReportGenerated: _report,
    QuestionRaised: _question,
    QuestionAnswered: _answered,
    SummaryRecorded: _summary,
    **evolve_tree.HANDLERS,
    **evolve_deployments.HANDLERS,
    **evolve_tasks.HANDLERS,
    **evolve_council.HANDLERS,
    **evolve_budgets.HANDLERS,
}

NO_STATE: frozenset[str] = frozenset(EVENT_TYPES) - {cls.type for cls in _HANDLERS} - {"StoryCreated"}
"""Event types that leave the story's state as it is: facts for the graph and the report only (EV-31)."""
