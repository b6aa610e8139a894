"""Every event type of the catalogue has the fields and the origin that the catalogue names (EV-100..EV-256).

Fields are those of the stored form; `?` marks one that may be left out. A type may have more fields, all optional ones.
"""

from __future__ import annotations

import pytest

from fleet.events.codec import encode
from fleet.events.envelope import NewEvent
from fleet.events.registry import EVENT_TYPES
from tests.support.event_samples import fields_of, samples

CATALOGUE = (
    (
        "EV-100",
        "StoryCreated",
        "planning",
        "project_id epic_id title description acceptance_criteria constraints tags rigor lifecycle language "
        "priority requester content_digest config",
    ),
    ("EV-101", "StoryEdited", "planning", "changes reason? content_digest previous_content_digest"),
    ("EV-102", "StoryScored", "coach", "content_digest score threshold dor_ok findings scorer_version"),
    ("EV-103", "StoryTransitioned", "planning", "from event to guards loopback skipped? reason?"),
    ("EV-104", "TransitionRefused", "planning", "state event guards principal"),
    ("EV-105", "RigorChanged", "planning", "from to reason approval_id?"),
    ("EV-106", "ConfigMigrated", "owner", "file from_digest to_digest by"),
    ("EV-107", "StoryParked", "owner", "cause code? detail ref?"),
    ("EV-108", "StoryUnparked", "owner", "by note cause"),
    ("EV-109", "StoryCancelled", "planning", "reason"),
    ("EV-110", "StoryArchived", "owner", "export_digest"),
    ("EV-111", "StoryClosed", "planning", "final_state report_id?"),
    ("EV-112", "QuestionRaised", "tasks", "question_id kind text severity about asked_by"),
    ("EV-113", "QuestionAnswered", "tasks", "question_id answer answered_by"),
    ("EV-114", "MilestoneReached", "planning", "milestone_id name ref"),
    ("EV-115", "StoryPaused", "planning", "scope task_id? by reason?"),
    ("EV-115", "StoryResumed", "planning", "scope task_id? by reason?"),
    ("EV-116", "CriterionWaived", "approvals", "ac_id text by as_role reason"),
    (
        "EV-120",
        "ApprovalRequested",
        "approvals",
        "approval_id gate role actor subject risk expires_at attempt card_digest requested_by",
    ),
    (
        "EV-121",
        "ApprovalGranted",
        "approvals",
        "approval_id principal as_role subject_digest notes? grant_expires_at delegated delegation_id?",
    ),
    ("EV-122", "ApprovalRejected", "approvals", "approval_id principal as_role reason delegated"),
    ("EV-123", "ApprovalExpired", "approvals", "approval_id attempt"),
    ("EV-124", "ApprovalRevoked", "approvals", "approval_id principal reason"),
    ("EV-130", "TaskDerivationRequested", "planning", "plan_id content_digest attempt"),
    ("EV-131", "TaskDerivationFailed", "planning", "plan_id attempts problems requires_manual_review"),
    (
        "EV-132",
        "PlanProposed",
        "planning",
        "plan_id version previous_plan_id? author rationale tasks dependencies estimated_complexity "
        "task_decisions content_digest plan_digest",
    ),
    ("EV-133", "PlanAdopted", "planning", "plan_id version decision_id supersedes?"),
    ("EV-134", "PlanRejected", "planning", "plan_id by reason"),
    ("EV-135", "TaskAdded", "planning", "plan_id task"),
    ("EV-136", "TaskUpdated", "planning", "task_id changes"),
    (
        "EV-137",
        "TaskTransitioned",
        "tasks",
        "task_id from action to actor_type principal as_role feedback? evidence skipped_by_config?",
    ),
    ("EV-138", "TaskClaimed", "tasks", "task_id state principal expires_at"),
    ("EV-139", "TaskClaimReleased", "tasks", "task_id principal reason"),
    ("EV-140", "TaskEstimated", "council", "task_id points hours? method median iqr rounds converged council_id?"),
    ("EV-141", "SlaBreached", "tasks", "subject state limit_s elapsed_s notified"),
    ("EV-142", "PlanStalled", "planning", "plan_id blockers"),
    ("EV-143", "CheckpointSaved", "planning", "checkpoint_id tree_digest plan_id task_states note"),
    (
        "EV-144",
        "TreeMerged",
        "tasks",
        "task_id? base_digest task_tree_digest? result_digest commit files restored_from? step_id?",
    ),
    ("EV-145", "MergeConflicted", "tasks", "task_id base_digest paths run_id? output_digest?"),
    (
        "EV-146",
        "ProjectCreated",
        "planning",
        "project_id title description status constraints default_rigor default_lifecycle languages repo author",
    ),
    ("EV-146", "ProjectUpdated", "planning", "project_id changes"),
    ("EV-146", "EpicCreated", "planning", "epic_id project_id title description goal status priority author"),
    ("EV-146", "EpicUpdated", "planning", "epic_id changes"),
    ("EV-147", "CeremonyOpened", "planning", "ceremony_id story_ids? councils?"),
    ("EV-147", "CeremonyStarted", "planning", "ceremony_id story_ids councils?"),
    ("EV-147", "CeremonyCompleted", "planning", "ceremony_id"),
    ("EV-147", "CeremonyCancelled", "planning", "ceremony_id reason"),
    (
        "EV-148",
        "CeremonyStoryReviewed",
        "council",
        "ceremony_id story_id role review_unit review_digest council_id? failed?",
    ),
    (
        "EV-149",
        "CeremonyStoryDecided",
        "planning",
        "ceremony_id story_id result po_notes po_concerns? priority_adjustment? priority_reason? plan_id?",
    ),
    (
        "EV-160",
        "StepStarted",
        "steps",
        "step_id kind tool? op? effect task_id? council_id? as_role principal request_digest key deadline_ms "
        "policy approval_id? reserve",
    ),
    (
        "EV-161",
        "StepFinished",
        "steps",
        "step_id outcome result_digest excerpt? exit_code? reason? artifacts cost provenance error_code?",
    ),
    ("EV-162", "StepOutcomeUnknown", "steps", "step_id sent_digest sent_at probe?"),
    ("EV-163", "StepResolved", "steps", "step_id outcome by note probe_result?"),
    ("EV-164", "ToolDenied", "steps", "tool op principal as_role task_id? rule_id policy_digest reason"),
    ("EV-165", "ModelFallbackUsed", "steps", "step_id from to reason"),
    ("EV-166", "StuckDetected", "owner", "task_id pattern steps level"),
    ("EV-170", "WorkspaceReported", "steps", "run_id task_id? tree_digest report_digest complete summary"),
    (
        "EV-171",
        "WorkspaceScored",
        "scorer",
        "run_id tree_digest rigor score verdict limited_by gates dimensions reasons waivers inconsistent",
    ),
    ("EV-172", "DimensionWaived", "approvals", "dimension reason principal approval_id expires_at"),
    ("EV-174", "DocsProduced", "tasks", "docs tree_digest criteria"),
    (
        "EV-175",
        "DeploymentRecorded",
        "steps",
        "deployment_id environment tree_digest image_digest? revision? status step_id rollback_ref?",
    ),
    ("EV-176", "HealthObserved", "steps", "environment ok checks from to"),
    ("EV-177", "IncidentOpened", "tasks", "incident_id severity summary source deployment_id? task_id?"),
    ("EV-177", "IncidentClosed", "tasks", "resolution?"),
    (
        "EV-180",
        "DecisionProposed",
        "tasks council",
        "decision_id title rationale category alternatives affects links plan_id? based_on author origin council_id?",
    ),
    ("EV-181", "DecisionAccepted", "approvals council", "decision_id by as_role approval_id? council_id? note?"),
    ("EV-182", "DecisionRejected", "approvals", "decision_id by as_role reason"),
    ("EV-183", "DecisionSuperseded", "tasks", "decision_id by_decision_id"),
    ("EV-184", "DecisionLinked", "tasks", "decision_id affects links"),
    ("EV-190", "ContextChanged", "context", "changes version hash"),
    (
        "EV-191",
        "ContextPackBuilt",
        "context",
        "pack_id as_role phase task_id? scopes token_count budget hash dropped as_of",
    ),
    (
        "EV-192",
        "SummaryRecorded",
        "context",
        "summary_id covers_from covers_to summary_digest tokens_before tokens_after ratio recall target_missed?",
    ),
    (
        "EV-200",
        "CouncilOpened",
        "council",
        "council_id kind output_kind task_id? subject_digest? roster rubric_digest rule_version quorum "
        "pass_threshold rounds budget seed deadline_at retry_of?",
    ),
    ("EV-201", "DraftReceived", "council", "council_id member_id attempt candidate_id candidate_digest tokens"),
    ("EV-201", "DraftFailed", "council", "council_id member_id attempt code"),
    ("EV-202", "TestsAuthored", "council", "council_id author tests_digest count"),
    ("EV-202", "TestsFiltered", "council", "kept dropped trusted on_base?"),
    ("EV-203", "EvidenceRecorded", "council", "council_id round evidence"),
    ("EV-204", "RoundOpened", "council", "council_id round phase"),
    ("EV-205", "CritiqueReceived", "council", "council_id round candidate_id critic critique_digest"),
    ("EV-206", "RepairReceived", "council", "council_id round candidate_id new_digest kept reason"),
    (
        "EV-207",
        "BallotCast",
        "council",
        "council_id round voter attempt votes ranking reasons_digest order_seed tokens",
    ),
    ("EV-208", "BallotRefused", "council", "council_id round voter attempt code ballot_digest"),
    ("EV-209", "EstimateCast", "council", "council_id round member_id value reason_digest"),
    (
        "EV-210",
        "CouncilDecided",
        "council",
        "council_id outcome decided_in winner? verdict? estimate? tally decision_hash minority_report_digest "
        "counterfactuals tokens decision_id?",
    ),
    (
        "EV-211",
        "CouncilUndecided",
        "council",
        "council_id reason tally decision_hash minority_report_digest approval_id",
    ),
    ("EV-212", "CouncilCancelled", "council", "council_id reason"),
    ("EV-220", "BudgetSet", "budget", "scope limits by approval_id?"),
    ("EV-221", "BudgetWarning", "budget", "scope limit used max"),
    ("EV-221", "BudgetExhausted", "budget", "scope limit used max"),
    ("EV-222", "UsageAdjusted", "budget", "step_id delta source"),
    ("EV-230", "OwnershipTaken", "owner", "epoch previous_epoch owner cause"),
    ("EV-240", "ReportGenerated", "report", "report_id report_digest as_of format stats traceability"),
    (
        "EV-252",
        "DelegationGranted",
        "admin",
        "delegation_id gate delegate max_rigor projects valid_until reason granted_by",
    ),
    (
        "EV-252",
        "DelegationRevoked",
        "admin",
        "delegation_id gate delegate max_rigor projects valid_until reason granted_by",
    ),
    ("EV-253", "FleetPaused", "admin", "scope id? by reason"),
    ("EV-253", "FleetResumed", "admin", "scope id? by reason"),
    ("EV-254", "CouncilPoolSet", "admin", "role config"),
    ("EV-254", "CouncilPoolRemoved", "admin", "role"),
    ("EV-254", "AgentRegistered", "admin", "role agent_id profile engine"),
    ("EV-254", "AgentUnregistered", "admin", "role agent_id"),
    ("EV-255", "StoryTombstoned", "owner", "story_id export_digest last_version last_hash"),
    ("EV-256", "AccessDenied", "approvals", "principal action object rule_id reason?"),
    ("EV-256", "OverrideUsed", "approvals", "principal action object rule_id reason?"),
)
SAMPLES = samples()


@pytest.mark.parametrize(
    ("name", "origins", "fields"),
    [pytest.param(*row[1:], marks=pytest.mark.rule(row[0]), id=row[1]) for row in CATALOGUE],
)
def test_type_has_the_fields_and_the_origin_of_the_catalogue(name: str, origins: str, fields: str) -> None:
    cls = EVENT_TYPES[name]
    assert {cls.origin, *cls.other_origins} >= set(origins.split())
    stored = {field: is_required for field, is_required in fields_of(cls).items() if "." not in field}
    named = {field.rstrip("?"): not field.endswith("?") for field in fields.split()}
    assert named.keys() <= stored.keys()
    assert not [field for field, is_needed in named.items() if stored[field] and not is_needed], "may be left out"
    event: NewEvent = encode(SAMPLES[name])
    assert event.type == name


def test_catalogue_of_this_test_names_each_type_once() -> None:
    names = [row[1] for row in CATALOGUE]
    assert len(names) == len(set(names))
