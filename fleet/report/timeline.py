"""Events in words (RP-24)."""

from __future__ import annotations

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested
from fleet.events.budget import BudgetExhausted
from fleet.events.context import ContextPackBuilt, SummaryRecorded
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    EstimateCast,
    EvidenceRecorded,
)
from fleet.events.decision import DecisionAccepted, DecisionProposed, DecisionRejected, DecisionSuperseded
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed
from fleet.events.report import OwnershipTaken, ReportGenerated
from fleet.events.step import StepFinished, StepStarted
from fleet.events.story import (
    ConfigMigrated,
    QuestionAnswered,
    QuestionRaised,
    StoryCancelled,
    StoryClosed,
    StoryCreated,
    StoryParked,
    StoryScored,
    StoryStarted,
    StoryTransitioned,
    StoryUnparked,
)
from fleet.events.task import RestoreRequested, SlaBreached, TaskAdded, TaskTransitioned, TreeMerged
from fleet.events.workspace import DocsProduced, WorkspaceReported, WorkspaceScored
from fleet.report.history import Events
from fleet.report.model import TimelineRow

_QUIET = (BallotCast, ContextPackBuilt, EvidenceRecorded, StepFinished, StepStarted, TaskAdded, WorkspaceReported)
"""Listed in other sections of the report, or too many to be read."""


def timeline(events: Events, *, max_events: int) -> tuple[tuple[TimelineRow, ...], int]:
    """The newest `max_events` events worth reading, in chronological order, and how many older ones were left out.

    What people did stands first in line: while a system event is left, it makes room before a person's does.
    """
    rows = [
        TimelineRow(
            version=event.version,
            ts_ms=event.ts_ms,
            event=event.type,
            actor=event.actor,
            human=event.actor.is_human,
            text=describe(payload),
        )
        for event, payload in events
        if not isinstance(payload, _QUIET)
    ]
    by_worth = sorted(rows, key=lambda row: (row.human, row.version), reverse=True)
    kept = {row.version for row in by_worth[:max_events]}
    return tuple(row for row in rows if row.version in kept), len(rows) - len(kept)


def describe(payload: Payload) -> str:
    """One event in one short sentence without its ids; the type's name in words where there is no better one."""
    sentences = (words(payload) for words in (_of_story, _of_work, _of_council, _of_people, _of_owner))
    return next((text for text in sentences if text is not None), _words(payload.type))


def _words(type: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in type).strip()


def _of_story(payload: Payload) -> str | None:
    match payload:
        case StoryCreated():
            return f"Story written: {payload.title}"
        case StoryScored():
            return f"Readiness {payload.score} of 100, {payload.threshold} needed"
        case StoryStarted():
            return f"Work asked for, gates delegated: {len(payload.delegations)}"
        case StoryTransitioned():
            back = " (back)" if payload.loopback else ""
            why = f": {payload.reason}" if payload.reason else ""
            return f"{payload.event}: {payload.from_} to {payload.to}{back}{why}"
        case StoryParked():
            return f"Parked ({payload.cause}): {payload.detail}"
        case StoryUnparked():
            return f"Goes on: {payload.note}"
        case StoryCancelled():
            return f"Cancelled: {payload.reason}"
        case StoryClosed():
            return f"Closed in state {payload.final_state}"
        case _:
            return None


def _of_work(payload: Payload) -> str | None:
    match payload:
        case PlanProposed():
            return f"Plan {payload.version} proposed with {len(payload.tasks)} tasks"
        case PlanAdopted():
            return f"Plan {payload.version} adopted"
        case TaskTransitioned():
            why = f": {payload.feedback}" if payload.feedback else ""
            return f"{payload.action}: {payload.from_} to {payload.to}{why}"
        case RestoreRequested():
            return f"Restoration asked for: {payload.reason}"
        case TreeMerged(restored_from=str()):
            return f"Checkpoint restored, files changed: {len(payload.files)}, commit {payload.commit[:12]}"
        case TreeMerged():
            return (
                "Base pinned"
                if not payload.files
                else f"Files merged: {len(payload.files)}, commit {payload.commit[:12]}"
            )
        case WorkspaceScored():
            return f"Score {payload.score}, verdict {payload.verdict}"
        case DocsProduced():
            return f"Documents written: {len(payload.docs)}"
        case _:
            return None


def _of_council(payload: Payload) -> str | None:
    match payload:
        case CouncilOpened():
            asked = f", asked for by {payload.requested_by}" if payload.requested_by else ""
            return f"Council on {payload.output_kind} opened with {len(payload.roster)} members{asked}"
        case CouncilDecided():
            outcome = payload.verdict or (f"{payload.estimate} points" if payload.estimate else "")
            return f"Council decided in {payload.decided_in}{f': {outcome}' if outcome else ''}"
        case CouncilUndecided():
            return f"Council undecided: {payload.reason}"
        case EstimateCast():
            # What a member said is no word of its own: values stand without names (CN-70).
            return f"An estimate came in for round {payload.round}"
        case BallotRefused():
            return f"Ballot of {payload.voter} refused: {payload.code}"
        case _:
            return None


def _of_owner(payload: Payload) -> str | None:
    match payload:
        case ReportGenerated():
            return f"Report of version {payload.as_of}"
        case OwnershipTaken():
            return f"Owner took over (epoch {payload.epoch}, {payload.cause})"
        case ConfigMigrated():
            return f"The {payload.file} that the story began with is not to be had: it follows the one in force"
        case BudgetExhausted():
            return f"Budget of {payload.limit} used up"
        case SummaryRecorded():
            whose = payload.as_role or "the story"
            return f"History of {whose} summed up: {payload.tokens_before} tokens in {payload.tokens_after}"
        case _:
            return None


def _of_people(payload: Payload) -> str | None:
    match payload:
        case ApprovalRequested():
            return f"Gate {payload.gate} waits for role {payload.role}"
        case ApprovalGranted():
            return f"Approved as {payload.as_role}" + (" by delegation" if payload.delegated else "")
        case ApprovalRejected():
            return f"Rejected as {payload.as_role}: {payload.reason}"
        case ApprovalExpired():
            return "Nobody answered in time"
        case SlaBreached():
            hours = f"{payload.limit_s / 3600:g} h"
            told = f"; told: {', '.join(payload.notified)}" if payload.notified else ""
            return f"Task {payload.subject.id} takes longer than {hours} since it was {payload.state}{told}"
        case DecisionProposed():
            return f"Decision proposed: {payload.title}"
        case DecisionAccepted():
            return f"Decision accepted as {payload.as_role}"
        case DecisionRejected():
            return f"Decision rejected: {payload.reason}"
        case DecisionSuperseded():
            why = f": {payload.reason}" if payload.reason else ""
            return f"Decision superseded by {payload.by_decision_id}{why}"
        case QuestionRaised():
            return f"Question ({payload.severity}): {payload.text}"
        case QuestionAnswered():
            return f"Answer: {payload.answer}"
        case _:
            return None
