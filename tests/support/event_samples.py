"""One realistic payload per event type.

`python -m tests.support.event_samples` writes the golden file of each type and schema that has none yet, and the list
of fields. A golden file that exists is never changed: stored events live forever (EV-30).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet.events.approval import (
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRejected,
    ApprovalRequested,
    ApprovalRevoked,
    Subject,
)
from fleet.events.budget import BudgetExhausted, BudgetScope, BudgetSet, BudgetWarning, UsageAdjusted
from fleet.events.codec import encode
from fleet.events.context import ContextChange, ContextChanged, ContextPackBuilt, DroppedScope, SummaryRecorded
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilBudget,
    CouncilCancelled,
    CouncilDecided,
    CouncilOpened,
    CouncilUndecided,
    CritiqueReceived,
    DraftFailed,
    DraftReceived,
    DroppedTest,
    EstimateCast,
    Evidence,
    EvidenceGate,
    EvidenceRecorded,
    RepairReceived,
    RosterMember,
    RoundOpened,
    TestsAuthored,
    TestsFiltered,
)
from fleet.events.decision import (
    DecisionAccepted,
    DecisionLink,
    DecisionLinked,
    DecisionProposed,
    DecisionRejected,
    DecisionSuperseded,
    EvidenceRef,
)
from fleet.events.payload import Payload
from fleet.events.plan import (
    Blocker,
    CheckpointSaved,
    Dependency,
    PlanAdopted,
    PlanProblem,
    PlanProposed,
    PlanRejected,
    PlanStalled,
    Task,
    TaskDecision,
    TaskDerivationFailed,
    TaskDerivationRequested,
)
from fleet.events.platform import (
    AccessDenied,
    AgentRegistered,
    AgentUnregistered,
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
    ProjectRepo,
    ProjectUpdated,
    StoryTombstoned,
)
from fleet.events.registry import EVENT_TYPES
from fleet.events.report import Orphan, OwnershipTaken, ReportGenerated, Traceability
from fleet.events.step import (
    Cost,
    ModelFallbackUsed,
    PolicyRef,
    Provenance,
    Reserve,
    SessionEnded,
    SessionForked,
    SessionStopped,
    SessionTold,
    StepArtifact,
    StepFinished,
    StepOutcomeUnknown,
    StepResolved,
    StepStarted,
    StuckDetected,
    ToolDenied,
)
from fleet.events.story import (
    AcceptanceCriterion,
    ConfigMigrated,
    CriterionWaived,
    Finding,
    GuardResult,
    MilestoneReached,
    QuestionAnswered,
    QuestionRaised,
    RepoSource,
    RigorChanged,
    RunDelegation,
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
    Topic,
    TransitionRefused,
)
from fleet.events.task import (
    FileChange,
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
    CoverageSummary,
    DeploymentRecorded,
    DimensionScore,
    DimensionWaived,
    DocFile,
    DocsProduced,
    GateScore,
    HealthCheck,
    HealthObserved,
    IncidentClosed,
    IncidentOpened,
    LintSummary,
    StaticSummary,
    TestSummary,
    WorkspaceReported,
    WorkspaceScored,
    WorkspaceSummary,
)
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StepId, StoryId

GOLDEN = Path(__file__).parent.parent / "golden" / "events"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"

T0 = 1_767_323_045_006
PO = Principal("user:ana")
ARCHITECT = Principal("user:bo")
ADMIN = Principal("user:root")
DEV = Principal("agent:developer-001")
QA = Principal("agent:qa-001")
COUNCIL = Principal("system:council")
STORY = StoryId("st-cart7")
PROJECT = EntityId("pr-default")
EPIC = EntityId("ep-inbox")
PLAN = EntityId("pv-k3v2")
TASK = EntityId("tk-save1")
TASK_2 = EntityId("tk-tests2")
CRITERION = EntityId("ac-one1")
DECISION = EntityId("de-store1")
APPROVAL = EntityId("ap-scope1")
COUNCIL_ID = EntityId("co-pick1")
CANDIDATE = EntityId("cd-aaa1")
CANDIDATE_2 = EntityId("cd-bbb2")
RUN = EntityId("rn-5k2a")
CEREMONY = EntityId("ce-week1")
DISCOVERY = EntityId("di-shop1")
DELEGATION = EntityId("dg-po1")
INCIDENT = EntityId("in-slow1")
REPORT = EntityId("rp-final1")
QUESTION = EntityId("qu-days1")
MEMBER = EntityId("developer-001")
MEMBER_2 = EntityId("developer-002")
STEP = StepId("tk-save1/draft/developer-001")
SESSION = EntityId("se-work1")


def digest(name: str) -> Digest:
    """The digest of a short text, so that samples name digests that differ."""
    return digest_of(name.encode())


def _story() -> list[Payload]:
    guard = GuardResult(name="dor_ok", ok=True, evidence=("story:st-cart7/2",))
    closed = GuardResult(name="po_approved", ok=False, message="no valid approval of role po")
    about = Topic(kind="story", id=STORY)
    return [
        StoryCreated(
            project_id=PROJECT,
            epic_id=EPIC,
            title="As a shopper, I want to save my cart",
            description="Keep the cart for 30 days so that I can pay later.",
            acceptance_criteria=(
                AcceptanceCriterion(
                    ac_id=CRITERION,
                    text="Given a cart with 2 items, when I sign in again, then both items are listed",
                ),
            ),
            constraints={"python": ">=3.11", "max_new_dependencies": 0, "offline": True},
            tags=("cart", "größe"),
            rigor="L1",
            lifecycle="agile",
            language="en",
            priority=3,
            requester=PO,
            content_digest=digest("content"),
            config={"fsm.yaml": digest("fsm"), "rigor.yaml": digest("rigor")},
        ),
        StoryStarted(
            repo=RepoSource(provider="local", url="/srv/shop", ref="main"),
            model="local-7b",
            toolchain="python",
            delegations=(
                RunDelegation(
                    delegation_id=DELEGATION,
                    gate="approve_scope",
                    delegate=COUNCIL,
                    granted_by=PO,
                    max_rigor="L2",
                    valid_until=T0 + 86_400_000,
                    reason="unattended run asked for with --yes po",
                ),
            ),
            record=True,
        ),
        StoryEdited(
            changes={"title": "Save my cart", "tags": ["cart"]},
            reason="shorter title",
            content_digest=digest("content2"),
            previous_content_digest=digest("content"),
        ),
        StoryScored(
            content_digest=digest("content"),
            score="95",
            threshold="75",
            dor_ok=True,
            findings=(
                Finding(
                    code="AMBIGUOUS",
                    dimension="Estimable",
                    points_lost=5,
                    field="description",
                    span=(12, 19),
                    matched="several",
                    message="'several' can be read in more than one way",
                    suggestion="name the number",
                ),
            ),
            scorer_version="1",
        ),
        StoryTransitioned(
            from_="DRAFT", event="approve_scope", to="DESIGN", guards=(guard,), reason="the scope is clear"
        ),
        TransitionRefused(state="DRAFT", event="approve_scope", guards=(guard, closed), principal=PO),
        RigorChanged(from_="L1", to="L2", reason="payments are affected", approval_id=APPROVAL),
        ConfigMigrated(file="fsm.yaml", from_digest=digest("fsm"), to_digest=digest("fsm2"), by=ADMIN),
        StoryParked(
            cause="council_undecided", code="quorum_not_reached", detail="2 of 3 voters are silent", ref=COUNCIL_ID
        ),
        StoryUnparked(by=PO, note="voters are back", cause="council_undecided"),
        StoryCancelled(reason="the shop closes"),
        CriterionWaived(
            ac_id=EntityId("ac-2"), text="Given a strike, then we say so", by=PO, as_role="po", reason="seen by hand"
        ),
        StoryArchived(export_digest=digest("export"), reason="nobody reads it any more"),
        StoryClosed(final_state="DONE", report_id=REPORT),
        QuestionRaised(
            question_id=QUESTION,
            kind="clarification",
            text="Are 30 days calendar days?",
            severity="blocking",
            about=about,
            asked_by=DEV,
        ),
        QuestionAnswered(question_id=QUESTION, answer="Yes, calendar days.", answered_by=PO),
        MilestoneReached(milestone_id=EntityId("ms-plan1"), name="plan adopted", ref=PLAN),
        StoryPaused(scope="task", task_id=TASK, by=PO, reason="wait for the schema"),
        StoryResumed(scope="story", by=PO),
    ]


def _approval() -> list[Payload]:
    return [
        ApprovalRequested(
            approval_id=APPROVAL,
            gate="tool:git.push_branch",
            role="po",
            actor="human",
            subject=Subject(kind="content", id=STORY, digest=digest("content")),
            risk="medium",
            expires_at=T0 + 86_400_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=DEV,
        ),
        ApprovalGranted(
            approval_id=APPROVAL,
            principal=PO,
            as_role="po",
            subject_digest=digest("content"),
            notes="good",
            grant_expires_at=T0 + 604_800_000,
            delegated=True,
            delegation_id=DELEGATION,
        ),
        ApprovalRejected(
            approval_id=APPROVAL, principal=PO, as_role="po", reason="the cart must expire", delegated=False
        ),
        ApprovalExpired(approval_id=APPROVAL, attempt=1),
        ApprovalRevoked(approval_id=APPROVAL, principal=PO, reason="granted on the wrong story"),
    ]


def _task(task_id: EntityId) -> Task:
    return Task(
        task_id=task_id,
        story_id=STORY,
        plan_id=PLAN,
        title=f"Save the cart ({task_id})",
        description="Store the cart by user id.",
        role="developer",
        kind="code",
        estimated_hours=4,
        points=3,
        priority=1,
        keywords=("cart", "storage"),
        depends_on=() if task_id == TASK else (TASK,),
        acceptance_refs=(CRITERION,),
        paths=("shop/cart/**",),
        risk="low",
        suggested_tech=("sqlite",),
        notes="keep the old format readable",
        author=ARCHITECT,
    )


def _plan() -> list[Payload]:
    return [
        TaskDerivationRequested(plan_id=PLAN, content_digest=digest("content"), attempt=1),
        TaskDerivationFailed(
            plan_id=PLAN,
            attempts=3,
            problems=(
                PlanProblem(code="task_hours", message="estimated_hours is 0, allowed 1..40", task_index=2, attempt=3),
                PlanProblem(code="ac_uncovered", message="no task covers ac-one1"),
            ),
            requires_manual_review=True,
        ),
        PlanProposed(
            plan_id=PLAN,
            version=2,
            previous_plan_id=EntityId("pv-k3v1"),
            author=ARCHITECT,
            rationale="storage first, then its tests",
            tasks=(_task(TASK), _task(TASK_2)),
            dependencies=(Dependency(from_=TASK_2, to=TASK, inferred=True),),
            estimated_complexity="LOW",
            task_decisions=(
                TaskDecision(
                    task_index=0,
                    task_description="Save the cart",
                    decided_by=ARCHITECT,
                    decision_reason="smallest change",
                    council_feedback="agreed",
                    decided_at=T0,
                ),
            ),
            content_digest=digest("content"),
            plan_digest=digest("plan"),
        ),
        PlanAdopted(plan_id=PLAN, version=2, decision_id=DECISION, supersedes=EntityId("pv-k3v1")),
        PlanRejected(plan_id=PLAN, by=PO, reason="tests come too late"),
        PlanStalled(
            plan_id=PLAN,
            blockers=(
                Blocker(task_id=TASK_2, waits_for=Topic(kind="task", id=TASK), reason="dependency is cancelled"),
            ),
        ),
        CheckpointSaved(
            checkpoint_id=EntityId("cp-one1"),
            tree_digest=digest("tree1"),
            plan_id=PLAN,
            task_states={TASK: "done", TASK_2: "todo"},
            note="after merge of tk-save1",
        ),
    ]


def _task_events() -> list[Payload]:
    return [
        TaskAdded(plan_id=PLAN, task=_task(TASK)),
        TaskUpdated(task_id=TASK, changes={"priority": 2, "paths": ["shop/**"]}),
        TaskTransitioned(
            task_id=TASK,
            from_="arch_reviewing",
            action="REJECT_DESIGN",
            to="arch_rejected",
            actor_type="agent",
            principal=Principal("agent:architect-001"),
            as_role="architect",
            feedback="the cart is stored twice",
            evidence=("story:st-cart7/31",),
            skipped_by_config=False,
        ),
        TaskClaimed(task_id=TASK, state="implementing", principal=DEV, expires_at=T0 + 14_400_000),
        TaskClaimReleased(task_id=TASK, principal=DEV, reason="finished"),
        TaskEstimated(
            task_id=TASK,
            points=3,
            hours=4,
            method="delphi",
            median=3,
            iqr="0.5",
            rounds=2,
            converged=True,
            values=(3, 3, 5),
            council_id=COUNCIL_ID,
        ),
        SlaBreached(
            subject=Topic(kind="task", id=TASK),
            state="pending_qa",
            limit_s=7200,
            elapsed_s=7260,
            notified=(QA, PO),
        ),
        RestoreRequested(
            checkpoint_id=EntityId("cp-one1"),
            tree_digest=digest("tree1"),
            by=PO,
            reason="the second task broke the cart",
        ),
        TreeMerged(
            task_id=TASK,
            base_digest=digest("tree0"),
            task_tree_digest=digest("task-tree"),
            result_digest=digest("tree1"),
            commit="0f" * 20,
            files=(FileChange(path="shop/cart/store.py", change="added"),),
            restored_from=EntityId("cp-one1"),
            step_id=StepId("merge/tk-save1/1/git-commit"),
        ),
        MergeConflicted(
            task_id=TASK,
            base_digest=digest("tree0"),
            paths=("shop/cart/store.py",),
            run_id=RUN,
            output_digest=digest("conflict"),
        ),
    ]


def _step() -> list[Payload]:
    return [
        StepStarted(
            step_id=STEP,
            kind="tool",
            tool="tests",
            op="pytest",
            effect="PURE",
            task_id=TASK,
            council_id=COUNCIL_ID,
            as_role="developer",
            principal=DEV,
            request_digest=digest("request"),
            key=RunKey("ab" * 32),
            deadline_ms=T0 + 120_000,
            policy=PolicyRef(rule_id="tests.pytest", digest=digest("policy")),
            approval_id=APPROVAL,
            reserve=Reserve(tokens=4096, gpu_ms=2000, wall_ms=120_000),
        ),
        StepFinished(
            step_id=STEP,
            outcome="failed",
            result_digest=digest("result"),
            excerpt="1 failed, 3 passed",
            exit_code=1,
            reason="exit_nonzero",
            artifacts=(StepArtifact(path="test-reports/junit.xml", artifact_digest=digest("junit"), size_bytes=4812),),
            cost=Cost(
                tokens_in=1200,
                tokens_out=300,
                tokens_cached=900,
                gpu_ms=1500,
                latency_ms=2100,
                cost_microusd=12,
                priced=True,
            ),
            provenance=Provenance(
                engine="local-7b",
                model="coder-7b-instruct",
                revision="9f3c1d7",
                seed=7,
                prompt_digest=digest("prompt"),
                image_digest=digest("image"),
                tree_in_digest=digest("tree0"),
                tree_out_digest=digest("task-tree"),
            ),
            error_code="tool_failed",
        ),
        StepOutcomeUnknown(step_id=STEP, sent_digest=digest("sent"), sent_at=T0, probe="kubectl rollout status"),
        StepResolved(step_id=STEP, outcome="happened", by=PO, note="seen in the cluster", probe_result="cannot_tell"),
        ToolDenied(
            tool="exec",
            op="run",
            principal=DEV,
            as_role="developer",
            task_id=TASK,
            rule_id="commands",
            policy_digest=digest("policy"),
            reason="curl is not in the command list of developer",
        ),
        ModelFallbackUsed(step_id=STEP, from_="local-7b", to="recorded", reason="model_timeout"),
        StuckDetected(task_id=TASK, pattern="repeated_failure", steps=(STEP,), level=1),
        SessionTold(session_id=SESSION, council_id=COUNCIL_ID, text="Keep the old name as an alias.", by=PO),
        SessionStopped(session_id=SESSION, council_id=COUNCIL_ID, reason="the half of it is enough", by=PO),
        SessionForked(
            session_id=EntityId("se-fork1"),
            council_id=COUNCIL_ID,
            source_id=SESSION,
            turn=3,
            of_member=EntityId("developer-001"),
            member_id=EntityId("developer-001-fork-1"),
            by=PO,
        ),
        SessionEnded(
            session_id=SESSION,
            council_id=COUNCIL_ID,
            reason="stopped",
            summary="the cart keeps its items",
            turns=5,
            base_digest=digest("tree0"),
            head_digest=digest("tree1"),
        ),
    ]


def _workspace() -> list[Payload]:
    tests = TestSummary(passed=120, failed=0, errored=0, skipped=1)
    return [
        WorkspaceReported(
            run_id=RUN,
            task_id=TASK,
            tree_digest=digest("tree1"),
            report_digest=digest("report"),
            complete=True,
            summary=WorkspaceSummary(
                build_ok=True,
                unit=tests,
                coverage=CoverageSummary(new_pct="92.5", new_lines=40, new_covered=37, total_pct="88"),
                static=StaticSummary(ok=True, gate="OK", new_critical=0, new_major=1, new_minor=2),
                lint=LintSummary(ok=True, errors=0, warnings=3),
                e2e=tests,
                secrets_found=0,
            ),
        ),
        WorkspaceScored(
            run_id=RUN,
            tree_digest=digest("tree1"),
            rigor="L1",
            score="98.7",
            verdict="pass",
            limited_by="L1",
            gates=(GateScore(name="build", ok=True, value=True, limit=True),),
            dimensions=(
                DimensionScore(name="coverage", weight=5, score="75.5", evidence="present", value="52.8", limit="70"),
                DimensionScore(name="e2e", weight=10, score="0", evidence="missing"),
            ),
            reasons=("coverage 52.8 below 70",),
            waivers=("lint",),
            inconsistent=False,
        ),
        DimensionWaived(
            dimension="lint",
            reason="legacy module, rewritten next week",
            principal=PO,
            approval_id=APPROVAL,
            expires_at=T0,
        ),
        DocsProduced(
            docs=(DocFile(path="docs/stories/st-cart7/design.md", artifact_digest=digest("design")),),
            tree_digest=digest("tree1"),
            criteria={CRITERION: ("tests/test_cart.py::test_saved",)},
        ),
        DeploymentRecorded(
            deployment_id=EntityId("dp-one1"),
            environment="staging",
            tree_digest=digest("tree1"),
            image_digest=digest("image"),
            revision="7",
            status="succeeded",
            step_id=STEP,
            rollback_ref="6",
        ),
        HealthObserved(
            environment="staging",
            ok=False,
            checks=(HealthCheck(name="p95", ok=False, value="2.4", threshold="2"),),
            from_=T0,
            to=T0 + 600_000,
        ),
        IncidentOpened(
            incident_id=INCIDENT,
            severity="high",
            summary="p95 above 2 s",
            source="monitor",
            deployment_id=EntityId("dp-one1"),
            task_id=TASK,
        ),
        IncidentClosed(incident_id=INCIDENT, resolution="index added"),
    ]


def _decision() -> list[Payload]:
    link = DecisionLink(rel="DEPENDS_ON", decision_id=EntityId("de-base1"))
    return [
        DecisionProposed(
            decision_id=DECISION,
            title="Store carts in SQLite",
            rationale="one file, no new service, enough for 1,000 users",
            category="ARCHITECTURE",
            alternatives=("Redis", "JSON files"),
            affects=(TASK,),
            links=(link,),
            plan_id=PLAN,
            based_on=(EvidenceRef(kind="run", id=RUN),),
            author=ARCHITECT,
            origin_="human",
            council_id=COUNCIL_ID,
        ),
        DecisionAccepted(
            decision_id=DECISION,
            by=PO,
            as_role="po",
            approval_id=APPROVAL,
            council_id=COUNCIL_ID,
            note="fine for now",
        ),
        DecisionRejected(decision_id=DECISION, by=PO, as_role="po", reason="two shops share the cart"),
        DecisionSuperseded(decision_id=DECISION, by_decision_id=EntityId("de-store2")),
        DecisionLinked(decision_id=DECISION, affects=(TASK_2,), links=(link,)),
    ]


def _context() -> list[Payload]:
    return [
        ContextChanged(
            changes=(
                ContextChange(
                    operation="UPDATE",
                    entity_type="TASK",
                    entity_id=TASK,
                    payload_digest=digest("payload"),
                    reason="new estimate",
                ),
            ),
            version=14,
            hash=digest("snapshot"),
        ),
        ContextPackBuilt(
            pack_id=EntityId("pk-one1"),
            as_role="developer",
            phase="BUILD",
            task_id=TASK,
            scopes=("CASE_HEADER", "PLAN_HEADER", "SUBTASKS_ROLE"),
            token_count=2400,
            budget=5120,
            hash=digest("pack"),
            dropped=(DroppedScope(scope="MILESTONES", count=1, ids=("ms-plan1",)),),
            as_of=31,
        ),
        SummaryRecorded(
            summary_id=EntityId("sm-one1"),
            covers_from=1,
            covers_to=120,
            summary_digest=digest("summary"),
            tokens_before=9000,
            tokens_after=2700,
            ratio="0.7",
            recall={"decisions": "1", "paths": "1"},
            target_missed="paths",
        ),
    ]


def _council() -> list[Payload]:
    member = RosterMember(
        member_id=MEMBER,
        principal=DEV,
        role="developer",
        model_policy="developer",
        temperature="0.2",
        prompt_variant=0,
        veto=False,
    )
    author = RosterMember(
        member_id=EntityId("qa-001"),
        principal=QA,
        role="qa",
        model_policy="qa",
        temperature="0",
        prompt_variant=1,
        can_propose=False,
        can_vote=False,
        test_author=True,
    )
    evidence = Evidence(
        candidate_id=CANDIDATE,
        round=0,
        tree_digest=digest("candidate-tree"),
        gates=(EvidenceGate(name="applies", ok=True), EvidenceGate(name="build", ok=True, run_id=RUN)),
        gates_ok=True,
        trusted_passed=6,
        trusted_total=7,
        cluster_id="c1",
        cluster_size=2,
        lint_errors=0,
        diff_lines=40,
        run_ids=(RUN,),
    )
    return [
        CouncilOpened(
            council_id=COUNCIL_ID,
            kind="selection",
            output_kind="code_patch",
            task_id=TASK,
            subject_digest=digest("tree0"),
            roster=(member, author),
            rubric_digest=digest("rubric"),
            rule_version=1,
            quorum=2,
            pass_threshold="majority",
            rounds=1,
            budget=CouncilBudget(tokens=200_000, wall_s=900, gpu_ms=600_000),
            seed=7,
            deadline_at=T0 + 900_000,
            retry_of=EntityId("co-pick0"),
        ),
        DraftReceived(
            council_id=COUNCIL_ID,
            member_id=MEMBER,
            attempt=1,
            candidate_id=CANDIDATE,
            candidate_digest=digest("candidate"),
            tokens=1500,
        ),
        DraftFailed(council_id=COUNCIL_ID, member_id=MEMBER_2, attempt=2, code="reply_malformed"),
        TestsAuthored(council_id=COUNCIL_ID, author=EntityId("qa-001"), tests_digest=digest("tests"), count=8),
        TestsFiltered(
            council_id=COUNCIL_ID,
            kept=("test_saved", "test_empty"),
            dropped=(DroppedTest(test="test_clock", reason="two runs of one candidate differ"),),
            trusted=True,
            on_base={"test_saved": "failed: KeyError", "test_empty": "passed"},
        ),
        EvidenceRecorded(council_id=COUNCIL_ID, round=0, evidence=evidence),
        RoundOpened(council_id=COUNCIL_ID, round=1, phase="repairing"),
        CritiqueReceived(
            council_id=COUNCIL_ID,
            round=1,
            candidate_id=CANDIDATE,
            critic=MEMBER_2,
            critique_digest=digest("critique"),
        ),
        RepairReceived(
            council_id=COUNCIL_ID,
            round=1,
            candidate_id=CANDIDATE,
            new_digest=digest("candidate-2"),
            kept="old",
            reason="1 trusted test less",
        ),
        BallotCast(
            council_id=COUNCIL_ID,
            round=1,
            voter=MEMBER_2,
            attempt=1,
            votes={CANDIDATE: "approve", CANDIDATE_2: "abstain"},
            ranking=(CANDIDATE, CANDIDATE_2),
            reasons_digest=digest("reasons"),
            order_seed=11,
            tokens=700,
        ),
        BallotRefused(
            council_id=COUNCIL_ID,
            round=1,
            voter=MEMBER,
            attempt=2,
            code="late",
            ballot_digest=digest("ballot"),
        ),
        EstimateCast(council_id=COUNCIL_ID, round=1, member_id=MEMBER, value=5, reason_digest=digest("why")),
        CouncilDecided(
            council_id=COUNCIL_ID,
            decided_in="P6",
            winner=CANDIDATE,
            verdict="approve",
            estimate=3,
            tally={"valid": 3, "approve": {"cd-aaa1": 3}, "margins": {"cd-aaa1>cd-bbb2": 1}, "removed": []},
            decision_hash=digest("decision"),
            minority_report_digest=digest("minority"),
            counterfactuals={"first_draft": "cd-bbb2", "best_of_n": "cd-aaa1", "plurality": None},
            tokens={"draft": 4500, "tests": 900, "ballots": 2100},
            decision_id=DECISION,
        ),
        CouncilUndecided(
            council_id=COUNCIL_ID,
            reason="no_quorum",
            tally={"valid": 1, "missing": 2},
            decision_hash=digest("decision"),
            minority_report_digest=digest("minority"),
            approval_id=APPROVAL,
        ),
        CouncilCancelled(council_id=COUNCIL_ID, reason="the task was discarded"),
    ]


def _budget_and_report() -> list[Payload]:
    scope = BudgetScope(kind="story", id=STORY)
    return [
        BudgetSet(scope=scope, limits={"tokens": 2_000_000, "gpu_ms": 7_200_000}, by=PO, approval_id=APPROVAL),
        BudgetWarning(scope=scope, limit="tokens", used=1_600_000, max=2_000_000),
        BudgetExhausted(scope=scope, limit="tokens", used=2_000_000, max=2_000_000),
        UsageAdjusted(step_id=STEP, delta={"tokens": -120}, source="engine:local-7b"),
        OwnershipTaken(epoch=2, previous_epoch=1, owner="shard-0/a1b2", cause="restart"),
        ReportGenerated(
            report_id=REPORT,
            report_digest=digest("technical"),
            as_of=87,
            format="md",
            stats={"total_tasks": 2, "tasks_by_state": {"done": 2}, "first_try_approval_rate": "0.5"},
            traceability=Traceability(linked=9, total=10, orphans=(Orphan(id=TASK_2, missing="no run", rule="RP-31"),)),
        ),
    ]


def _project() -> list[Payload]:
    return [
        ProjectCreated(
            project_id=PROJECT,
            title="Shop",
            description="The web shop.",
            author=PO,
            repo=ProjectRepo(provider="local", url="/srv/shop", default_branch="main"),
            default_rigor="L1",
            default_lifecycle="agile",
            languages=("python",),
            constraints={"license": "Apache-2.0"},
        ),
        ProjectUpdated(project_id=PROJECT, changes={"default_rigor": "L2"}),
        EpicCreated(
            epic_id=EPIC,
            project_id=PROJECT,
            title="inbox",
            description="Stories without an epic.",
            author=PO,
            goal="none",
            priority=5,
        ),
        EpicUpdated(epic_id=EPIC, changes={"status": "archived"}),
        CeremonyOpened(ceremony_id=CEREMONY, story_ids=(STORY,), councils=("architect", "qa", "devops")),
        CeremonyStarted(ceremony_id=CEREMONY, story_ids=(STORY,), councils=("architect", "qa", "devops")),
        CeremonyCompleted(ceremony_id=CEREMONY, story_ids=(STORY,)),
        CeremonyCancelled(ceremony_id=CEREMONY, reason="the po is away"),
        CeremonyStoryReviewed(
            ceremony_id=CEREMONY,
            story_id=STORY,
            role="qa",
            review_unit="ceremony-ce-week1:story-st-cart7:role-qa",
            review_digest=digest("review"),
            council_id=COUNCIL_ID,
            failed="model_timeout",
        ),
        CeremonyStoryDecided(
            ceremony_id=CEREMONY,
            story_id=STORY,
            result="APPROVED",
            po_notes="wanted before the sale",
            reason="none",
            po_concerns="storage size",
            priority_adjustment="HIGH",
            priority_reason="the sale starts soon",
            plan_id=PLAN,
        ),
        CeremonyStoryEstimated(
            ceremony_id=CEREMONY, story_id=STORY, points=5, iqr=3, rounds=2, converged=True, values=(3, 5, 5)
        ),
        DiscoveryRequested(
            discovery_id=DISCOVERY,
            goal="A shop with a cart and a search",
            language="en",
            is_empty=True,
            model="local",
            proposal_digest=digest("template"),
        ),
        DiscoveryProposed(
            discovery_id=DISCOVERY,
            proposal_digest=digest("proposal"),
            source="model",
            note="none",
            engine="local",
            prompt_digest=digest("prompt"),
            reply_digest=digest("reply"),
            tokens_in=310,
            tokens_out=520,
        ),
        DiscoveryAnswered(discovery_id=DISCOVERY, question_ids=(EntityId("qu-1"),), proposal_digest=digest("answered")),
        DiscoveryAccepted(
            discovery_id=DISCOVERY,
            epic_id=EPIC,
            story_ids=(STORY,),
            proposal_digest=digest("answered"),
            note="for the sale",
        ),
        DiscoveryRejected(discovery_id=DISCOVERY, reason="the goal has changed"),
        StoryTombstoned(story_id=STORY, export_digest=digest("export"), last_version=87, last_hash="cd" * 32),
    ]


def _platform() -> list[Payload]:
    delegation: dict[str, Any] = {
        "delegation_id": DELEGATION,
        "gate": "approve_scope",
        "delegate": "council:po",
        "granted_by": PO,
        "reason": "nightly runs",
        "valid_until": T0 + 86_400_000,
        "max_rigor": "L2",
        "projects": (PROJECT,),
    }
    return [
        DelegationGranted(**delegation),
        DelegationRevoked(**delegation),
        FleetPaused(scope="project", id=PROJECT, by=ADMIN, reason="maintenance"),
        FleetResumed(scope="fleet", by=ADMIN, reason="maintenance is over"),
        CouncilPoolSet(role="developer", config={"num_agents": 3, "kind": "mock", "modes": ["excellent", "poor"]}),
        CouncilPoolRemoved(role="developer"),
        AgentRegistered(
            role="developer", agent_id=EntityId("agent-developer-001"), profile="implementer", engine="local-7b"
        ),
        AgentUnregistered(role="developer", agent_id=EntityId("agent-developer-001")),
        AccessDenied(principal=DEV, action="read_story", object="st-other1", rule_id="CX-12", reason="not assigned"),
        OverrideUsed(
            principal=ARCHITECT, action="read_story", object="st-other1", rule_id="CX-18", reason="incident in-slow1"
        ),
    ]


def samples() -> dict[str, Payload]:
    """One payload per event type, with every optional field set."""
    families = (
        _story,
        _approval,
        _plan,
        _task_events,
        _step,
        _workspace,
        _decision,
        _context,
        _council,
        _budget_and_report,
        _project,
        _platform,
    )
    return {payload.type: payload for family in families for payload in family()}


def golden_path(cls: type[Payload], schema: int | None = None) -> Path:
    """Where the golden body of a type and schema lies."""
    return GOLDEN / cls.type / f"v{schema or cls.schema_version}.json"


def fields_of(cls: type[Payload]) -> dict[str, bool]:
    """Every field of the stored form, nested ones by model name, and whether it is required."""
    schema = cls.model_json_schema(by_alias=True)
    models = {"": schema, **schema.get("$defs", {})}
    return {
        f"{model}.{name}".lstrip("."): name in body.get("required", [])
        for model, body in sorted(models.items())
        for name in sorted(body.get("properties", {}))
    }


def main() -> None:
    """Write what is missing."""
    for payload in samples().values():
        path = golden_path(type(payload))
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        body = json.loads(encode(payload, trace_id=TRACE_ID).body)
        path.write_text(json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    pinned_path = GOLDEN / "fields.json"
    pinned = json.loads(pinned_path.read_text()) if pinned_path.exists() else {}
    current = {name: fields_of(cls) for name, cls in sorted(EVENT_TYPES.items())}
    merged = {name: {**fields, **pinned.get(name, {})} for name, fields in current.items()}
    pinned_path.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
