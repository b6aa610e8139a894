"""What an event adds to the metrics: everything that is on record is counted from the record alone (GL-16)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.budget import BudgetExhausted, BudgetWarning
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    DraftFailed,
)
from fleet.events.payload import Payload
from fleet.events.report import OwnershipTaken
from fleet.events.step import ModelFallbackUsed, StepFinished, StepOutcomeUnknown, StuckDetected, ToolDenied
from fleet.events.story import StoryCancelled, StoryClosed, StoryCreated, StoryParked, StoryUnparked


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` is added to a counter, or is one more observation of a histogram."""

    name: str
    value: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class StepStart:
    """When a step began, and for which role."""

    kind: str
    role: str
    at_ms: int


def figures_of(payload: Payload, *, at_ms: int, started: StepStart | None = None) -> Iterator[Figure]:
    """What this event adds.

    Args:
        at_ms: time of the event.
        started: of a step that ends with it, where its start is known.
    """
    yield Figure("fleet_events_total", labels={"type": payload.type})
    yield from _of_story(payload)
    yield from _of_council(payload)
    yield from _of_step(payload, at_ms, started)


def _of_story(payload: Payload) -> Iterator[Figure]:
    match payload:
        case StoryCreated():
            yield Figure("fleet_stories_created_total", labels={"rigor": payload.rigor})
        case StoryClosed():
            yield Figure("fleet_stories_closed_total", labels={"state": payload.final_state})
        case StoryCancelled():
            yield Figure("fleet_stories_closed_total", labels={"state": "cancelled"})
        case StoryParked():
            yield Figure("fleet_stories_parked_total", labels={"cause": payload.cause})
        case StoryUnparked():
            yield Figure("fleet_stories_unparked_total", labels={"cause": payload.cause})
        case OwnershipTaken():
            yield Figure("fleet_ownership_taken_total", labels={"cause": payload.cause})
        case ApprovalRequested():
            yield Figure("fleet_approvals_requested_total", labels={"gate": payload.gate})
        case ApprovalGranted() | ApprovalRejected() | ApprovalExpired() | ApprovalRevoked():
            answer = payload.type.removeprefix("Approval").lower()
            yield Figure("fleet_approvals_answered_total", labels={"answer": answer})
        case BudgetWarning() | BudgetExhausted():
            labels = {"mark": payload.type.removeprefix("Budget").lower(), "scope": payload.scope.kind}
            yield Figure("fleet_budget_marks_total", labels=labels)
        case _:
            return


def _of_council(payload: Payload) -> Iterator[Figure]:
    match payload:
        case CouncilOpened():
            yield Figure("fleet_councils_opened_total", labels={"kind": payload.kind})
        case CouncilDecided():
            yield Figure("fleet_councils_ended_total", labels={"outcome": "decided"})
        case CouncilUndecided():
            yield Figure("fleet_councils_ended_total", labels={"outcome": payload.reason})
        case CouncilCancelled():
            yield Figure("fleet_councils_ended_total", labels={"outcome": "cancelled"})
        case BallotCast():
            for vote in payload.votes.values():
                yield Figure("fleet_council_votes_total", labels={"vote": vote})
        case BallotRefused():
            yield Figure("fleet_council_ballots_refused_total")
        case DraftFailed():
            yield Figure("fleet_council_drafts_failed_total")
        case _:
            return


def _of_step(payload: Payload, at_ms: int, started: StepStart | None) -> Iterator[Figure]:
    match payload:
        case StepFinished():
            yield from _of_result(payload, at_ms, started)
        case StepOutcomeUnknown():
            yield Figure("fleet_outcomes_unknown_total")
        case ToolDenied():
            yield Figure("fleet_tools_denied_total", labels={"tool": payload.tool})
        case ModelFallbackUsed():
            yield Figure("fleet_model_fallbacks_total", labels={"engine": payload.to.split(":")[0]})
        case StuckDetected():
            yield Figure("fleet_stuck_total", labels={"pattern": payload.pattern})
        case _:
            return


def _of_result(payload: StepFinished, at_ms: int, started: StepStart | None) -> Iterator[Figure]:
    kind, role = (started.kind, started.role) if started else ("unknown", "unknown")
    yield Figure("fleet_steps_total", labels={"kind": kind, "outcome": payload.outcome})
    if payload.error_code:
        yield Figure("fleet_step_errors_total", labels={"code": payload.error_code})
    if started is not None:
        seconds = max(0, at_ms - started.at_ms) / 1000
        yield Figure("fleet_step_seconds", seconds, {"kind": kind})
    if kind == "model":
        yield from _of_usage(payload, role)


def _of_usage(payload: StepFinished, role: str) -> Iterator[Figure]:
    cost = payload.cost
    spent = {"in": cost.tokens_in, "out": cost.tokens_out, "cached": cost.tokens_cached}
    for direction, tokens in spent.items():
        if tokens:
            yield Figure("fleet_tokens_used_total", tokens, {"role": role, "direction": direction})
    if cost.gpu_ms:
        yield Figure("fleet_gpu_ms_total", cost.gpu_ms, {"role": role})
    if cost.cost_microusd:
        yield Figure("fleet_cost_microusd_total", cost.cost_microusd, {"role": role})
    if not cost.priced:
        yield Figure("fleet_unpriced_steps_total", labels={"role": role})
