"""What the interface takes and gives. Written by `python scripts/client.py` from docs/openapi.json."""

# fmt: off
# ruff: noqa: E501

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "Acting",
    "ActionRequest",
    "ActionResult",
    "AdoptRequest",
    "AgentRemoved",
    "AgentRequest",
    "AgentView",
    "AnswerRequest",
    "AnswersRequest",
    "ApplyRequest",
    "ApprovalCard",
    "ApprovalList",
    "ApprovalView",
    "ApproveRequest",
    "Artifact",
    "ArtifactList",
    "ArtifactView",
    "AskRequest",
    "AuditFindingView",
    "AuditStatus",
    "BacklogReview",
    "BlocksView",
    "BudgetLineView",
    "BudgetList",
    "BundleStats",
    "BundleView",
    "CancelRequest",
    "CandidateRow",
    "CapturedArtifact",
    "CaseHeader",
    "CeremonyReason",
    "CeremonyView",
    "ChangeItem",
    "ChangePreview",
    "ChangeRequest",
    "ChangeResult",
    "CheckpointList",
    "CheckpointView",
    "ClaimRequest",
    "ClaimView",
    "CoachFinding",
    "CommandView",
    "CompressionView",
    "ConstraintsAsk",
    "ConsumerList",
    "ConsumerView",
    "ContextStats",
    "CopyRequest",
    "CouncilAccepted",
    "CouncilAsk",
    "CouncilBudgetAsk",
    "CouncilLineList",
    "CouncilLineView",
    "CouncilList",
    "CouncilPage",
    "CouncilReason",
    "CouncilSummary",
    "CoverageSummary",
    "Criterion",
    "CriterionLine",
    "CriterionText",
    "CriticalList",
    "CriticalRow",
    "Cycle",
    "CycleList",
    "DecisionAcceptRequest",
    "DecisionEdge",
    "DecisionLine",
    "DecisionList",
    "DecisionPage",
    "DecisionRequest",
    "DecisionView",
    "Definitions",
    "DelegationList",
    "DelegationRequest",
    "DelegationView",
    "DeploymentList",
    "DeploymentView",
    "DerivationView",
    "DiffView",
    "DimensionResult",
    "DimensionView",
    "DiscoverRequest",
    "DiscoveryList",
    "DiscoveryProposal",
    "DiscoveryView",
    "DroppedView",
    "EditRequest",
    "EgressDecision",
    "EndRequest",
    "EngineList",
    "EngineView",
    "Envelope",
    "EnvelopeList",
    "EnvironmentList",
    "EnvironmentView",
    "EpicList",
    "EpicPatch",
    "EpicText",
    "EpicView",
    "EstimateRoundRow",
    "EstimateView",
    "EventList",
    "EvidenceView",
    "FileDiff",
    "FileEntryView",
    "FileList",
    "FileView",
    "Finding",
    "FindingView",
    "FleetView",
    "GateCost",
    "GateCouncilView",
    "GateDiff",
    "GateResult",
    "GateScoreView",
    "GateStory",
    "GateSubject",
    "GateVerdict",
    "GoalRequest",
    "GrantRequest",
    "GrantView",
    "GraphEdge",
    "GraphNode",
    "GuardView",
    "HTTPValidationError",
    "Impact",
    "ImpactRow",
    "ImpactedTask",
    "IncidentView",
    "InvocationView",
    "JobLine",
    "JsonValue",
    "KeyView",
    "Leaf",
    "LeafMark",
    "LetterList",
    "LetterView",
    "LimitsRequest",
    "LinkView",
    "LintSummary",
    "LogLineView",
    "LogList",
    "LossView",
    "Me",
    "Milestone",
    "MilestoneLine",
    "NamedAgentList",
    "NamedAgentView",
    "NeedView",
    "NoteRequest",
    "Nothing",
    "OnMalformed",
    "OpenQuestion",
    "OpenRequest",
    "PackActivityView",
    "PackCell",
    "PackList",
    "PackPage",
    "PathChange",
    "PauseRequest",
    "PauseView",
    "PhaseLead",
    "PlanHeader",
    "PlanOutlineTask",
    "PlanPage",
    "PlanTask",
    "PlanVersionList",
    "PlanVersionView",
    "PlanView",
    "Policy",
    "PolicyEntry",
    "PolicyList",
    "PolicyView",
    "PoolList",
    "PoolRemoved",
    "PoolRequest",
    "PoolView",
    "Price",
    "ProjectChanges",
    "ProjectList",
    "ProjectMetrics",
    "ProjectSummary",
    "ProjectSummaryList",
    "ProjectText",
    "ProjectTimeline",
    "ProjectView",
    "ProjectionView",
    "Proof",
    "Proposal",
    "ProposalAcceptRequest",
    "ProposalRejectRequest",
    "ProposeRequest",
    "ProposedEpic",
    "ProposedStory",
    "QuestionLine",
    "QuestionList",
    "QuestionRequest",
    "QuestionView",
    "RateCap",
    "ReasonRequest",
    "RedactionView",
    "RefineChange",
    "RefinedStory",
    "RehydrateRequest",
    "RehydrationBundle",
    "RejectPlanRequest",
    "RejectRequest",
    "RepoText",
    "ReportToScore",
    "ReportedList",
    "ReportedView",
    "Requirement",
    "ResolveRequest",
    "RestoreRequest",
    "ResumeRequest",
    "ReviewView",
    "ReviewedStory",
    "RevokeRequest",
    "RigorRequest",
    "RoleList",
    "RolePack",
    "RoleView",
    "RubricAsk",
    "RunList",
    "RunView",
    "ScopeRequest",
    "ScopeVerdict",
    "ScoreList",
    "ScoreRequest",
    "ScoreView",
    "SeatAsk",
    "SeatRow",
    "ServiceReady",
    "SessionRequest",
    "SessionView",
    "SettledView",
    "StartRequest",
    "StaticSummary",
    "Stay",
    "StoriesRequest",
    "StoryAdvice",
    "StoryGraph",
    "StoryLine",
    "StoryList",
    "StoryScore",
    "StorySuggestion",
    "StoryView",
    "SuiteRunView",
    "SupersedeRequest",
    "SupersededView",
    "TaskArtifacts",
    "TaskCaptured",
    "TaskContext",
    "TaskDraft",
    "TaskEditRequest",
    "TaskEstimateView",
    "TaskEvidenceView",
    "TaskInput",
    "TaskLine",
    "TaskList",
    "TaskMetadata",
    "TaskMount",
    "TaskMoveView",
    "TaskNetwork",
    "TaskPage",
    "TaskResources",
    "TaskResult",
    "TaskService",
    "TaskSpec",
    "TaskTimeouts",
    "TaskView",
    "TestRow",
    "TestSummary",
    "TestTable",
    "TextRequest",
    "TicketView",
    "TimelineLine",
    "TimelineList",
    "TimelineView",
    "ToolCall",
    "ToolList",
    "ToolOutcome",
    "ToolView",
    "TransitionList",
    "TransitionRequest",
    "TransitionView",
    "TreeCheckpointList",
    "TreeCheckpointView",
    "TrendView",
    "UsageList",
    "UsageSumView",
    "ValidationError",
    "VersionTask",
    "WaitingTask",
    "WaitingTaskList",
    "WorkflowStats",
    "WorkspaceScore",
    "WorkspaceSummary",
    "WritePlanRequest",
    "_Entry",
]


JsonValue = Any

LeafMark = Literal['live', 'archived', 'refused']

class Acting(TypedDict):
    """How far a role looks around with tools before it drafts; everything that this may cost is bounded here."""

    calls_per_reply: NotRequired[int]
    findings_chars: NotRequired[int]
    result_chars: NotRequired[int]
    steps: int
    tokens: NotRequired[int]
    tools: NotRequired[list[str]]
    transcript_chars: NotRequired[int]
    wall_s: NotRequired[int]

class ActionRequest(TypedDict):
    """One action of the task workflow."""

    action: str
    artifacts: NotRequired[list[str]]
    feedback: NotRequired[str]

class ActionResult(TypedDict):
    """What came of an action; a refusal is a problem with the word as `action_status`."""

    status: Literal['accepted']
    task: TaskPage

class AdoptRequest(TypedDict):
    """Follow a proposed version."""

    decision_id: str

class AgentRemoved(TypedDict):
    """Councils that open from here on do not seat it; those that are open keep it to their end."""

    agent_id: str
    version: int

class AgentRequest(TypedDict):
    """A seat for councils of a role that open from here on."""

    model_policy: str
    persona: NotRequired[str | None]
    role: str

class AgentView(TypedDict):
    """A seat of a pool; `busy` while a council waits for its answer."""

    agent_id: str
    status: Literal['ready', 'busy']

class AnswerRequest(TypedDict):
    """The answer to a question."""

    answer: str

class AnswersRequest(TypedDict):
    """Answers by question."""

    answers: dict[str, str]

class ApplyRequest(TypedDict):
    """Proposals to take into the story, by the keys of its advice."""

    proposals: list[str]

class ApprovalCard(TypedDict):
    """One approval with everything that its decider needs."""

    actor: str
    approval_id: str
    attempt: int
    can_decide: bool
    card: dict[str, Any]
    commit: str | None
    cost: GateCost
    councils: list[GateCouncilView]
    decided_by: str | None
    delegated: bool
    diff: GateDiff
    expires_at: str
    feedback: list[str]
    findings: list[Finding]
    gate: str
    grant_expires_at: str | None
    notes: str | None
    reason: str | None
    requested_at: str
    requested_by: str
    risk: str
    role: str
    status: Literal['requested', 'granted', 'rejected', 'expired', 'revoked', 'voided']
    story: GateStory
    subject: GateSubject
    task_title: str | None
    tests: WorkspaceSummary | None
    verdict: GateVerdict | None

class ApprovalList(TypedDict):
    """Approvals, those that end first at the front."""

    items: list[ApprovalCard]
    next_cursor: NotRequired[str | None]

class ApprovalView(TypedDict):
    """One approval and what came of it."""

    approval_id: str
    delegated: bool
    gate: str
    role: str
    status: str

class ApproveRequest(TypedDict):
    """Yes to one story: why, and what is to be minded."""

    plan_of: NotRequired[str | None]
    po_concerns: NotRequired[str | None]
    po_notes: str
    priority_adjustment: NotRequired[Literal['HIGH', 'MEDIUM', 'LOW'] | None]
    priority_reason: NotRequired[str | None]

class Artifact(TypedDict):
    """One declared output: its digest, or None when it is missing or over the cap."""

    blob: NotRequired[str | None]
    path: str
    size_bytes: NotRequired[int]
    truncated: NotRequired[bool]

class ArtifactList(TypedDict):
    """Declared outputs."""

    items: list[ArtifactView]

class ArtifactView(TypedDict):
    """One declared output."""

    missing: NotRequired[bool]
    path: str
    ref: str | None
    sizeBytes: NotRequired[int]
    truncated: NotRequired[bool]

class AskRequest(TypedDict):
    """Ask for an approval, also again after one that was rejected or that nobody answered."""

    gate: str
    story_id: str

class AuditFindingView(TypedDict):
    """One difference between what is stored and what was recorded."""

    detail: str
    subject: str
    verdict: str
    version: int | None

class AuditStatus(TypedDict):
    """The last verification by this replica; without one, null."""

    accepted: list[str]
    checkpoints: int | None
    ended_at: str | None
    events: int | None
    exported: int | None
    findings: list[AuditFindingView]
    is_clean: bool | None
    is_running: bool
    newest: int | None
    remarks: list[str]
    streams: int | None
    took_ms: int | None

class BacklogReview(TypedDict):
    """What one council says of one story; `points` is its first estimate."""

    feedback: str
    plan: list[PlanOutlineTask]
    points: int
    questions: list[str]
    risks: list[str]

class BlocksView(TypedDict):
    """What the role is told, apart by where it comes from."""

    context: str
    system: str
    tools: str

class BudgetLineView(TypedDict):
    """One limit of one scope, or a quantity without limit that was used."""

    id: str
    left: int | None
    limit: int | None
    quantity: Literal['tokens', 'output_tokens', 'calls', 'cost_microusd', 'gpu_ms', 'wall_ms']
    reserved: int
    scope: str
    spent: int

class BudgetList(TypedDict):
    """The budgets of one story, or of the platform and its projects today (UTC)."""

    day: str
    items: list[BudgetLineView]
    story_id: str | None

class BundleStats(TypedDict):
    """Numbers of what the bundle holds; `events` are all of the story up to its version."""

    decision_edges: int
    decisions: int
    events: int
    impacts: int
    roles: int

class BundleView(TypedDict):
    """A bundle, its hash, and where it can be read again while it is kept."""

    blocks: dict[str, BlocksView]
    bundle: RehydrationBundle
    generated_at: str
    hash: str
    kept_at: str | None

class CancelRequest(TypedDict):
    """End a run."""

    reason: NotRequired[str]

class CandidateRow(TypedDict):
    """A candidate with its last evidence and the ballots of the last round of voting."""

    abstain: int
    approve: int
    authors: list[str]
    candidate_id: str
    cluster_size: int
    diff_lines: int
    failed_gates: list[str]
    first_places: int
    gates_ok: bool | None
    lint_errors: int
    reject: int
    repairs_kept: int
    trusted_passed: int
    trusted_total: int
    won: bool

class CapturedArtifact(TypedDict):
    """One declared output."""

    path: str
    ref: str | None
    sizeBytes: NotRequired[int]
    truncated: NotRequired[bool]

class CaseHeader(TypedDict):
    """What is to be made."""

    acceptance_criteria: list[CriterionLine]
    constraints: dict[str, Any]
    story_id: str
    tags: list[str]
    title: str

class CeremonyReason(TypedDict):
    """Why not."""

    reason: str

class CeremonyView(TypedDict):
    """One backlog review."""

    ceremony_id: str
    councils: list[str]
    opened_at: str
    project_id: str
    reason: str | None
    status: str
    stories: list[ReviewedStory]

class ChangeItem(TypedDict):
    """One change; what is made gets its id here, so `entity_id` is for changing and removing."""

    entity_id: NotRequired[str | None]
    entity_type: Literal['DECISION', 'TASK', 'MILESTONE', 'QUESTION', 'SUMMARY']
    operation: Literal['CREATE', 'UPDATE', 'DELETE']
    payload: NotRequired[dict[str, Any]]
    reason: str

class ChangePreview(TypedDict):
    """What a change request of the story says as it is now; `outcome` is null while none was asked for."""

    body: str
    commit: str | None
    head: str
    outcome: str | None
    story_id: str
    summary: str | None
    title: str
    verdict: str

class ChangeRequest(TypedDict):
    """Changes that are recorded together, or not at all."""

    changes: list[ChangeItem]

class ChangeResult(TypedDict):
    """The version that the changes brought, a hash of them, and what each of them is about."""

    entities: list[str]
    hash: str
    version: int
    warnings: list[str]

class CheckpointList(TypedDict):
    """Checkpoints in order; `next_after` is the number to go on from."""

    items: list[CheckpointView]
    next_after: int | None

class CheckpointView(TypedDict):
    """One signed checkpoint: a note whose signature anybody can check, and what it says; null where it is damaged."""

    events: int | None
    note: str
    sequence: int
    streams: int | None
    successor: KeyView | None
    time: str | None

class ClaimRequest(TypedDict):
    """Take a task."""

    role: str

class ClaimView(TypedDict):
    """Who alone works on the task, or reviews it."""

    expires_at: str
    is_live: bool
    principal: str

class CoachFinding(TypedDict):
    """One reason for lost points. `span` is in the NFC text of `field`; several matches are joined by commas."""

    code: Literal['AC_MISSING', 'AC_NO_GHERKIN', 'NOT_INDEPENDENT', 'NOT_NEGOTIABLE', 'VALUE_UNCLEAR', 'AMBIGUOUS', 'DESC_MISSING', 'TOO_LARGE', 'NOT_TESTABLE', 'TITLE_LENGTH']
    dimension: Literal['acceptance_criteria', 'independent', 'negotiable', 'valuable', 'estimable', 'small', 'testable', 'clarity']
    field: str
    matched: str | None
    message: str
    points_lost: int
    span: list[Any] | None
    suggestion: str

class CommandView(TypedDict):
    """A command and what came of it."""

    command_id: str
    problem: NotRequired[dict[str, Any] | None]
    redactions: NotRequired[list[RedactionView]]
    result: NotRequired[dict[str, Any] | None]
    status: Literal['pending', 'done', 'refused']
    status_url: str

class CompressionView(TypedDict):
    """The summaries of long histories; ratio and recall are null before the first."""

    ratio: float | None
    recall: float | None
    recall_by_class: dict[str, float]
    summaries: int
    targets_missed: int
    tokens_after: int
    tokens_before: int

class ConstraintsAsk(TypedDict):
    """What the outcome is judged by, and how long it may take."""

    metadata: NotRequired[dict[str, str]]
    requirements: NotRequired[list[str]]
    rubric: list[RubricAsk]
    timeout_seconds: NotRequired[int]

class ConsumerList(TypedDict):
    """Groups of consumers by name."""

    items: list[ConsumerView]

class ConsumerView(TypedDict):
    """One group of consumers, and what waits for it."""

    group: str
    oldest_ms: int
    pending: int
    what: str

class ContextStats(TypedDict):
    """Figures of context. Packs, summaries and redactions are sums over the record, the rest is as of now."""

    activity: PackActivityView
    compression: CompressionView
    dropped: dict[str, int]
    packs: list[PackCell]
    projection: ProjectionView
    projects: list[str] | None
    redactions: dict[str, int]
    stories: int

class CopyRequest(TypedDict):
    """Where declared outputs are; all of them when none is named."""

    paths: NotRequired[list[str]]

class CouncilAccepted(TypedDict):
    """A council that is open; `pending` while the owner of its story has not taken the command yet."""

    council_id: str
    redactions: NotRequired[list[RedactionView]]
    status: Literal['pending', 'accepted']
    status_url: str
    story_id: str

class CouncilAsk(TypedDict):
    """A council about a story: what it is asked, who sits in it, what it may use."""

    budget: CouncilBudgetAsk
    constraints: ConstraintsAsk
    kind: NotRequired[Literal['selection', 'gate', 'estimate']]
    max_iterations: NotRequired[int | None]
    num_agents: NotRequired[int | None]
    output_kind: Literal['code_patch', 'design', 'plan', 'text']
    role: str
    roster: NotRequired[list[SeatAsk] | None]
    rounds: NotRequired[int | None]
    seed: NotRequired[int | None]
    story_id: str
    subject: NotRequired[str | None]
    task_description: str
    task_id: NotRequired[str | None]

class CouncilBudgetAsk(TypedDict):
    """What the council may use, within the budget of its story."""

    gpu_ms: NotRequired[int | None]
    tokens: int
    wall_s: int

class CouncilLineList(TypedDict):
    """Councils, those of one story in the order of opening."""

    items: list[CouncilLineView]
    next_cursor: NotRequired[str | None]

class CouncilLineView(TypedDict):
    """One council in a list."""

    council_id: str
    kind: str
    outcome: Literal['decided', 'no_decision'] | None
    output_kind: str
    percent: int | None
    phase: str | None
    project_id: str
    reason: str | None
    requested_by: str | None
    retry_of: str | None
    status: Literal['PENDING', 'IN_PROGRESS', 'COMPLETED', 'FAILED', 'TIMEOUT', 'CANCELLED']
    story_id: str
    task_id: str | None
    waits_for: list[str]
    winner: str | None

class CouncilList(TypedDict):
    """The councils of a story in the order of opening."""

    items: list[CouncilSummary]

class CouncilPage(TypedDict):
    """One council with what happened in it, and its minority report."""

    answer: Any
    asked: Any
    council: CouncilSummary
    minority_report: Any
    reasons: list[list[str]]
    record: Any
    timeline: list[TimelineView]

class CouncilReason(TypedDict):
    """Why a council is ended, or its outcome sent back."""

    reason: str

class CouncilSummary(TypedDict):
    """One council from its opening to its outcome; tokens by phase as it recorded them."""

    ballots: int
    ballots_refused: list[str]
    candidates: list[CandidateRow]
    council_id: str
    counterfactuals: dict[str, JsonValue]
    decided_in: str | None
    decision_hash: str | None
    drafts_failed: list[str]
    estimate: int | None
    estimate_rounds: list[EstimateRoundRow]
    kind: str
    minority_report: str | None
    output_kind: str
    quorum: int
    reason: str | None
    requested_by: str | None
    retry_of: str | None
    roster: list[SeatRow]
    status: str
    task_id: str | None
    tests_dropped: list[list[Any]]
    tests_kept: list[str]
    tests_passed_before: list[str] | None
    tests_written: int
    tokens: dict[str, int]
    tokens_ledger: int
    tokens_total: int
    verdict: str | None
    winner: str | None

class CoverageSummary(TypedDict):
    """Coverage of new or changed lines, percent as a decimal string."""

    new_covered: int
    new_lines: int
    new_pct: NotRequired[str | None]
    total_pct: NotRequired[str | None]

class Criterion(TypedDict):
    """One acceptance criterion."""

    ac_id: str
    text: str

class CriterionLine(TypedDict):
    """An acceptance criterion."""

    ac_id: str
    text: str

class CriterionText(TypedDict):
    """A criterion in an edit; with `ac_id` it is the one that exists, otherwise a new one."""

    ac_id: NotRequired[str | None]
    text: str

class CriticalList(TypedDict):
    """The decisions of the adopted plan, those first that most hangs on."""

    as_of: int
    items: list[CriticalRow]

class CriticalRow(TypedDict):
    """A decision of the adopted plan, and how much hangs on it."""

    affects: int
    category: str | None
    degree: int
    dependents: int
    governed_by: int
    id: str
    status: str | None
    title: str | None

class Cycle(TypedDict):
    """Decisions of which each depends on the next, and the last on the first."""

    decisions: list[str]
    length: int

class CycleList(TypedDict):
    """Circles of decisions, the shortest first."""

    as_of: int
    items: list[Cycle]

class DecisionAcceptRequest(TypedDict):
    """Say yes to a decision; the note, when there is one, has 10 characters or more."""

    note: NotRequired[str]

class DecisionEdge(TypedDict):
    """How two decisions hang together."""

    dst: str
    rel: str
    src: str

class DecisionLine(TypedDict):
    """A decision that holds or is proposed."""

    author_id: str
    created_at: str
    id: str
    rationale: str
    status: str
    title: str

class DecisionList(TypedDict):
    """Decisions in the order in which they were proposed."""

    items: list[DecisionView]

class DecisionPage(TypedDict):
    """One decision with everything that its story says of it."""

    affects: list[str]
    based_on: list[EvidenceView]
    decision: DecisionView
    links: list[LinkView]
    plan_id: str | None
    settled: SettledView | None
    settled_by_roles: list[str]
    story_id: str
    superseded: SupersededView | None
    supersedes: list[str]

class DecisionRequest(TypedDict):
    """Decide a pending approval."""

    notes: NotRequired[str]
    reason: NotRequired[str]

class DecisionView(TypedDict):
    """One decision."""

    alternatives: list[str]
    at: str
    author: str
    category: str
    council_id: str | None
    decided_by: str | None
    decision_id: str
    origin: str
    rationale: str
    status: str
    title: str

class Definitions(TypedDict):
    """One file of rules in force, and its digest."""

    content: dict[str, Any]
    digest: str
    file: str

class DelegationList(TypedDict):
    """Delegations in the order in which they were granted."""

    items: list[DelegationView]

class DelegationRequest(TypedDict):
    """Let an agent role decide a gate in stories that are started from here on."""

    delegate: str
    gate: str
    max_rigor: str
    projects: NotRequired[list[str]]
    reason: str
    valid_until: str

class DelegationView(TypedDict):
    """One delegation as it stands."""

    delegate: str
    delegation_id: str
    gate: str
    granted_at: str
    granted_by: str
    max_rigor: str
    projects: list[str]
    reason: str
    revoked_at: str | None
    revoked_by: str | None
    status: Literal['active', 'expired', 'revoked']
    valid_until: str

class DeploymentList(TypedDict):
    """Deployments and incidents, the oldest first."""

    environment: str | None
    incidents: list[IncidentView]
    items: list[DeploymentView]

class DeploymentView(TypedDict):
    """A tree that was sent to the story's environment, and how it has been since."""

    deployment_id: str
    detail: str
    environment: str
    healthy_s: int
    is_healthy: bool
    monitor_s: int
    status: str
    tree: str
    windows: int

class DerivationView(TypedDict):
    """Tasks are being derived; the plan can be read once there is an answer."""

    plan_id: str
    status: Literal['requested']
    status_url: str

class DiffView(TypedDict):
    """What differs between two trees of a story."""

    added: int
    files: list[FileDiff]
    left_out: int
    new: str
    old: str
    removed: int

class DimensionResult(TypedDict):
    """One dimension of a score: `weight` are its points of the table, `score` is 0..100 rounded down to one decimal."""

    evidence: Literal['present', 'missing', 'not_applicable', 'waived']
    limit: str | None
    name: Literal['build', 'unit', 'static', 'e2e', 'coverage', 'lint']
    score: str
    value: str | None
    weight: int

class DimensionView(TypedDict):
    """One weighted dimension."""

    evidence: str
    limit: bool | int | str | None
    name: str
    score: str
    value: bool | int | str | None
    weight: int

class DiscoverRequest(TypedDict):
    """A one-line goal."""

    goal: str
    is_empty: NotRequired[bool]
    language: NotRequired[str]
    model: NotRequired[str | None]

class DiscoveryList(TypedDict):
    """Discoveries of a project in the order of asking."""

    items: list[DiscoveryView]

class DiscoveryProposal(TypedDict):
    """What a goal could mean."""

    epic: ProposedEpic
    goal: str
    language: str
    questions: list[OpenQuestion]
    requirements: list[Requirement]
    source: Literal['template', 'model']
    stories: list[ProposedStory]

class DiscoveryView(TypedDict):
    """A goal, what was proposed for it, and what came of that."""

    discovery_id: str
    epic_id: str | None
    goal: str
    note: str | None
    project_id: str
    proposal: DiscoveryProposal
    reason: str | None
    requested_at: str
    requested_by: str
    source: str
    status: str
    story_ids: list[str]

class DroppedView(TypedDict):
    """How much of a scope did not fit."""

    ids: list[str]
    items: int
    scope: str

class EditRequest(TypedDict):
    """New values of a story's fields; those that are left out stay."""

    acceptance_criteria: NotRequired[list[CriterionText] | None]
    constraints: NotRequired[dict[str, Any] | None]
    description: NotRequired[str | None]
    reason: NotRequired[str | None]
    tags: NotRequired[list[str] | None]
    title: NotRequired[str | None]

class EgressDecision(TypedDict):
    """One connection that a run asked the egress proxy for."""

    address: NotRequired[str | None]
    allowed: bool
    at_ms: NotRequired[int]
    bytes_in: NotRequired[int]
    bytes_out: NotRequired[int]
    host: str
    port: int
    reason: str

class EndRequest(TypedDict):
    """End what runs in an environment: exactly what is named, and nothing that came after it."""

    reason: str
    revision: str

class EngineList(TypedDict):
    """The engines of config/models.yaml, in its order."""

    digest: str
    file: str
    items: list[EngineView]

class EngineView(TypedDict):
    """One engine: where it runs, what it takes, what it costs."""

    capabilities: list[str]
    engine_id: str
    external: bool
    gpus: int
    has_key: bool
    host: str | None
    kind: str
    max_concurrency: int
    max_context: int
    max_output: int
    max_waiting: int
    model: str
    preset: str | None
    price: Price | None
    rate_cap: RateCap | None
    replicas: int | None
    revision: str
    runs: Literal['server', 'actors', 'recorded', 'mock']
    tokenizer: str | None
    tool_form: str
    unpriced: bool
    weights_sha256: str | None

class Envelope(TypedDict):
    """One event exactly as it is stored: its hash covers all other fields."""

    actor: str
    body: Any
    body_base64: str
    causation: str
    command_id: str
    epoch: int
    hash: str
    id: str
    prev_hash: str
    schema_: int
    stream: str
    ts: str
    type: str
    version: int

class EnvelopeList(TypedDict):
    """Envelopes of one stream; `next_from` is the version to go on from."""

    items: list[Envelope]
    next_from: int | None

class EnvironmentList(TypedDict):
    """Every environment that is declared, in the order of `fleet.yaml`."""

    items: list[EnvironmentView]

class EnvironmentView(TypedDict):
    """One environment, and what runs there now."""

    answers: bool
    deployment_id: str | None
    ended: str | None
    environment: str
    is_healthy: bool | None
    is_running: bool
    kind: str
    port: int | None
    previous: str | None
    revision: str | None
    since: str | None
    story_id: str | None
    tree: str | None

class EpicList(TypedDict):
    """Epics in the order of creation."""

    items: list[EpicView]

class EpicPatch(TypedDict):
    """What shall be otherwise; archiving and cancelling need a reason."""

    description: NotRequired[str | None]
    goal: NotRequired[str | None]
    priority: NotRequired[int | None]
    reason: NotRequired[str]
    status: NotRequired[Literal['archived', 'cancelled'] | None]
    title: NotRequired[str | None]

class EpicText(TypedDict):
    """An epic that is to be created."""

    description: NotRequired[str]
    goal: NotRequired[str]
    priority: NotRequired[int]
    title: str

class EpicView(TypedDict):
    """One epic, with the status that follows from its stories."""

    author: str
    created_at: str | None
    description: str
    epic_id: str
    goal: str
    is_inbox: bool
    priority: int
    project_id: str
    status: str
    stories: list[str]
    title: str

class EstimateRoundRow(TypedDict):
    """One round of an estimate, without names."""

    absent: int
    iqr: int | None
    median: int | None
    round: int
    values: list[int]

class EstimateView(TypedDict):
    """The Delphi estimate; no points where too few councils gave one."""

    converged: bool
    iqr: int
    points: int | None
    rounds: int
    values: list[int]

class EventList(TypedDict):
    """Events of one story in their envelopes; `next_after` is the version to go on from."""

    items: list[dict[str, Any]]
    next_after: int | None

class EvidenceView(TypedDict):
    """What a decision is based on: id of a run, digest of a report or of a tree of the story."""

    id: str
    kind: Literal['report', 'run', 'artifact']

class FileDiff(TypedDict):
    """One path that differs; `patch` is a unified diff, null for what is no text or too large."""

    added: int
    change: str
    patch: str | None
    path: str
    removed: int

class FileEntryView(TypedDict):
    """One file of a tree."""

    mode: str
    path: str

class FileList(TypedDict):
    """The files of a tree."""

    items: list[FileEntryView]
    tree: str

class FileView(TypedDict):
    """One file; `text` is null for what is no text, or is too large."""

    blob: str
    mode: str
    path: str
    size_bytes: int
    text: str | None

class Finding(TypedDict):
    """Why points were lost: each lost point is explained by exactly one finding."""

    code: str
    dimension: str
    field: str
    matched: NotRequired[str]
    message: str
    points_lost: int
    span: NotRequired[list[Any] | None]
    suggestion: NotRequired[str]

class FindingView(TypedDict):
    """Why points were lost; `span` is in the text of `field`."""

    code: str
    dimension: str
    field: str
    matched: str
    message: str
    points_lost: int
    span: list[Any] | None
    suggestion: str

class FleetView(TypedDict):
    """The fleet as a whole."""

    is_paused: bool
    pause: PauseView | None
    projects: list[PauseView]
    version: int

class GateCost(TypedDict):
    """What the story has used so far; `cost_microusd` covers the calls that have a price."""

    calls: int
    cost_microusd: int
    gpu_ms: int
    tokens: int
    unpriced_tokens: int

class GateCouncilView(TypedDict):
    """A council behind the subject, and its minority report."""

    council: CouncilSummary
    minority_report: Any

class GateDiff(TypedDict):
    """Trees to compare, at `/api/planner/stories/{story_id}/diff?from=&to=`."""

    files: list[PathChange]
    new: str | None
    old: str | None

class GateResult(TypedDict):
    """One hard gate: `ok` is false when the evidence is missing or the limit is not met."""

    limit: str
    name: Literal['build', 'secrets', 'unit', 'static_critical', 'static_gate', 'coverage_evidence', 'coverage', 'e2e', 'lint']
    ok: bool
    value: str | None

class GateScoreView(TypedDict):
    """One hard gate."""

    limit: bool | int | str | None
    name: str
    ok: bool
    value: bool | int | str | None

class GateStory(TypedDict):
    """The story that waits."""

    disposition: str
    project_id: str
    rigor: str
    state: str
    story_id: str
    title: str
    version: int

class GateSubject(TypedDict):
    """Exactly what is decided about."""

    digest: str
    id: str
    kind: str

class GateVerdict(TypedDict):
    """Score and verdict of the tree."""

    limited_by: str | None
    reasons: list[str]
    rigor: str
    score: str
    verdict: str

class GoalRequest(TypedDict):
    """A one-line goal."""

    goal: str
    language: NotRequired[str]

class GrantRequest(TypedDict):
    """A yes."""

    notes: NotRequired[str]

class GrantView(TypedDict):
    """What a role may do with one tool; write paths bind writing, and none of them means everywhere."""

    commands: list[str]
    dbs: list[str]
    hosts: list[str]
    ops: list[str]
    write_paths: list[str]

class GraphEdge(TypedDict):
    """One relationship between nodes of the answer."""

    from_id: str
    from_label: str
    to_id: str
    to_label: str
    type: str

class GraphNode(TypedDict):
    """One node; `distance` counts relationships from the story, `props` holds short values alone."""

    distance: int
    id: str
    label: str
    props: dict[str, str | int | bool | None]
    title: str

class GuardView(TypedDict):
    """One guard now."""

    evidence: list[str]
    message: str | None
    name: str
    ok: bool

class HTTPValidationError(TypedDict):
    """HTTPValidationError."""

    detail: NotRequired[list[ValidationError]]

class Impact(TypedDict):
    """What hangs on a decision, the nearest first; a run in it would need repeating."""

    as_of: int
    decision_id: str
    items: list[ImpactRow]

class ImpactRow(TypedDict):
    """One thing that hangs on the decision, and over how many steps."""

    distance: int
    id: str
    kind: str
    state: str | None
    title: str | None

class ImpactedTask(TypedDict):
    """A task that a decision affects."""

    decision_id: str
    task_id: str
    title: str

class IncidentView(TypedDict):
    """Something that was seen to be wrong."""

    deployment_id: str | None
    incident_id: str
    status: str
    summary: str
    task_id: str | None

class InvocationView(TypedDict):
    """A tool call and where it is."""

    invocation_id: str
    outcome: NotRequired[ToolOutcome | None]
    problem: NotRequired[dict[str, Any] | None]
    status: Literal['queued', 'running', 'finished', 'unknown']
    story_id: str

class JobLine(TypedDict):
    """One line of a run, in the short form."""

    level: str
    line: str
    ts: str

class KeyView(TypedDict):
    """A notary's key, as the published line names it."""

    id: str
    name: str

class Leaf(TypedDict):
    """Where one stream ended: its version and the hash of its last event."""

    hash: str
    mark: NotRequired[LeafMark]
    stream: str
    version: int

class LetterList(TypedDict):
    """Dead letters, the oldest first."""

    items: list[LetterView]

class LetterView(TypedDict):
    """Work that failed each time it was tried, and stands still for a person."""

    attempts: int
    code: str
    first_seen: str
    last_seen: str
    letter_id: str
    reason: str
    source: str
    stream: str
    version: int

class LimitsRequest(TypedDict):
    """New limits of one scope; quantities that are left out keep theirs, null takes a limit away."""

    limits: dict[str, int | None]
    note: NotRequired[str]
    story_id: NotRequired[str | None]

class LinkView(TypedDict):
    """A relation to another decision."""

    decision_id: str
    rel: Literal['DEPENDS_ON', 'GOVERNS', 'RELATES_TO']

class LintSummary(TypedDict):
    """Lint findings that are new against the base tree."""

    errors: int
    ok: bool
    warnings: int

class LogLineView(TypedDict):
    """One line of a run."""

    level: str
    line: str
    n: int
    stream: str
    ts: str

class LogList(TypedDict):
    """Lines in their order."""

    is_over: bool
    items: list[LogLineView]
    next_line: int

class LossView(TypedDict):
    """The signed record of a loss: what checkpoints up to `sequence` attest after version `kept` is excused."""

    accepted_by: str
    attested: int
    is_new: bool
    kept: int
    lost: int
    present: int
    reason: str
    refusal: str
    sequence: int
    stream: str
    time: str

class Me(TypedDict):
    """Who the caller is."""

    principal: str
    projects: list[str] | None
    roles: list[str]

class Milestone(TypedDict):
    """One event of one story that a project remembers."""

    actor: str
    at: str
    event: str
    human: bool
    story_id: str
    story_title: str
    text: str
    version: int

class MilestoneLine(TypedDict):
    """Something worth remembering."""

    actor: str
    event: str
    ts: str

class NamedAgentList(TypedDict):
    """Named agents in the order in which they were registered."""

    items: list[NamedAgentView]

class NamedAgentView(TypedDict):
    """A named agent; `busy` while a council waits for its answer."""

    agent_id: str
    model_policy: str
    persona: str | None
    principal: str
    registered_at: str
    registered_by: str
    role: str
    status: Literal['ready', 'busy']

class NeedView(TypedDict):
    """One task needs another; `inferred` when shared keywords say so."""

    inferred: bool
    needs: str
    task_id: str

class NoteRequest(TypedDict):
    """A note for the record."""

    note: NotRequired[str]

class Nothing(TypedDict):
    """Nothing is to be said."""

    pass

class OnMalformed(TypedDict):
    """What happens with a reply that is not of the asked form."""

    repairs: NotRequired[int]

class OpenQuestion(TypedDict):
    """What the goal does not say. An answer fills the placeholder in the story that it belongs to."""

    answer: NotRequired[str | None]
    placeholder: NotRequired[str | None]
    question_id: str
    story: NotRequired[int | None]
    text: str

class OpenRequest(TypedDict):
    """Stories that are to be reviewed together."""

    project_id: NotRequired[str]
    story_ids: list[str]

class PackActivityView(TypedDict):
    """What the builder of packs did for role agents of these projects since it began; null while it is away."""

    away: str | None
    cache_hit_rate: float | None
    p95_ms: int | None
    queries: int | None
    since: str | None

class PackCell(TypedDict):
    """The packs that one role was given in one phase; sizes are tokens."""

    budget_median: int
    dropped: int
    packs: int
    phase: str
    role: str
    tokens_largest: int
    tokens_median: int
    used: float

class PackList(TypedDict):
    """The packs of every role and phase, without their text."""

    items: list[PackPage]
    story_id: str

class PackPage(TypedDict):
    """What one role sees of the story in one phase; `refused` says why it sees nothing."""

    as_of: int
    blocks: BlocksView | None
    budget: int
    counter: str | None
    dropped: list[DroppedView]
    hash: str | None
    phase: str
    redactions: dict[str, int]
    refused: str | None
    role: str
    scopes: list[str]
    story_id: str
    text: str | None
    token_count: int
    version: int

class PathChange(TypedDict):
    """One path that two trees do not have in common."""

    change: Literal['added', 'modified', 'removed']
    path: str

class PauseRequest(TypedDict):
    """Hold everything back, or the stories of one project."""

    project_id: NotRequired[str | None]
    reason: str

class PauseView(TypedDict):
    """Who holds something back since when, and why."""

    by: str
    project_id: str | None
    reason: str
    since: str

class PhaseLead(TypedDict):
    """Median time of stories in one state."""

    median_ms: int
    state: str

class PlanHeader(TypedDict):
    """The adopted plan, else the latest proposed one, which `status` says."""

    plan_id: str
    rationale: str
    status: str
    version: int

class PlanOutlineTask(TypedDict):
    """One task that a council would plan."""

    estimated_hours: NotRequired[int | None]
    role: str
    title: str

class PlanPage(TypedDict):
    """One plan version: tasks, layers, critical path, and what may start now."""

    critical_hours: int
    critical_path: list[str]
    cyclic: list[str]
    dependencies: list[NeedView]
    layers: list[list[str]]
    plan: PlanVersionView
    previous_plan_id: str | None
    ready: list[str]
    tasks: list[VersionTask]
    uncovered: list[str]

class PlanTask(TypedDict):
    """One task of a plan, with where it stands."""

    acceptance_refs: list[str]
    attempt: int
    candidate_tree: str | None
    claimed_by: str | None
    depends_on: list[str]
    description: str
    estimated_hours: int
    feedback: list[str]
    keywords: list[str]
    kind: str
    paths: list[str]
    priority: int
    risk: str
    role: str
    state: str
    task_id: str
    title: str

class PlanVersionList(TypedDict):
    """Every plan version of a story, in the order of their numbers."""

    items: list[PlanVersionView]

class PlanVersionView(TypedDict):
    """One plan version."""

    author: str
    complexity: str
    digest: str
    fits_text: bool
    plan_id: str
    rationale: str
    status: str
    version: int

class PlanView(TypedDict):
    """The adopted plan: its tasks, their dependencies and their layers."""

    dependencies: list[list[Any]]
    layers: list[list[str]]
    plan_id: str | None
    tasks: list[PlanTask]
    versions: list[PlanVersionView]

class Policy(TypedDict):
    """The chain of one role; a bare list in YAML is the chain."""

    chain: list[PolicyEntry]
    on_malformed: NotRequired[OnMalformed]
    pinned: NotRequired[bool]

class PolicyEntry(TypedDict):
    """One link of a chain: an engine and how to call it."""

    engine_id: str
    json_schema: NotRequired[Literal['required', 'preferred', 'off']]
    max_latency_ms: NotRequired[int | None]
    max_tokens: int
    max_tokens_per_step: NotRequired[int | None]
    temperature: NotRequired[str | None]
    timeout_s: int
    top_p: NotRequired[str | None]

class PolicyList(TypedDict):
    """Which role uses which engines; a role without a row uses `default`."""

    digest: str
    file: str
    items: list[PolicyView]

class PolicyView(TypedDict):
    """The chain of one role, best engine first; `profile` stands for the engine that a run names."""

    policy: Policy
    role: str

class PoolList(TypedDict):
    """The pools in force, by role."""

    items: list[PoolView]

class PoolRemoved(TypedDict):
    """The role has no pool any more: councils that open from here on have the defaults."""

    role: str
    version: int

class PoolRequest(TypedDict):
    """How councils of a role are staffed from here on."""

    agent_type: NotRequired[Literal['MOCK', 'VLLM', 'RAY_VLLM'] | None]
    kind: NotRequired[str | None]
    model_policy: NotRequired[str | None]
    modes: NotRequired[list[str]]
    num_agents: NotRequired[int]

class PoolView(TypedDict):
    """A pool as it is in force, and what its seats do now."""

    agents: list[AgentView]
    kind: str
    model_policy: str | None
    modes: list[str]
    num_agents: int
    role: str
    set_at: str | None
    set_by: str | None
    status: Literal['active', 'idle', 'busy']

class Price(TypedDict):
    """What an engine costs, in 1e-6 USD per million tokens."""

    in_microusd_per_mtok: int
    out_microusd_per_mtok: int

class ProjectChanges(TypedDict):
    """What shall be otherwise in a project; what is left out stays."""

    constraints: NotRequired[dict[str, Any] | None]
    default_lifecycle: NotRequired[str | None]
    default_rigor: NotRequired[Literal['L0', 'L1', 'L2', 'L3'] | None]
    description: NotRequired[str | None]
    languages: NotRequired[list[str] | None]
    repo: NotRequired[RepoText | None]
    status: NotRequired[Literal['active', 'archived'] | None]
    title: NotRequired[str | None]

class ProjectList(TypedDict):
    """Projects by id."""

    items: list[ProjectView]
    next_cursor: NotRequired[str | None]

class ProjectMetrics(TypedDict):
    """Quality and performance across stories; shares are between 0 and 1, null where nothing is measured."""

    cancelled: int
    days: int
    first_try_share: float | None
    gpu_ms_per_solved: int | None
    human_wait_ms: int
    incidents: int
    lead: list[PhaseLead]
    project_id: str
    reworks: int
    solved: int
    solved_share: float | None
    stories: int
    tasks_done: int
    tokens: int
    tokens_per_solved: int | None
    trend: list[TrendView]

class ProjectSummary(TypedDict):
    """A project, by the stories that are in it."""

    epics: list[str]
    open: int
    project_id: str
    states: dict[str, int]
    stories: int

class ProjectSummaryList(TypedDict):
    """Projects by id."""

    items: list[ProjectSummary]

class ProjectText(TypedDict):
    """A project that is to be created."""

    constraints: NotRequired[dict[str, Any]]
    default_lifecycle: NotRequired[str]
    default_rigor: NotRequired[Literal['L0', 'L1', 'L2', 'L3']]
    description: NotRequired[str]
    languages: NotRequired[list[str]]
    repo: NotRequired[RepoText | None]
    title: str

class ProjectTimeline(TypedDict):
    """Milestones, the newest first; `of` counts those of the whole period."""

    items: list[Milestone]
    of: int
    project_id: str

class ProjectView(TypedDict):
    """One project."""

    author: str
    constraints: dict[str, Any]
    created_at: str | None
    default_lifecycle: str
    default_rigor: str
    description: str
    epics: int
    inbox: str | None
    languages: list[str]
    project_id: str
    repo: dict[str, Any] | None
    status: str
    title: str
    version: int

class ProjectionView(TypedDict):
    """How far the decision graph is behind the record of these stories; both null while the graph is away."""

    away: str | None
    lag_events: int | None
    streams_behind: int | None

class Proof(TypedDict):
    """Event `version` of the leaf's stream: all entries up to the leaf, the leaf's path in the tree, the checkpoint."""

    checkpoint: str
    entries: list[_Entry]
    format: NotRequired[Literal['swe-fleet/proof/1']]
    index: int
    leaf: Leaf
    path: list[str]
    version: int

class Proposal(TypedDict):
    """One change that the coach offers: a wrapped title, markers at vague words, or a template to fill in."""

    field: str
    key: str
    kind: str
    texts: list[str]

class ProposalAcceptRequest(TypedDict):
    """The proposal is taken."""

    note: NotRequired[str]

class ProposalRejectRequest(TypedDict):
    """Why."""

    reason: str

class ProposeRequest(TypedDict):
    """A decision with its reasons."""

    affects: NotRequired[list[str]]
    alternatives: NotRequired[list[str]]
    based_on: NotRequired[list[EvidenceView]]
    category: Literal['ARCHITECTURE', 'INFRASTRUCTURE', 'SECURITY', 'QUALITY', 'TESTING', 'DATA', 'SCOPE', 'PROCESS', 'IMPLEMENTATION']
    links: NotRequired[list[LinkView]]
    rationale: str
    title: str

class ProposedEpic(TypedDict):
    """The epic that the stories shall belong to."""

    description: str
    goal: str
    title: str

class ProposedStory(TypedDict):
    """One story as it would be created; `depends_on` are positions of earlier stories."""

    acceptance_criteria: list[str]
    depends_on: NotRequired[list[int]]
    description: str
    is_scaffold: NotRequired[bool]
    title: str

class QuestionLine(TypedDict):
    """A question that nobody answered yet."""

    id: str
    severity: str
    text: str

class QuestionList(TypedDict):
    """Questions in the order in which they were asked."""

    items: list[QuestionView]

class QuestionRequest(TypedDict):
    """A question about a story."""

    kind: NotRequired[Literal['question', 'clarification', 'change_request']]
    severity: NotRequired[Literal['normal', 'blocking']]
    text: str

class QuestionView(TypedDict):
    """One question and its answer."""

    answer: str | None
    kind: str
    question_id: str
    severity: str
    text: str

class RateCap(TypedDict):
    """Most that may be asked within a minute; an absent figure is no limit."""

    requests_per_min: NotRequired[int | None]
    tokens_per_min: NotRequired[int | None]

class ReasonRequest(TypedDict):
    """Why."""

    reason: str

class RedactionView(TypedDict):
    """Secrets that were taken out of a field of the request before anything was recorded."""

    count: int
    field: str
    kind: str

class RefineChange(TypedDict):
    """One proposal. `span` is in the text of `field` as it was before this change; a question changes no text."""

    field: str
    kind: Literal['wrap', 'clarify', 'template', 'question']
    span: list[Any] | None
    text: str

class RefinedStory(TypedDict):
    """What refine proposes; nothing is stored until somebody sends it as an edit."""

    acceptance_criteria: list[str]
    changes: list[RefineChange]
    description: str
    score_after: int
    score_before: int
    title: str

class RehydrateRequest(TypedDict):
    """For whom, and how much."""

    include_summaries: NotRequired[bool]
    include_timeline: NotRequired[bool]
    min_version: NotRequired[int]
    persist_bundle: NotRequired[bool]
    roles: NotRequired[list[str]]
    timeline_events: NotRequired[int]
    ttl_s: NotRequired[int]

class RehydrationBundle(TypedDict):
    """The story at one version for several roles. The same version and request give the same bundle."""

    as_of: int
    denied: list[str]
    packs: dict[str, RolePack]
    phase: str
    stats: BundleStats
    story_id: str
    timeline: list[TimelineLine]

class RejectPlanRequest(TypedDict):
    """Do not follow a proposed version."""

    reason: str

class RejectRequest(TypedDict):
    """A no, and why; `back` names the event of the lifecycle that takes the story back at once."""

    back: NotRequired[str | None]
    reason: str

class RepoText(TypedDict):
    """The repository that the stories of a project work on."""

    default_branch: NotRequired[str]
    provider: NotRequired[str]
    url: str

class ReportToScore(TypedDict):
    """A report of schema 1 and the level that it is judged at."""

    report: dict[str, Any]
    rigor: str

class ReportedList(TypedDict):
    """Reports in the order of their recording."""

    items: list[ReportedView]
    next_after: NotRequired[int | None]

class ReportedView(TypedDict):
    """One run of the pipeline on one tree, as it was recorded."""

    complete: bool
    recorded_at: str
    report_digest: str
    run_id: str
    summary: WorkspaceSummary
    task_id: str | None
    tree: str
    version: int

class Requirement(TypedDict):
    """One thing that shall hold; `stories` are the positions of those that bring it."""

    stories: list[int]
    text: str

class ResolveRequest(TypedDict):
    """What came of a step that nobody knows the end of."""

    note: str
    outcome: Literal['happened', 'not_happened']

class RestoreRequest(TypedDict):
    """Go back to an earlier tree of the story."""

    checkpoint: str
    reason: str

class ResumeRequest(TypedDict):
    """Let everything go on, or the stories of one project."""

    note: NotRequired[str]
    project_id: NotRequired[str | None]

class ReviewView(TypedDict):
    """What one council said of one story; `failed` says why it said nothing."""

    failed: str | None
    review: BacklogReview | None
    role: str

class ReviewedStory(TypedDict):
    """One story of the review: what was said, what it takes, and what was decided."""

    estimate: EstimateView | None
    plan_id: str | None
    po_concerns: str | None
    po_notes: str | None
    priority_adjustment: str | None
    priority_reason: str | None
    reason: str | None
    result: Literal['PENDING', 'APPROVED', 'REJECTED']
    reviews: list[ReviewView]
    story_id: str

class RevokeRequest(TypedDict):
    """A yes is taken back before it was used."""

    reason: str

class RigorRequest(TypedDict):
    """Work at another rigor level."""

    reason: str
    rigor: str

class RoleList(TypedDict):
    """The roles and profiles of config/roles.yaml, by name."""

    digest: str
    file: str
    items: list[RoleView]

class RolePack(TypedDict):
    """What one role is told; milestones are in chronological order."""

    case_header: CaseHeader
    decision_dependencies: list[DecisionEdge]
    decisions_relevant: list[DecisionLine]
    impacted_tasks: list[ImpactedTask]
    last_summary: str | None
    open_questions: list[QuestionLine]
    plan_header: PlanHeader | None
    recent_milestones: list[MilestoneLine]
    role: str
    role_tasks: list[TaskLine]
    token_budget_hint: int

class RoleView(TypedDict):
    """A role with everything resolved that it inherits."""

    actions: list[str]
    actor: str
    acts: Acting | None
    assignable: bool
    council_weight: int
    lineage: list[str]
    model_policy: str
    name: str
    phases: list[str]
    prompt: str
    scope: str
    sees_decisions: list[str]
    sees_stories: str
    tools: dict[str, GrantView]

class RubricAsk(TypedDict):
    """One thing that the outcome is judged by."""

    name: str
    text: str
    weight: NotRequired[int]

class RunList(TypedDict):
    """Runs and tool calls, the newest first."""

    items: list[RunView]
    next_cursor: NotRequired[str | None]

class RunView(TypedDict):
    """One run or tool call of a story."""

    as_role: str
    council_id: str | None
    excerpt: str | None
    exit_code: int | None
    kind: str
    logs_url: str | None
    principal: str
    reason: str | None
    run_id: str | None
    started_at: str
    status: str
    step_id: str
    task_id: str | None
    what: str

class ScopeRequest(TypedDict):
    """Which scopes somebody means to give to a role in a phase."""

    phase: str
    provided: NotRequired[list[str]]
    role: str

class ScopeVerdict(TypedDict):
    """Whether these are exactly the scopes of the cell."""

    allowed: bool
    extra: list[Literal['CASE_HEADER', 'PLAN_HEADER', 'DECISIONS_GLOBAL', 'DECISIONS_GLOBAL_MIN', 'DECISIONS_RELEVANT_ROLE', 'DEPS_DECISIONS', 'DEPS_RELEVANT', 'SUBTASKS_ALL', 'SUBTASKS_ALL_MIN', 'SUBTASKS_ROLE', 'SUBTASKS_ROLE_MIN', 'MILESTONES', 'SUMMARY_LAST']]
    missing: list[Literal['CASE_HEADER', 'PLAN_HEADER', 'DECISIONS_GLOBAL', 'DECISIONS_GLOBAL_MIN', 'DECISIONS_RELEVANT_ROLE', 'DEPS_DECISIONS', 'DEPS_RELEVANT', 'SUBTASKS_ALL', 'SUBTASKS_ALL_MIN', 'SUBTASKS_ROLE', 'SUBTASKS_ROLE_MIN', 'MILESTONES', 'SUMMARY_LAST']]

class ScoreList(TypedDict):
    """Reports and scores by tree."""

    items: list[ScoreView]

class ScoreRequest(TypedDict):
    """A text, and the rigor whose minimum it is measured against."""

    ac: NotRequired[list[str]]
    brief: NotRequired[str]
    language: NotRequired[str]
    rigor: NotRequired[str]
    title: str

class ScoreView(TypedDict):
    """What was measured of one tree, and the verdict."""

    complete: bool
    dimensions: list[DimensionView]
    gates: list[GateScoreView]
    is_current: bool
    limited_by: str | None
    reasons: list[str]
    report_digest: str | None
    rigor: str | None
    run_id: str
    score: str | None
    summary: WorkspaceSummary | None
    tree: str
    verdict: str | None

class SeatAsk(TypedDict):
    """A seat: `developer-001`, with the principal `agent:developer-001` and the model policy of its role."""

    can_propose: NotRequired[bool]
    can_vote: NotRequired[bool]
    member_id: str
    model_policy: str
    principal: str
    prompt_variant: NotRequired[int]
    role: str
    temperature: str
    test_author: NotRequired[bool]
    veto: NotRequired[bool]
    weight: NotRequired[int]

class SeatRow(TypedDict):
    """A member of the council."""

    member_id: str
    model_policy: str
    principal: str
    proposes: bool
    role: str
    votes: bool
    writes_tests: bool

class ServiceReady(TypedDict):
    """How it is found out that a side service can be used: this command ends with 0."""

    argv: list[str]
    timeout_s: NotRequired[int]

class SessionRequest(TypedDict):
    """Open a tool session."""

    read_only: NotRequired[bool]
    role: str
    story_id: str
    task_id: NotRequired[str | None]

class SessionView(TypedDict):
    """A tool session."""

    epoch: int
    idle_s: NotRequired[int]
    phase: str
    read_only: bool
    role: str
    session_id: str
    story_id: str
    task_id: str | None
    tools: list[str]

class SettledView(TypedDict):
    """How a decision was settled."""

    as_role: str
    at: str
    by: str
    said: str | None
    verdict: Literal['accepted', 'rejected']

class StartRequest(TypedDict):
    """Start the work on a story."""

    delegate: NotRequired[list[str]]
    model: NotRequired[str | None]
    ref: NotRequired[str | None]
    repo: str

class StaticSummary(TypedDict):
    """Findings of static analysis that are new against the base tree."""

    gate: Literal['OK', 'WARN', 'ERROR', 'NONE']
    new_critical: int
    new_major: int
    new_minor: NotRequired[int]
    ok: bool

class Stay(TypedDict):
    """How long tasks were in a state, all visits of a task together; seconds."""

    median_s: int
    p90_s: int
    tasks: int

class StoriesRequest(TypedDict):
    """The stories of a review that has not begun."""

    story_ids: list[str]

class StoryAdvice(TypedDict):
    """What the coach says of a story as it is: its score with findings, what it offers, and what it asks."""

    proposals: list[Proposal]
    questions: list[str]
    refined: RefinedStory
    score: StoryScore
    version: int

class StoryGraph(TypedDict):
    """Nodes by (distance, label, id) and the relationships among them; `left_out` counts nodes over the bound."""

    edges: list[GraphEdge]
    left_out: int
    nodes: list[GraphNode]
    story_id: str

class StoryLine(TypedDict):
    """One story in a list."""

    created_ms: NotRequired[int]
    disposition: str
    dor_ok: NotRequired[bool]
    epic_id: NotRequired[str]
    gates: NotRequired[list[str]]
    is_paused: NotRequired[bool]
    is_started: NotRequired[bool]
    parked: NotRequired[str | None]
    priority: NotRequired[int]
    project_id: NotRequired[str]
    rigor: str
    score: str | None
    state: str
    story_id: str
    tags: NotRequired[list[str]]
    tasks: NotRequired[int]
    tasks_done: NotRequired[int]
    title: str
    tokens: NotRequired[int]
    updated_ms: NotRequired[int]
    version: int
    waiting_for: str | None

class StoryList(TypedDict):
    """One page of stories."""

    items: list[StoryLine]
    next_cursor: NotRequired[str | None]

class StoryScore(TypedDict):
    """How ready a story is: `score` = 100 - what the findings lost."""

    content_digest: str
    dor_ok: bool
    findings: list[CoachFinding]
    score: int
    scorer_version: int
    threshold: int

class StorySuggestion(TypedDict):
    """A proposed story; nothing is stored until somebody creates it."""

    acceptance_criteria: list[str]
    description: str
    questions: list[str]
    source: Literal['template', 'model']
    title: str

class StoryView(TypedDict):
    """A story as the API shows it."""

    acceptance_criteria: list[Criterion]
    approvals: list[ApprovalView]
    author: str
    base_tree: str | None
    calls: int
    closed: bool
    commit: str | None
    constraints: dict[str, Any]
    created_at: str
    description: str
    disposition: str
    dor_ok: bool
    epic_id: str
    findings: list[FindingView]
    is_paused: bool
    is_started: bool
    language: str
    lifecycle: str
    model: str | None
    open_questions: int
    park_cause: str | None
    parked: str | None
    plan_id: str | None
    priority: int
    project_id: str
    redactions: NotRequired[list[RedactionView]]
    rigor: str
    score: str | None
    state: str
    story_id: str
    tags: list[str]
    tasks: list[TaskView]
    threshold: str | None
    title: str
    tokens: int
    tree: str | None
    unresolved_steps: list[str]
    updated_at: str
    version: int
    waiting_for: str | None

class SuiteRunView(TypedDict):
    """One report: the tests ran once on one tree."""

    at: str
    is_whole: bool
    task_id: str | None
    tree: str
    version: int

class SupersedeRequest(TypedDict):
    """Put another accepted decision in the place of this one."""

    by_decision_id: str
    reason: str

class SupersededView(TypedDict):
    """What stands in its place."""

    at: str
    by: str | None
    by_decision_id: str
    reason: str | None

class TaskArtifacts(TypedDict):
    """Files and folders that are kept, as absolute paths below /workspace."""

    paths: NotRequired[list[str]]

class TaskCaptured(TypedDict):
    """What was kept of a run."""

    artifacts: NotRequired[list[CapturedArtifact]]
    logsRef: NotRequired[str | None]
    truncated: NotRequired[bool]

class TaskContext(TypedDict):
    """For which story and task the run is, and in which role."""

    case_id: str
    hydration_refs: NotRequired[list[dict[str, str]]]
    role: str
    scope: NotRequired[list[str]]
    task_id: NotRequired[str | None]

class TaskDraft(TypedDict):
    """One task of a plan that a person writes; values out of bounds are all listed in the refusal."""

    acceptance_refs: list[str]
    depends_on: NotRequired[list[int]]
    description: str
    estimated_hours: int
    keywords: list[str]
    kind: str
    notes: NotRequired[str]
    paths: NotRequired[list[str]]
    priority: int
    replaces: NotRequired[str | None]
    risk: NotRequired[Literal['low', 'medium', 'high']]
    role: str
    suggested_tech: NotRequired[list[str]]
    title: str

class TaskEditRequest(TypedDict):
    """New values of a task's fields; those that are left out stay. The others are fixed by the plan."""

    acceptance_refs: NotRequired[Any]
    depends_on: NotRequired[Any]
    description: NotRequired[Any]
    estimated_hours: NotRequired[int | None]
    keywords: NotRequired[list[str] | None]
    kind: NotRequired[Any]
    notes: NotRequired[str | None]
    paths: NotRequired[Any]
    priority: NotRequired[int | None]
    risk: NotRequired[Literal['low', 'medium', 'high'] | None]
    role: NotRequired[Any]
    suggested_tech: NotRequired[list[str] | None]
    title: NotRequired[Any]

class TaskEstimateView(TypedDict):
    """What a council thinks that the task takes; values without names, rising."""

    converged: bool
    council_id: str | None
    iqr: str
    points: int
    rounds: int
    values: list[int]

class TaskEvidenceView(TypedDict):
    """What is on record about its work."""

    candidate_tree: str | None
    councils: list[str]
    merged_commit: str | None
    run_id: str | None
    runs: list[str]
    score: str | None
    verdict: str | None

class TaskInput(TypedDict):
    """The files that the run starts from."""

    patchDigest: NotRequired[str | None]
    treeDigest: NotRequired[str | None]

class TaskLine(TypedDict):
    """A task of the role."""

    acceptance_refs: list[str]
    depends_on: list[str]
    description: str
    kind: str
    paths: list[str]
    priority: int
    state: str
    task_id: str
    title: str

class TaskList(TypedDict):
    """The tasks of a story."""

    items: list[PlanTask]

class TaskMetadata(TypedDict):
    """What is known about a run beside its end."""

    backend: NotRequired[str]
    case_id: str
    duration: NotRequired[int]
    finishedAt: NotRequired[str | None]
    imageDigest: NotRequired[str | None]
    key: NotRequired[str | None]
    limits: NotRequired[dict[str, Any]]
    runId: str
    startedAt: NotRequired[str | None]
    task_id: NotRequired[str | None]
    treeIn: NotRequired[str | None]
    treeOut: NotRequired[str | None]
    usage: NotRequired[dict[str, int]]

class TaskMount(TypedDict):
    """What is seen beside the workspace."""

    readOnly: NotRequired[bool]
    source: NotRequired[str]
    target: str
    type: Literal['bind', 'tmpfs', 'blob']

class TaskMoveView(TypedDict):
    """One step of the task."""

    action: Literal['ASSIGN_TO_DEVELOPER', 'COMMIT_CODE', 'AUTO_ROUTE_TO_ARCHITECT', 'CLAIM_REVIEW', 'APPROVE_DESIGN', 'REJECT_DESIGN', 'REVISE_CODE', 'AUTO_ROUTE_TO_QA', 'CLAIM_TESTING', 'APPROVE_TESTS', 'REJECT_TESTS', 'AUTO_ROUTE_TO_PO', 'APPROVE_STORY', 'REJECT_STORY', 'REQUEST_REWORK', 'AUTO_COMPLETE', 'MERGE_FAILED', 'DISCARD_TASK', 'RESTORE', 'RELEASE_CLAIM']
    actor_type: str
    at: str
    evidence: list[str]
    feedback: str | None
    from_state: str
    principal: str
    role: str
    to_state: str
    version: int

class TaskNetwork(TypedDict):
    """What the run may reach."""

    hosts: NotRequired[list[str]]
    mode: NotRequired[Literal['none', 'allow']]

class TaskPage(TypedDict):
    """One task in full."""

    acceptance_refs: list[str]
    attempt: int
    author: str | None
    claim: ClaimView | None
    depends_on: list[str]
    description: str
    estimate: TaskEstimateView | None
    estimated_hours: int
    evidence: TaskEvidenceView
    feedback: list[str]
    history: list[TaskMoveView]
    keywords: list[str]
    kind: str
    notes: str
    paths: list[str]
    plan_id: str
    points: int | None
    priority: int
    reviewers: list[str]
    risk: str
    role: str
    state: str
    status: str
    story_id: str
    suggested_tech: list[str]
    task_id: str
    title: str
    version: int
    work_author: str | None

class TaskResources(TypedDict):
    """What the run may use. One that is not named is the smaller of its default and the cap."""

    cpu: NotRequired[str]
    disk: NotRequired[str]
    gpu: NotRequired[int]
    memory: NotRequired[str]
    pids: NotRequired[int]

class TaskResult(TypedDict):
    """How a run ended, or where it is."""

    captured: NotRequired[TaskCaptured]
    exitCode: NotRequired[int | None]
    metadata: TaskMetadata
    problem: NotRequired[dict[str, Any] | None]
    reason: NotRequired[Literal['ok', 'exit_nonzero', 'signal', 'oom_killed', 'pids_limit', 'disk_limit', 'output_limit', 'timeout', 'idle_timeout', 'cancelled', 'config', 'image_unavailable', 'mount_refused', 'sandbox_lost', 'service_unavailable'] | None]
    status: Literal['pending', 'running', 'passed', 'failed', 'error', 'timeout', 'cancelled']

class TaskService(TypedDict):
    """A program beside the command."""

    argv: NotRequired[list[str]]
    env_prefix: str
    kind: str
    name: str
    ready: NotRequired[ServiceReady | None]
    version: NotRequired[str | None]

class TaskSpec(TypedDict):
    """One run as the outside asks for it."""

    artifacts: NotRequired[TaskArtifacts]
    cmd: NotRequired[list[str]]
    context: TaskContext
    effect: NotRequired[Literal['PURE', 'KEYED', 'UNSAFE'] | None]
    env: NotRequired[dict[str, Any]]
    image: str
    input: NotRequired[TaskInput]
    key: NotRequired[str | None]
    mounts: NotRequired[list[TaskMount]]
    network: NotRequired[TaskNetwork]
    resources: NotRequired[TaskResources]
    services: NotRequired[list[TaskService]]
    timeouts: NotRequired[TaskTimeouts]

class TaskTimeouts(TypedDict):
    """Seconds."""

    graceSec: NotRequired[int]
    idleSec: NotRequired[int]
    overallSec: NotRequired[int]

class TaskView(TypedDict):
    """One task and where it stands."""

    role: str
    state: str
    task_id: str
    title: str

class TestRow(TypedDict):
    """One test; `results` stand in the order of the reports, null where it did not run."""

    is_flaky: bool
    is_known_failing: bool
    message: str
    results: list[str | None]
    test_id: str

class TestSummary(TypedDict):
    """Counts of one test stage."""

    errored: int
    failed: int
    passed: int
    skipped: int

class TestTable(TypedDict):
    """Tests by name over reports, the oldest report first; failing tests come first, then flaky ones."""

    items: list[TestRow]
    left_out: int
    reports: list[SuiteRunView]

class TextRequest(TypedDict):
    """The text of a story that need not exist."""

    ac: NotRequired[list[str]]
    brief: NotRequired[str]
    language: NotRequired[str]
    title: str

class TicketView(TypedDict):
    """A run that was asked for."""

    status: str
    taskId: str

class TimelineLine(TypedDict):
    """One of the last events, in words."""

    actor: str
    event: str
    text: str
    ts: str
    version: int

class TimelineList(TypedDict):
    """Events in words, in order; `next_after` is the version to go on from."""

    items: list[TimelineView]
    next_after: int | None

class TimelineView(TypedDict):
    """One event in words."""

    actor: str
    at: str
    event: str
    human: bool
    text: str
    version: int

class ToolCall(TypedDict):
    """What the caller asks for. Any other field, such as `approved`, is refused."""

    args: NotRequired[dict[str, JsonValue]]
    op: str
    tool: str

class ToolList(TypedDict):
    """Operations, and the digest of the policy that declares them."""

    items: list[ToolView]
    policy_digest: str

class ToolOutcome(TypedDict):
    """How a call that was allowed ended. A non-zero exit is an outcome; a broken sandbox is an exception instead."""

    artifacts: NotRequired[list[Artifact]]
    content: NotRequired[JsonValue]
    egress: NotRequired[list[EgressDecision]]
    exit_code: NotRequired[int | None]
    outcome: Literal['succeeded', 'failed', 'timed_out', 'cancelled']
    output: NotRequired[str | None]
    reason: NotRequired[str]
    run_log: NotRequired[str | None]
    text: NotRequired[str]
    tree_out: NotRequired[str | None]
    unmet: NotRequired[list[str]]

class ToolView(TypedDict):
    """One declared operation."""

    access: str
    approval: str
    approver_role: str
    args: dict[str, Any]
    effect: str
    name: str
    op: str
    output_limit_kb: int
    risk: str
    scope: str
    side_effects: str
    timeout_s: int
    tool: str

class TransitionList(TypedDict):
    """The events that are legal in the story's state."""

    items: list[TransitionView]
    state: str

class TransitionRequest(TypedDict):
    """Fire an event of the story's lifecycle."""

    actor: NotRequired[str | None]
    event: str
    reason: NotRequired[str]

class TransitionView(TypedDict):
    """One event that is legal now."""

    by: list[str]
    event: str
    gate: str | None
    guards: list[GuardView]
    is_open: bool
    kind: str
    needs_person: bool
    to: str

class TreeCheckpointList(TypedDict):
    """Checkpoints, the oldest first."""

    items: list[TreeCheckpointView]
    restoring: str | None

class TreeCheckpointView(TypedDict):
    """A tree of the story that a person can go back to."""

    checkpoint_id: str
    is_present: bool
    note: str
    saved_at: str
    tasks: dict[str, str]
    tree: str
    version: int

class TrendView(TypedDict):
    """What was last measured of one story."""

    at: str
    coverage_pct: float | None
    score: float
    story_id: str
    story_title: str
    verdict: str

class UsageList(TypedDict):
    """The ledger by one key."""

    group_by: str
    items: list[UsageSumView]
    story_id: str | None

class UsageSumView(TypedDict):
    """Usage with one value of the key. Tokens without a price are listed as such, never as a cost of 0."""

    calls: int
    cost_microusd: int
    gpu_ms: int
    key: str
    latency_ms: int
    steps: int
    tokens_cached: int
    tokens_in: int
    tokens_out: int
    tokens_unpriced: int

class ValidationError(TypedDict):
    """ValidationError."""

    ctx: NotRequired[dict[str, Any]]
    input: NotRequired[Any]
    loc: list[str | int]
    msg: str
    type: str

class VersionTask(TypedDict):
    """One task as a version holds it, and where it stands now."""

    acceptance_refs: list[str]
    depends_on: list[str]
    description: str
    estimated_hours: int
    keywords: list[str]
    kind: str
    notes: str
    paths: list[str]
    points: int | None
    priority: int
    risk: str
    role: str
    state: str | None
    status: str | None
    suggested_tech: list[str]
    task_id: str
    title: str

class WaitingTask(TypedDict):
    """A task that waits for somebody."""

    overdue: bool
    overdue_s: int | None
    priority: int
    role: str
    since: str | None
    state: str
    story_id: str
    story_title: str
    task_id: str
    title: str
    waits_for: str

class WaitingTaskList(TypedDict):
    """Tasks that wait, or that are overdue; those of the oldest stories first."""

    items: list[WaitingTask]

class WorkflowStats(TypedDict):
    """Where stories and tasks stand."""

    dispositions: dict[str, int]
    first_try: dict[str, float | None]
    gates: dict[str, int]
    open_claims: int
    overdue: int
    parked: dict[str, int]
    paused: int
    rejections: int
    sla_breaches: int
    stays: dict[str, Stay]
    stories: dict[str, int]
    tasks: dict[str, int]

class WorkspaceScore(TypedDict):
    """The verdict on one report at one level and everything that explains it."""

    dimensions: list[DimensionResult]
    gates: list[GateResult]
    inconsistent: bool
    limited_by: Literal['L0', 'L1', 'L2', 'L3']
    reasons: list[str]
    rigor: Literal['L0', 'L1', 'L2', 'L3']
    run_id: str
    score: str
    tree_digest: str
    verdict: Literal['pass', 'warn', 'block']
    waivers: list[Literal['build', 'unit', 'static', 'e2e', 'coverage', 'lint']]

class WorkspaceSummary(TypedDict):
    """Sections of the report in short; None is missing evidence, never zero."""

    build_ok: NotRequired[bool | None]
    coverage: NotRequired[CoverageSummary | None]
    e2e: NotRequired[TestSummary | None]
    lint: NotRequired[LintSummary | None]
    secrets_found: NotRequired[int | None]
    static: NotRequired[StaticSummary | None]
    unit: NotRequired[TestSummary | None]

class WritePlanRequest(TypedDict):
    """A plan version by hand, new or edited."""

    previous_plan_id: NotRequired[str | None]
    rationale: str
    tasks: list[TaskDraft]

class _Entry(TypedDict):
    """_Entry."""

    fields: dict[str, str]
    id: str
