"""Every event type with its graph effect, or with the explicit mark that it has none (EV-31)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from fleet.events.approval import ApprovalExpired, ApprovalGranted, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.budget import BudgetExhausted, BudgetSet, BudgetWarning, UsageAdjusted
from fleet.events.context import ContextChanged, ContextPackBuilt, SummaryRecorded
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    EstimateCast,
    EvidenceRecorded,
    RepairReceived,
    RoundOpened,
    TestsAuthored,
    TestsFiltered,
)
from fleet.events.decision import (
    DecisionAccepted,
    DecisionLinked,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
)
from fleet.events.envelope import StoredEvent
from fleet.events.payload import Payload
from fleet.events.plan import (
    CheckpointSaved,
    PlanAdopted,
    PlanProposed,
    PlanRejected,
    PlanStalled,
    TaskDerivationFailed,
    TaskDerivationRequested,
)
from fleet.events.platform import (
    AccessDenied,
    AgentRegistered,
    AgentUnregistered,
    ConfigActivated,
    CouncilPoolRemoved,
    CouncilPoolSet,
    DelegationGranted,
    DelegationRevoked,
    FleetPaused,
    FleetResumed,
    OverrideUsed,
)
from fleet.events.project import (
    CeremonyCancelled,
    CeremonyCompleted,
    CeremonyOpened,
    CeremonyStarted,
    CeremonyStoryDecided,
    CeremonyStoryEstimated,
    CeremonyStoryReviewed,
    DiscoveryAccepted,
    DiscoveryAnswered,
    DiscoveryProposed,
    DiscoveryRejected,
    DiscoveryRequested,
    EpicCreated,
    EpicUpdated,
    ProjectCreated,
    ProjectUpdated,
    StoryTombstoned,
)
from fleet.events.report import OwnershipTaken, ReportGenerated
from fleet.events.step import (
    ModelFallbackUsed,
    StepFinished,
    StepOutcomeUnknown,
    StepResolved,
    StepStarted,
    StuckDetected,
    ToolDenied,
)
from fleet.events.story import (
    ConfigMigrated,
    MilestoneReached,
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
    TransitionRefused,
)
from fleet.events.task import (
    MergeConflicted,
    RestoreRequested,
    SlaBreached,
    TaskAdded,
    TaskClaimed,
    TaskClaimReleased,
    TaskEstimated,
    TaskTransitioned,
    TaskUpdated,
    TreeMerged,
)
from fleet.events.workspace import (
    DeploymentRecorded,
    DimensionWaived,
    DocsProduced,
    HealthObserved,
    IncidentClosed,
    IncidentOpened,
    WorkspaceReported,
    WorkspaceScored,
)
from fleet.graph.changes import GraphChange
from fleet.graph.effects import approval, deliberation, planning, project, story, work
from fleet.graph.effects.at import At

Effect = Callable[[At, Any], Iterable[GraphChange]]
"""What one event type changes in the graph."""

NONE: Literal["none"] = "none"
"""The mark of an event type that changes nothing in the graph."""

_TABLE: dict[type[Payload], Effect | Literal["none"]] = {
    StoryCreated: story.story_created,
    StoryStarted: NONE,
    StoryEdited: story.story_edited,
    StoryScored: NONE,
    StoryTransitioned: story.story_transitioned,
    TransitionRefused: NONE,
    RigorChanged: story.rigor_changed,
    ConfigMigrated: NONE,
    StoryParked: story.story_parked,
    StoryUnparked: story.story_unparked,
    StoryCancelled: story.story_cancelled,
    StoryArchived: story.story_archived,
    StoryClosed: story.story_closed,
    QuestionRaised: story.question_raised,
    QuestionAnswered: story.question_answered,
    MilestoneReached: story.milestone_reached,
    StoryPaused: story.story_paused,
    StoryResumed: story.story_resumed,
    ApprovalRequested: approval.approval_requested,
    ApprovalGranted: approval.approval_granted,
    ApprovalRejected: approval.approval_rejected,
    ApprovalExpired: approval.approval_expired,
    ApprovalRevoked: approval.approval_revoked,
    TaskDerivationRequested: NONE,
    TaskDerivationFailed: NONE,
    PlanProposed: planning.plan_proposed,
    PlanAdopted: planning.plan_adopted,
    PlanRejected: planning.plan_rejected,
    PlanStalled: planning.plan_stalled,
    CheckpointSaved: NONE,
    TaskAdded: planning.task_added,
    TaskUpdated: planning.task_updated,
    TaskTransitioned: planning.task_transitioned,
    TaskClaimed: planning.task_claimed,
    TaskClaimReleased: planning.task_claim_released,
    TaskEstimated: planning.task_estimated,
    SlaBreached: NONE,
    TreeMerged: planning.tree_merged,
    RestoreRequested: NONE,
    MergeConflicted: NONE,
    ProjectCreated: project.project_created,
    ProjectUpdated: project.project_updated,
    EpicCreated: project.epic_created,
    EpicUpdated: project.epic_updated,
    CeremonyOpened: project.ceremony_opened,
    CeremonyStarted: project.ceremony_started,
    CeremonyCompleted: project.ceremony_completed,
    CeremonyCancelled: project.ceremony_cancelled,
    CeremonyStoryReviewed: project.ceremony_story_reviewed,
    CeremonyStoryDecided: project.ceremony_story_decided,
    CeremonyStoryEstimated: NONE,
    DiscoveryRequested: NONE,
    DiscoveryProposed: NONE,
    DiscoveryAnswered: NONE,
    DiscoveryAccepted: NONE,
    DiscoveryRejected: NONE,
    StoryTombstoned: NONE,
    StepStarted: work.step_started,
    StepFinished: work.step_finished,
    StepOutcomeUnknown: work.step_outcome_unknown,
    StepResolved: work.step_resolved,
    ToolDenied: NONE,
    ModelFallbackUsed: NONE,
    StuckDetected: NONE,
    WorkspaceReported: work.workspace_reported,
    WorkspaceScored: work.workspace_scored,
    DimensionWaived: NONE,
    DocsProduced: work.docs_produced,
    DeploymentRecorded: work.deployment_recorded,
    HealthObserved: NONE,
    IncidentOpened: work.incident_opened,
    IncidentClosed: work.incident_closed,
    DecisionProposed: deliberation.decision_proposed,
    DecisionAccepted: deliberation.decision_accepted,
    DecisionRejected: deliberation.decision_rejected,
    DecisionSuperseded: deliberation.decision_superseded,
    DecisionLinked: deliberation.decision_linked,
    ContextChanged: NONE,
    ContextPackBuilt: NONE,
    SummaryRecorded: NONE,
    CouncilOpened: deliberation.council_opened,
    DraftReceived: deliberation.draft_received,
    DraftFailed: NONE,
    TestsAuthored: NONE,
    TestsFiltered: NONE,
    EvidenceRecorded: deliberation.evidence_recorded,
    RoundOpened: NONE,
    CritiqueReceived: NONE,
    RepairReceived: deliberation.repair_received,
    BallotCast: deliberation.ballot_cast,
    BallotRefused: NONE,
    EstimateCast: NONE,
    CouncilDecided: deliberation.council_decided,
    CouncilUndecided: deliberation.council_undecided,
    CouncilCancelled: deliberation.council_cancelled,
    BudgetSet: NONE,
    BudgetWarning: NONE,
    BudgetExhausted: NONE,
    UsageAdjusted: NONE,
    OwnershipTaken: NONE,
    ReportGenerated: work.report_generated,
    ConfigActivated: NONE,
    DelegationGranted: NONE,
    DelegationRevoked: NONE,
    FleetPaused: NONE,
    FleetResumed: NONE,
    CouncilPoolSet: NONE,
    CouncilPoolRemoved: NONE,
    AgentRegistered: project.agent_registered,
    AgentUnregistered: NONE,
    AccessDenied: NONE,
    OverrideUsed: NONE,
}

EFFECTS: Mapping[str, Effect | Literal["none"]] = MappingProxyType({cls.type: found for cls, found in _TABLE.items()})
"""Every event type by name: its effect, or NONE."""


def effects(event: StoredEvent, payload: Payload) -> tuple[GraphChange, ...]:
    """What the event changes in the graph, in order; empty for a type that is marked as without effect (GR-3)."""
    found = EFFECTS[payload.type]
    return () if found == NONE else tuple(found(At.of(event), payload))
