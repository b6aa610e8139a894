"""What a story still owes. Each intent is one procedure of the owner, and the same on every replay.

The name of an intent is part of the digest of a plan: it is written out, so that no rename of a class changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class CheckoutBase:
    """Pin the repository's commit and record its tree."""

    name: ClassVar = "CheckoutBase"


@dataclass(frozen=True, slots=True)
class MeasureTree:
    """Run the whole pipeline on the tree and record report and score."""

    name: ClassVar = "MeasureTree"
    tree: str


@dataclass(frozen=True, slots=True)
class RequestGate:
    """Ask for the approval of a gate (attempt 1.. per subject)."""

    name: ClassVar = "RequestGate"
    gate: str
    subject: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class DecideGate:
    """Let the delegate of this run decide a requested gate (LC-77)."""

    name: ClassVar = "DecideGate"
    gate: str
    approval_id: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenGateCouncil:
    """Convene the council that a requested gate is delegated to (LC-77)."""

    name: ClassVar = "OpenGateCouncil"
    gate: str
    approval_id: str


@dataclass(frozen=True, slots=True)
class RequestEscalation:
    """Ask again about a council that came to no decision: nobody answered the last request (LC-73, CN-56)."""

    name: ClassVar = "RequestEscalation"
    council_id: str


@dataclass(frozen=True, slots=True)
class ExpireGate:
    """Nobody answered this request in time: say so, so that it can be asked again (LC-73)."""

    name: ClassVar = "ExpireGate"
    approval_id: str


@dataclass(frozen=True, slots=True)
class FireTransition:
    """All guards are true: move the story."""

    name: ClassVar = "FireTransition"
    event: str


@dataclass(frozen=True, slots=True)
class LoopBack:
    """The tree blocks, or its deployment does: go back and add a fix task (LC-47)."""

    name: ClassVar = "LoopBack"
    event: str
    tree: str
    reason: str = ""
    """What the findings are; empty takes those of the tree's score."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """Send the tree to the story's environment, as a person approved (LC-61)."""

    name: ClassVar = "Deploy"
    environment: str
    tree: str
    number: int
    """Of the deployment in its story, from 1."""


@dataclass(frozen=True, slots=True)
class ObserveHealth:
    """Watch the deployment for one window (LC-49)."""

    name: ClassVar = "ObserveHealth"
    deployment_id: str
    number: int
    """Of the window, from 1."""


@dataclass(frozen=True, slots=True)
class RollBack:
    """The first window breached: what ran before is to run again (LC-49)."""

    name: ClassVar = "RollBack"
    deployment_id: str


@dataclass(frozen=True, slots=True)
class OpenDesignCouncil:
    """Convene the council that chooses the design."""

    name: ClassVar = "OpenDesignCouncil"
    attempt: int


@dataclass(frozen=True, slots=True)
class OpenTaskCouncil:
    """Convene the council that writes and selects the work of one task."""

    name: ClassVar = "OpenTaskCouncil"
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReopenTaskCouncil:
    """Convene the council of the same attempt once more. A person cancelled the one before, or asks again for it."""

    name: ClassVar = "ReopenTaskCouncil"
    task_id: str
    attempt: int
    after: str
    """The council before."""


@dataclass(frozen=True, slots=True)
class AdvanceCouncil:
    """Do what the deliberation owes next, until it is decided."""

    name: ClassVar = "AdvanceCouncil"
    council_id: str


@dataclass(frozen=True, slots=True)
class DeriveAgain:
    """Ask the planner for tasks because a person wants that (PL-24)."""

    name: ClassVar = "DeriveAgain"
    plan_id: str
    decision_id: str


@dataclass(frozen=True, slots=True)
class DerivePlan:
    """Derive the tasks from the accepted design."""

    name: ClassVar = "DerivePlan"
    decision_id: str


@dataclass(frozen=True, slots=True)
class StartTask:
    """Give the next ready task to its role."""

    name: ClassVar = "StartTask"
    task_id: str


@dataclass(frozen=True, slots=True)
class CommitWork:
    """Hand the council's choice over to review."""

    name: ClassVar = "CommitWork"
    task_id: str
    council_id: str


@dataclass(frozen=True, slots=True)
class ReviewTask:
    """Have the architect review the work."""

    name: ClassVar = "ReviewTask"
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class TestTask:
    """Have QA test the merge candidate."""

    name: ClassVar = "TestTask"
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class ReleaseReview:
    """Offer a review again whose claim ran out (LC-130)."""

    name: ClassVar = "ReleaseReview"
    task_id: str


@dataclass(frozen=True, slots=True)
class EndCouncil:
    """End a council whose task is no longer being implemented."""

    name: ClassVar = "EndCouncil"
    council_id: str


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Merge the accepted work into the story tree."""

    name: ClassVar = "MergeTask"
    task_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RestoreTree:
    """Make an earlier tree the story tree again, as a person wants it (PL-47)."""

    name: ClassVar = "RestoreTree"
    checkpoint_id: str
    number: int
    """Of the request."""


@dataclass(frozen=True, slots=True)
class ProduceDocs:
    """Write the documentation and the story's artifacts, merge them, link the evidence."""

    name: ClassVar = "ProduceDocs"
    tree: str


@dataclass(frozen=True, slots=True)
class GenerateReport:
    """Build the technical report of the present version."""

    name: ClassVar = "GenerateReport"
    after: int


@dataclass(frozen=True, slots=True)
class Publish:
    """Create the branch in the repository; once, at the end (PL-43)."""

    name: ClassVar = "Publish"
    commit: str


@dataclass(frozen=True, slots=True)
class CloseStory:
    """Record that the story is over."""

    name: ClassVar = "CloseStory"


@dataclass(frozen=True, slots=True)
class Park:
    """Stop and ask a person."""

    name: ClassVar = "Park"
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
