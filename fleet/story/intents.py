"""What a story still owes. Each intent is one procedure of the owner, and the same on every replay."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AdvanceCouncil",
    "CheckoutBase",
    "CloseStory",
    "CommitWork",
    "DecideGate",
    "Deploy",
    "DeriveAgain",
    "DerivePlan",
    "EndCouncil",
    "ExpireGate",
    "FireTransition",
    "GenerateReport",
    "Intent",
    "LoopBack",
    "MeasureTree",
    "MergeTask",
    "ObserveHealth",
    "OpenDesignCouncil",
    "OpenGateCouncil",
    "OpenTaskCouncil",
    "Park",
    "ProduceDocs",
    "Publish",
    "ReleaseReview",
    "ReopenTaskCouncil",
    "RequestEscalation",
    "RequestGate",
    "RestoreTree",
    "ReviewTask",
    "RollBack",
    "StartTask",
    "TestTask",
]


@dataclass(frozen=True, slots=True)
class CheckoutBase:
    """Pin the repository's commit and record its tree."""


@dataclass(frozen=True, slots=True)
class MeasureTree:
    """Run the whole pipeline on the tree and record report and score."""

    tree: str


@dataclass(frozen=True, slots=True)
class RequestGate:
    """Ask for the approval of a gate (attempt 1.. per subject)."""

    gate: str
    subject: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class DecideGate:
    """Let the delegate of this run decide a requested gate (LC-77)."""

    gate: str
    approval_id: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenGateCouncil:
    """Convene the council that a requested gate is delegated to (LC-77)."""

    gate: str
    approval_id: str


@dataclass(frozen=True, slots=True)
class RequestEscalation:
    """Ask again about a council that came to no decision: nobody answered the last request (LC-73, CN-56)."""

    council_id: str


@dataclass(frozen=True, slots=True)
class ExpireGate:
    """Nobody answered this request in time: say so, so that it can be asked again (LC-73)."""

    approval_id: str


@dataclass(frozen=True, slots=True)
class FireTransition:
    """All guards are true: move the story."""

    event: str


@dataclass(frozen=True, slots=True)
class LoopBack:
    """The tree blocks, or its deployment does: go back and add a fix task (LC-47)."""

    event: str
    tree: str
    reason: str = ""
    """What the findings are; empty takes those of the tree's score."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """Send the tree to the story's environment, as a person approved (LC-61)."""

    environment: str
    tree: str
    number: int
    """Of the deployment in its story, from 1."""


@dataclass(frozen=True, slots=True)
class ObserveHealth:
    """Watch the deployment for one window (LC-49)."""

    deployment_id: str
    number: int
    """Of the window, from 1."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """The first window breached: what ran before is to run again (LC-49)."""

    deployment_id: str


@dataclass(frozen=True, slots=True)
class OpenDesignCouncil:
    """Convene the council that chooses the design."""

    attempt: int


@dataclass(frozen=True, slots=True)
class OpenTaskCouncil:
    """Convene the council that writes and selects the work of one task."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReopenTaskCouncil:
    """Convene the council of the same attempt once more, in place of one that a person cancelled or asks again for."""

    task_id: str
    attempt: int
    after: str
    """The council before."""


@dataclass(frozen=True, slots=True)
class AdvanceCouncil:
    """Do what the deliberation owes next, until it is decided."""

    council_id: str


@dataclass(frozen=True, slots=True)
class DeriveAgain:
    """Ask the planner for tasks because a person wants that (PL-24)."""

    plan_id: str
    decision_id: str


@dataclass(frozen=True, slots=True)
class DerivePlan:
    """Derive the tasks from the accepted design."""

    decision_id: str


@dataclass(frozen=True, slots=True)
class StartTask:
    """Give the next ready task to its role."""

    task_id: str


@dataclass(frozen=True, slots=True)
class CommitWork:
    """Hand the council's choice over to review."""

    task_id: str
    council_id: str


@dataclass(frozen=True, slots=True)
class ReviewTask:
    """Have the architect review the work."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TestTask:
    """Have QA test the merge candidate."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseReview:
    """Offer a review again whose claim ran out (LC-130)."""

    task_id: str


@dataclass(frozen=True, slots=True)
class EndCouncil:
    """End a council whose task is no longer being implemented."""

    council_id: str


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Merge the accepted work into the story tree."""

    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RestoreTree:
    """Make an earlier tree the story tree again, as a person wants it (PL-47)."""

    checkpoint_id: str
    number: int
    """Of the request."""


@dataclass(frozen=True, slots=True)
class ProduceDocs:
    """Write the documentation and the story's artifacts, merge them, link the evidence."""

    tree: str


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """Build the technical report of the present version."""

    after: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Create the branch in the repository; once, at the end (PL-43)."""

    commit: str


@dataclass(frozen=True, slots=True)
class CloseStory:
    """Record that the story is over."""


@dataclass(frozen=True, slots=True)
class Park:
    """Stop and ask a person."""

    cause: str
    detail: str


Intent = (
    CheckoutBase
    | MeasureTree
    | RequestGate
    | DecideGate
    | ExpireGate
    | RequestEscalation
    | FireTransition
    | LoopBack
    | OpenDesignCouncil
    | OpenGateCouncil
    | OpenTaskCouncil
    | ReopenTaskCouncil
    | AdvanceCouncil
    | DerivePlan
    | DeriveAgain
    | StartTask
    | CommitWork
    | ReviewTask
    | TestTask
    | ReleaseReview
    | EndCouncil
    | MergeTask
    | RestoreTree
    | ProduceDocs
    | GenerateReport
    | Publish
    | CloseStory
    | Deploy
    | ObserveHealth
    | RollBack
    | Park
)
