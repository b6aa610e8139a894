"""Every event type with its graph effect, or with the explicit mark that it has none (EV-31)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from fleet import events as ev
from fleet.events import Payload, StoredEvent
from fleet.graph.changes import GraphChange
from fleet.graph.effects import approval, deliberation, planning, project, story, work
from fleet.graph.effects.at import At

__all__ = ["EFFECTS", "NONE", "Effect", "effects"]

Effect = Callable[[At, Any], Iterable[GraphChange]]
"""What one event type changes in the graph."""

NONE: Literal["none"] = "none"
"""The mark of an event type that changes nothing in the graph."""

_TABLE: dict[type[Payload], Effect | Literal["none"]] = {
    ev.StoryCreated: story.story_created,
    ev.StoryStarted: NONE,
    ev.StoryEdited: story.story_edited,
    ev.StoryScored: NONE,
    ev.StoryTransitioned: story.story_transitioned,
    ev.TransitionRefused: NONE,
    ev.RigorChanged: story.rigor_changed,
    ev.ConfigMigrated: NONE,
    ev.StoryParked: story.story_parked,
    ev.StoryUnparked: story.story_unparked,
    ev.StoryCancelled: story.story_cancelled,
    ev.StoryArchived: story.story_archived,
    ev.StoryClosed: story.story_closed,
    ev.QuestionRaised: story.question_raised,
    ev.QuestionAnswered: story.question_answered,
    ev.MilestoneReached: story.milestone_reached,
    ev.StoryPaused: story.story_paused,
    ev.StoryResumed: story.story_resumed,
    ev.ApprovalRequested: approval.approval_requested,
    ev.ApprovalGranted: approval.approval_granted,
    ev.ApprovalRejected: approval.approval_rejected,
    ev.ApprovalExpired: approval.approval_expired,
    ev.ApprovalRevoked: approval.approval_revoked,
    ev.TaskDerivationRequested: NONE,
    ev.TaskDerivationFailed: NONE,
    ev.PlanProposed: planning.plan_proposed,
    ev.PlanAdopted: planning.plan_adopted,
    ev.PlanRejected: planning.plan_rejected,
    ev.PlanStalled: planning.plan_stalled,
    ev.CheckpointSaved: NONE,
    ev.TaskAdded: planning.task_added,
    ev.TaskUpdated: planning.task_updated,
    ev.TaskTransitioned: planning.task_transitioned,
    ev.TaskClaimed: planning.task_claimed,
    ev.TaskClaimReleased: planning.task_claim_released,
    ev.TaskEstimated: planning.task_estimated,
    ev.SlaBreached: NONE,
    ev.TreeMerged: planning.tree_merged,
    ev.RestoreRequested: NONE,
    ev.MergeConflicted: NONE,
    ev.ProjectCreated: project.project_created,
    ev.ProjectUpdated: project.project_updated,
    ev.EpicCreated: project.epic_created,
    ev.EpicUpdated: project.epic_updated,
    ev.CeremonyOpened: project.ceremony_opened,
    ev.CeremonyStarted: project.ceremony_started,
    ev.CeremonyCompleted: project.ceremony_completed,
    ev.CeremonyCancelled: project.ceremony_cancelled,
    ev.CeremonyStoryReviewed: project.ceremony_story_reviewed,
    ev.CeremonyStoryDecided: project.ceremony_story_decided,
    ev.CeremonyStoryEstimated: NONE,
    ev.DiscoveryRequested: NONE,
    ev.DiscoveryProposed: NONE,
    ev.DiscoveryAnswered: NONE,
    ev.DiscoveryAccepted: NONE,
    ev.DiscoveryRejected: NONE,
    ev.StoryTombstoned: NONE,
    ev.StepStarted: work.step_started,
    ev.StepFinished: work.step_finished,
    ev.StepOutcomeUnknown: work.step_outcome_unknown,
    ev.StepResolved: work.step_resolved,
    ev.ToolDenied: NONE,
    ev.ModelFallbackUsed: NONE,
    ev.StuckDetected: NONE,
    ev.WorkspaceReported: work.workspace_reported,
    ev.WorkspaceScored: work.workspace_scored,
    ev.DimensionWaived: NONE,
    ev.ArtifactStored: work.artifact_stored,
    ev.DocsProduced: work.docs_produced,
    ev.DeploymentRecorded: work.deployment_recorded,
    ev.HealthObserved: NONE,
    ev.IncidentOpened: work.incident_opened,
    ev.IncidentClosed: work.incident_closed,
    ev.DecisionProposed: deliberation.decision_proposed,
    ev.DecisionAccepted: deliberation.decision_accepted,
    ev.DecisionRejected: deliberation.decision_rejected,
    ev.DecisionSuperseded: deliberation.decision_superseded,
    ev.DecisionLinked: deliberation.decision_linked,
    ev.ContextChanged: NONE,
    ev.ContextPackBuilt: NONE,
    ev.SummaryRecorded: NONE,
    ev.CouncilOpened: deliberation.council_opened,
    ev.DraftReceived: deliberation.draft_received,
    ev.DraftFailed: NONE,
    ev.TestsAuthored: NONE,
    ev.TestsFiltered: NONE,
    ev.EvidenceRecorded: deliberation.evidence_recorded,
    ev.RoundOpened: NONE,
    ev.CritiqueReceived: NONE,
    ev.RepairReceived: deliberation.repair_received,
    ev.BallotCast: deliberation.ballot_cast,
    ev.BallotRefused: NONE,
    ev.EstimateCast: NONE,
    ev.CouncilDecided: deliberation.council_decided,
    ev.CouncilUndecided: deliberation.council_undecided,
    ev.CouncilCancelled: deliberation.council_cancelled,
    ev.BudgetSet: NONE,
    ev.BudgetWarning: NONE,
    ev.BudgetExhausted: NONE,
    ev.UsageAdjusted: NONE,
    ev.OwnershipTaken: NONE,
    ev.ReportGenerated: work.report_generated,
    ev.PrincipalRegistered: project.principal_known,
    ev.PrincipalChanged: project.principal_known,
    ev.PrincipalDisabled: project.principal_disabled,
    ev.ConfigActivated: NONE,
    ev.DelegationGranted: NONE,
    ev.DelegationRevoked: NONE,
    ev.FleetPaused: NONE,
    ev.FleetResumed: NONE,
    ev.CouncilPoolSet: NONE,
    ev.CouncilPoolRemoved: NONE,
    ev.AgentRegistered: project.agent_registered,
    ev.AgentUnregistered: NONE,
    ev.AccessDenied: NONE,
    ev.OverrideUsed: NONE,
}

EFFECTS: Mapping[str, Effect | Literal["none"]] = MappingProxyType({cls.type: found for cls, found in _TABLE.items()})
"""Every event type by name: its effect, or NONE."""


def effects(event: StoredEvent, payload: Payload) -> tuple[GraphChange, ...]:
    """What the event changes in the graph, in order; empty for a type that is marked as without effect (GR-3)."""
    found = EFFECTS[payload.type]
    return () if found == NONE else tuple(found(At.of(event), payload))
