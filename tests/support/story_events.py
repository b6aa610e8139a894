"""Whole stories as stored events: a builder, and one realistic story in stages.

    log = StoryLog()
    log.add(payload, actor=PO)
    log.state, log.events, log.decoded

`story(until="merged")` gives the story up to and with that stage; see `STAGES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import Any, Literal, cast, get_args

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.codec import decode, encode
from fleet.events.council import (
    BallotCast,
    BallotRefused,
    CouncilBudget,
    CouncilDecided,
    CouncilOpened,
    DraftFailed,
    DraftReceived,
    DroppedTest,
    Evidence,
    EvidenceGate,
    EvidenceRecorded,
    RosterMember,
    RoundOpened,
    TestsAuthored,
    TestsFiltered,
)
from fleet.events.decision import DecisionAccepted, DecisionProposed
from fleet.events.envelope import GENESIS_HASH, Head, NewEvent, StoredEvent, event_hash
from fleet.events.payload import Payload
from fleet.events.plan import Dependency, PlanAdopted, PlanProposed, Task
from fleet.events.report import OwnershipTaken, ReportGenerated, Traceability
from fleet.events.step import Cost, PolicyRef, Provenance, Reserve, StepArtifact, StepFinished, StepStarted
from fleet.events.story import (
    AcceptanceCriterion,
    RepoSource,
    RunDelegation,
    StoryClosed,
    StoryCreated,
    StoryScored,
    StoryStarted,
    StoryTransitioned,
)
from fleet.events.task import FileChange, TaskAdded, TaskTransitioned, TreeMerged
from fleet.events.workspace import (
    CoverageSummary,
    DimensionScore,
    DocFile,
    DocsProduced,
    GateScore,
    TestSummary,
    WorkspaceReported,
    WorkspaceScored,
    WorkspaceSummary,
)
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import CommandId, Digest, EntityId, Principal, RunKey, StepId, StoryId, StreamId
from fleet.log.port import AppendRequest, EventLog
from fleet.models.profiles import Budgets
from fleet.planning.coach_config import CoachConfig
from fleet.planning.planning_config import PlanningConfig
from fleet.story.commands.command import Caller, Facts
from fleet.story.evolve.story import fold
from fleet.story.state import StoryState
from tests.support.rules import files, fsm

Stage = Literal[
    "created",
    "scored",
    "started",
    "scope",
    "base",
    "design",
    "planned",
    "build",
    "task",
    "merged",
    "qa",
    "docs",
    "closed",
]
STAGES: tuple[Stage, ...] = get_args(Stage)

T0 = 1_767_323_045_000
STORY = StoryId("st-slug7")
PROJECT = EntityId("pr-default")
EPIC = EntityId("ep-inbox")
AC_1, AC_2 = EntityId("ac-fold1"), EntityId("ac-empty2")
PLAN = EntityId("pv-first1")
TASK, DOC_TASK = EntityId("tk-slug1"), EntityId("tk-docs2")
DECISION = EntityId("de-design1")
DESIGN_COUNCIL, TASK_COUNCIL = EntityId("co-design1"), EntityId("co-task1")
WINNER, LOSER = EntityId("cd-win1"), EntityId("cd-lose2")
DELEGATION = EntityId("dg-po1")
REPORT = EntityId("rp-final1")
PO = Principal("user:ana")
SYSTEM = Principal("system:council")
REVIEWER = Principal("agent:reviewer-001")
ARCHITECT = Principal("agent:architect-001")
DEVELOPER, DEVELOPER_2, DEVELOPER_3 = (Principal(f"agent:developer-00{n}") for n in (1, 2, 3))
QA, QA_2 = Principal("agent:qa-001"), Principal("agent:qa-002")
DESIGNER = Principal("agent:designer-001")


def digest(name: str) -> Digest:
    """The digest of a short text, so that each thing has its own."""
    return digest_of(name.encode())


BASE, MERGED, DOCUMENTED = digest("base tree"), digest("merged tree"), digest("documented tree")
CONTENT = digest("content")
_POLICY = PolicyRef(rule_id="models.ask", digest=digest("policy"))


class StoryLog:
    """The stream of one story, in memory, with right versions and hashes; one second passes per append."""

    def __init__(self, story_id: StoryId = STORY, *, start_ms: int = T0) -> None:
        self.story_id, self.stream = story_id, StreamId.of_story(story_id)
        self.events: list[StoredEvent] = []
        self._now_ms = start_ms

    @property
    def version(self) -> int:
        """The version of the last event."""
        return len(self.events)

    @property
    def state(self) -> StoryState:
        """The fold of all events."""
        state = fold(self.events)
        assert state is not None
        return state

    @property
    def decoded(self) -> list[tuple[StoredEvent, Payload]]:
        """Each event with its payload."""
        return [(event, decode(event)) for event in self.events]

    def decoded_payloads(self, type: str) -> list[Payload]:
        """The payloads of one type, in order."""
        return [payload for event, payload in self.decoded if event.type == type]

    def wait(self, ms: int) -> StoryLog:
        """Time passes before the next event."""
        self._now_ms += ms
        return self

    def add(self, *payloads: Payload, actor: Principal = SYSTEM, command: str | None = None) -> StoryLog:
        """The payloads are the next events, all of one command."""
        command_id = CommandId(command or f"{self.story_id}/step-{self.version + 1}")
        self._now_ms += 1000
        for payload in payloads:
            new = encode(payload)
            fields: dict[str, Any] = {
                "stream": self.stream,
                "version": self.version + 1,
                "type": new.type,
                "schema": new.schema,
                "body": new.body,
                "ts_ms": self._now_ms,
                "epoch": 0,
                "command_id": command_id,
                "actor": actor,
                "causation": new.causation,
                "prev_hash": self.events[-1].hash if self.events else GENESIS_HASH,
            }
            self.events.append(StoredEvent(**fields, hash=event_hash(**fields)))
        return self

    def step(
        self,
        name: str,
        *,
        kind: Literal["model", "run"] = "model",
        who: Principal = DEVELOPER,
        task_id: EntityId | None = None,
        council_id: EntityId | None = None,
        outcome: Literal["succeeded", "failed", "denied", "timed_out", "cancelled"] = "succeeded",
        took_ms: int = 4000,
        tokens: tuple[int, int] = (900, 100),
        result: Digest | None = None,
        excerpt: str = "2 passed in 0.03s",
        artifacts: tuple[StepArtifact, ...] = (),
    ) -> StoryLog:
        """A step is started and finished by this principal."""
        step_id, role = StepId(name), who.split(":", 1)[1].rsplit("-", 1)[0]
        is_model = kind == "model"
        self.add(
            StepStarted(
                step_id=step_id,
                kind=kind,
                tool="model" if is_model else "tests",
                op="draft" if is_model else "pytest",
                effect="PURE" if is_model else "KEYED",
                task_id=task_id,
                council_id=council_id,
                as_role=role,
                principal=who,
                request_digest=digest(f"request {name}"),
                key=RunKey(digest(f"key {name}").hex),
                deadline_ms=self._now_ms + 600_000,
                policy=_POLICY,
                reserve=Reserve(tokens=4096, wall_ms=600_000),
            ),
            actor=who,
            command=f"{self.story_id}/{name}/start",
        )
        return self.wait(took_ms - 1000).add(
            StepFinished(
                step_id=step_id,
                outcome=outcome,
                result_digest=result or digest(f"result {name}"),
                excerpt=None if is_model else excerpt,
                exit_code=None if is_model else int(outcome != "succeeded"),
                artifacts=artifacts,
                cost=Cost(tokens_in=tokens[0], tokens_out=tokens[1], latency_ms=took_ms)
                if is_model
                else Cost(latency_ms=took_ms, priced=True, cost_microusd=0),
                provenance=Provenance(engine="recorded", model="coder-1.5b", prompt_digest=digest(f"prompt {name}"))
                if is_model
                else Provenance(tree_in_digest=BASE, tree_out_digest=digest(f"tree {name}")),
            ),
            actor=who,
            command=f"{self.story_id}/{name}/finish",
        )

    def gate(self, name: str, subject: Subject, *, role: str = "po", by: Principal = REVIEWER) -> StoryLog:
        """The gate is requested and granted by the delegate of the run."""
        approval_id = EntityId(f"ap-{name.replace('_', '-')}-{self.version}")
        self.add(
            ApprovalRequested(
                approval_id=approval_id,
                gate=name,
                role=role,
                actor="human",
                subject=subject,
                risk="low",
                expires_at=self._now_ms + 86_400_000,
                attempt=1,
                card_digest=digest(f"card {name}"),
                requested_by=SYSTEM,
            )
        )
        return self.add(
            ApprovalGranted(
                approval_id=approval_id,
                principal=by,
                as_role=role,
                subject_digest=subject.digest,
                notes="asked for with --yes",
                grant_expires_at=self._now_ms + 604_800_000,
                delegated=True,
                delegation_id=DELEGATION,
            ),
            actor=by,
        )

    def move(self, from_: str, event: str, to: str, *, loopback: bool = False) -> StoryLog:
        """The story is in state `to`."""
        reason = "the tree scored 40 and blocks" if loopback else None
        return self.add(StoryTransitioned(from_=from_, event=event, to=to, loopback=loopback, reason=reason))

    def task(
        self, task_id: EntityId, from_: str, action: str, to: str, *, by: Principal = SYSTEM, **more: Any
    ) -> StoryLog:
        """The task is in state `to`."""
        role = by.split(":", 1)[1].rsplit("-", 1)[0] if by.kind == "agent" else "system"
        payload = TaskTransitioned(
            task_id=task_id,
            from_=cast(Any, from_),
            action=cast(Any, action),
            to=cast(Any, to),
            actor_type="agent" if by.kind == "agent" else "system",
            principal=by,
            as_role=role,
            **more,
        )
        return self.add(payload, actor=by)

    async def write_to(self, log: EventLog, *, after: int = 0) -> None:
        """The events after this version are in the log, with the same hashes."""
        for command_id, group in groupby(self.events[after:], key=lambda event: event.command_id):
            events = list(group)
            first = events[0]
            await log.append(
                AppendRequest(
                    stream=self.stream,
                    events=[NewEvent(type=e.type, schema=e.schema, body=e.body, causation=e.causation) for e in events],
                    expected=Head(version=first.version - 1, hash=first.prev_hash),
                    command_id=command_id,
                    actor=first.actor,
                    ts_ms=first.ts_ms,
                )
            )


def created_payload(**changes: Any) -> StoryCreated:
    """The story as it is written, with these fields changed."""
    fields: dict[str, Any] = {
        "project_id": PROJECT,
        "epic_id": EPIC,
        "title": "Make slugs from titles",
        "description": "Editors want a slug for each title, so that links stay readable.",
        "acceptance_criteria": (
            AcceptanceCriterion(ac_id=AC_1, text="Given 'Größe M', slugify returns 'groesse-m'"),
            AcceptanceCriterion(ac_id=AC_2, text="Given an empty title, slugify raises ValueError"),
        ),
        "constraints": {"python": ">=3.11", "max_new_dependencies": 0},
        "tags": ("text",),
        "rigor": "L1",
        "lifecycle": "agile",
        "language": "en",
        "priority": 3,
        "requester": PO,
        "content_digest": CONTENT,
        "config": {"fsm.yaml": digest("fsm")},
    }
    return StoryCreated(**(fields | changes))


def task_of(task_id: EntityId, **changes: Any) -> Task:
    """A task of the plan, with these fields changed."""
    fields: dict[str, Any] = {
        "task_id": task_id,
        "story_id": STORY,
        "plan_id": PLAN,
        "title": "Write slugify",
        "description": "Fold umlauts, lower the case, join words with hyphens.",
        "role": "developer",
        "kind": "code",
        "estimated_hours": 2,
        "points": 2,
        "priority": 1,
        "acceptance_refs": (AC_1, AC_2),
        "paths": ("text/slug.py",),
        "risk": "low",
        "suggested_tech": ("unicodedata",),
        "author": ARCHITECT,
    }
    return Task(**(fields | changes))


def subject(kind: str, id: str, digest: Digest) -> Subject:
    """The subject of an approval."""
    return Subject(kind=cast(Any, kind), id=id, digest=digest)


def _created(log: StoryLog) -> None:
    log.add(created_payload(), actor=PO)


def _scored(log: StoryLog) -> None:
    log.add(StoryScored(content_digest=CONTENT, score="95", threshold="75", dor_ok=True, scorer_version="1"))


def _started(log: StoryLog) -> None:
    delegation = RunDelegation(
        delegation_id=DELEGATION,
        gate="approve_scope",
        delegate=REVIEWER,
        granted_by=PO,
        max_rigor="L2",
        valid_until=T0 + 86_400_000,
        reason="unattended run",
    )
    log.add(
        StoryStarted(
            repo=RepoSource(provider="local", url="/srv/text"),
            model="recorded",
            toolchain="python",
            delegations=(delegation,),
            record=False,
        ),
        actor=PO,
    )
    log.add(OwnershipTaken(epoch=1, previous_epoch=0, owner="0/a1", cause="new"))


def _scope(log: StoryLog) -> None:
    log.move("BACKLOG", "create_story", "DRAFT")
    log.gate("approve_scope", subject("content", STORY, CONTENT)).move("DRAFT", "approve_scope", "DESIGN")


def _measured(log: StoryLog, tree: Digest, score: str, verdict: Literal["pass", "warn", "block"]) -> None:
    run = EntityId(f"rn-{tree.hex[:8]}")
    tests = TestSummary(passed=12, failed=0, errored=0, skipped=0)
    coverage = CoverageSummary(new_pct="96", new_lines=25, new_covered=24, total_pct="91")
    summary = WorkspaceSummary(build_ok=True, unit=tests, coverage=coverage, secrets_found=0)
    log.add(
        WorkspaceReported(
            run_id=run, tree_digest=tree, report_digest=digest(f"report {tree}"), complete=True, summary=summary
        ),
        WorkspaceScored(
            run_id=run,
            tree_digest=tree,
            rigor="L1",
            score=score,
            verdict=verdict,
            limited_by="L1",
            gates=(GateScore(name="build", ok=True, value=True, limit=True),),
            dimensions=(
                DimensionScore(name="unit", weight=25, score="100", evidence="present", value="1", limit="0.95"),
            ),
            reasons=() if verdict == "pass" else ("lint: 9 errors, 5 allowed",),
        ),
    )


def _base(log: StoryLog) -> None:
    log.add(TreeMerged(base_digest=BASE, result_digest=BASE, commit="0a" * 20))
    log.step("measure/base", kind="run", who=QA)
    _measured(log, BASE, "92", "pass")


def _member(number: int, principal: Principal, *, votes: bool = True) -> RosterMember:
    role = principal.split(":", 1)[1].rsplit("-", 1)[0]
    return RosterMember(
        member_id=EntityId(f"{role}-00{number}"),
        principal=principal,
        role=role,
        model_policy=role,
        temperature="0.2",
        prompt_variant=number - 1,
        can_propose=votes,
        can_vote=votes,
        test_author=not votes,
    )


def open_council(council_id: EntityId, *, task_id: EntityId | None = None, design: bool = False) -> CouncilOpened:
    """A council of three developers, and a test author for code."""
    voters = tuple(_member(n, p) for n, p in enumerate((DEVELOPER, DEVELOPER_2, DEVELOPER_3), start=1))
    return CouncilOpened(
        council_id=council_id,
        kind="selection",
        output_kind="design" if design else "code_patch",
        task_id=task_id,
        subject_digest=CONTENT if design else BASE,
        roster=voters if design else (*voters, _member(1, QA, votes=False)),
        rubric_digest=digest("rubric"),
        rule_version=1,
        quorum=2,
        pass_threshold="majority",
        rounds=1,
        budget=CouncilBudget(tokens=200_000, wall_s=900),
        seed=7,
        deadline_at=T0 + 900_000_000,
    )


def _evidence(candidate_id: EntityId, *, ok: bool, passed: int, code: bool) -> Evidence:
    return Evidence(
        candidate_id=candidate_id,
        round=0,
        tree_digest=digest(f"tree {candidate_id}") if code else None,
        gates=(EvidenceGate(name="build" if code else "schema", ok=ok),),
        gates_ok=ok,
        trusted_passed=passed,
        trusted_total=4 if code else 0,
        cluster_id=f"c-{candidate_id}",
        cluster_size=1,
        lint_errors=0,
        diff_lines=20,
    )


def deliberate(log: StoryLog, council_id: EntityId, *, task_id: EntityId | None = None, suffix: str = "") -> None:
    """The council drafts, measures, votes and decides for WINNER (with the suffix)."""
    winner, loser = EntityId(f"{WINNER}{suffix}"), EntityId(f"{LOSER}{suffix}")
    code = task_id is not None
    log.add(open_council(council_id, task_id=task_id, design=not code))
    for number, (who, candidate) in enumerate(((DEVELOPER, winner), (DEVELOPER_2, loser)), start=1):
        log.step(f"{council_id}/draft/{number}", who=who, council_id=council_id, task_id=task_id)
        log.add(
            DraftReceived(
                council_id=council_id,
                member_id=EntityId(f"developer-00{number}"),
                attempt=1,
                candidate_id=candidate,
                candidate_digest=digest(candidate),
                tokens=1000,
            )
        )
    log.add(DraftFailed(council_id=council_id, member_id=EntityId("developer-003"), attempt=2, code="reply_malformed"))
    if code:
        log.step(f"{council_id}/tests", who=QA, council_id=council_id, task_id=task_id)
        log.add(
            TestsAuthored(council_id=council_id, author=EntityId("qa-001"), tests_digest=digest("tests"), count=5),
            TestsFiltered(
                council_id=council_id,
                kept=("test_umlaut", "test_empty", "test_spaces", "test_case"),
                dropped=(DroppedTest(test="test_emoji", reason="every candidate fails it"),),
                trusted=True,
            ),
        )
        log.step(f"{council_id}/run/{winner}", kind="run", who=QA, council_id=council_id, task_id=task_id)
    log.add(
        EvidenceRecorded(
            council_id=council_id, round=0, evidence=_evidence(winner, ok=True, passed=4 * code, code=code)
        ),
        EvidenceRecorded(
            council_id=council_id, round=0, evidence=_evidence(loser, ok=True, passed=4 * code, code=code)
        ),
        RoundOpened(council_id=council_id, round=1, phase="balloting"),
    )
    _vote(log, council_id, winner, loser)
    log.add(
        CouncilDecided(
            council_id=council_id,
            decided_in="P6",
            winner=winner,
            tally={
                "valid": 2,
                "abstained": 0,
                "invalid": 1,
                "missing": 1,
                "approve": {winner: 2, loser: 1},
                "reject": {loser: 1},
            },
            decision_hash=digest(f"decision {council_id}"),
            minority_report_digest=digest("minority"),
            counterfactuals={"first_draft": winner, "best_of_n": winner, "plurality": loser},
            tokens={"draft": 2000, "tests": 1000 * code, "ballots": 400},
            decision_id=None if code else DECISION,
        )
    )


def _vote(log: StoryLog, council_id: EntityId, winner: EntityId, loser: EntityId) -> None:
    ballots: tuple[tuple[int, dict[EntityId, Literal["approve", "reject", "abstain"]]], ...] = (
        (2, {winner: "approve", loser: "approve"}),
        (3, {winner: "approve", loser: "reject"}),
    )
    for number, votes in ballots:
        voter = (DEVELOPER, DEVELOPER_2, DEVELOPER_3)[number - 1]
        log.step(f"{council_id}/vote/{number}", who=voter, council_id=council_id, tokens=(150, 50))
        log.add(
            BallotCast(
                council_id=council_id,
                round=1,
                voter=EntityId(f"developer-00{number}"),
                attempt=1,
                votes=votes,
                ranking=(winner, loser),
                reasons_digest=digest("reasons"),
                order_seed=11,
                tokens=200,
            )
        )
    log.add(
        BallotRefused(
            council_id=council_id,
            round=1,
            voter=EntityId("developer-001"),
            attempt=1,
            code="invalid",
            ballot_digest=digest("ballot"),
        )
    )


def decision_payload(decision_id: EntityId = DECISION, **changes: Any) -> DecisionProposed:
    """The design decision, with these fields changed."""
    fields: dict[str, Any] = {
        "decision_id": decision_id,
        "title": "Fold with unicodedata",
        "rationale": "The standard library folds most letters; five umlauts need a table.",
        "category": "ARCHITECTURE",
        "alternatives": ("a third-party library",),
        "affects": (TASK,),
        "author": DEVELOPER,
        "origin_": "council",
        "council_id": DESIGN_COUNCIL,
    }
    return DecisionProposed(**(fields | changes))


def _design(log: StoryLog) -> None:
    deliberate(log, DESIGN_COUNCIL, suffix="d")
    log.add(decision_payload())
    log.add(DecisionAccepted(decision_id=DECISION, by=SYSTEM, as_role="architect", council_id=DESIGN_COUNCIL))


def _planned(log: StoryLog) -> None:
    tasks = (
        task_of(TASK),
        task_of(
            DOC_TASK,
            title="Describe slugify",
            description="One page with two examples.",
            role="qa",
            kind="docs",
            priority=2,
            depends_on=(TASK,),
            acceptance_refs=(AC_1,),
            paths=("docs/**",),
        ),
    )
    log.step("plan/derive", who=ARCHITECT)
    log.add(
        PlanProposed(
            plan_id=PLAN,
            version=1,
            author=ARCHITECT,
            rationale="Write the function first, then its page.",
            tasks=tasks,
            dependencies=(Dependency(from_=DOC_TASK, to=TASK),),
            estimated_complexity="LOW",
            content_digest=CONTENT,
            plan_digest=digest("plan"),
        ),
        PlanAdopted(plan_id=PLAN, version=1, decision_id=DECISION),
        *(TaskAdded(plan_id=PLAN, task=task) for task in tasks),
    )


def _build(log: StoryLog) -> None:
    log.gate("approve_design", subject("plan", PLAN, digest("plan"))).move("DESIGN", "approve_design", "BUILD")


def _task(log: StoryLog) -> None:
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    deliberate(log, TASK_COUNCIL, task_id=TASK)
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(digest("candidate tree"),))
    log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")
    log.task(TASK, "pending_arch_review", "CLAIM_REVIEW", "arch_reviewing", by=ARCHITECT)


def _merged(log: StoryLog) -> None:
    log.task(TASK, "arch_reviewing", "APPROVE_DESIGN", "arch_approved", by=ARCHITECT)
    log.task(TASK, "arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa")
    log.task(TASK, "pending_qa", "CLAIM_TESTING", "qa_testing", by=QA_2)
    log.task(TASK, "qa_testing", "APPROVE_TESTS", "qa_passed", by=QA_2)
    log.task(TASK, "qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval")
    log.gate("task_acceptance", subject("tree", TASK, digest("candidate tree")))
    log.task(TASK, "pending_po_approval", "APPROVE_STORY", "po_approved", by=REVIEWER)
    log.step("merge/task-1", kind="run", who=DEVELOPER, task_id=TASK)
    log.add(
        TreeMerged(
            task_id=TASK,
            base_digest=BASE,
            task_tree_digest=digest("candidate tree"),
            result_digest=MERGED,
            commit="0b" * 20,
            files=(
                FileChange(path="text/slug.py", change="added"),
                FileChange(path="tests/test_slug.py", change="added"),
            ),
        )
    )
    log.task(TASK, "po_approved", "AUTO_COMPLETE", "done")
    log.task(DOC_TASK, "todo", "DISCARD_TASK", "cancelled", feedback="the story's docs cover it")
    _measured(log, MERGED, "98.7", "pass")
    log.move("BUILD", "build_done", "TEST")


def _qa(log: StoryLog) -> None:
    log.gate("qa_passed", subject("tree", STORY, MERGED), role="qa", by=QA_2).move("TEST", "qa_passed", "DOCS")


def _docs(log: StoryLog) -> None:
    log.step("docs/write", who=DESIGNER)
    log.add(
        TreeMerged(
            base_digest=MERGED,
            result_digest=DOCUMENTED,
            commit="0c" * 20,
            files=(FileChange(path="docs/stories/st-slug7.md", change="added"),),
        )
    )
    _measured(log, DOCUMENTED, "98.7", "pass")
    log.add(
        DocsProduced(
            docs=(DocFile(path="docs/stories/st-slug7.md", artifact_digest=digest("page")),),
            tree_digest=DOCUMENTED,
            criteria={AC_1: ("tests/test_slug.py::test_umlaut",), AC_2: ("tests/test_slug.py::test_empty",)},
        )
    )


def _closed(log: StoryLog) -> None:
    log.add(
        ReportGenerated(
            report_id=REPORT,
            report_digest=digest("technical report"),
            as_of=log.version,
            format="md",
            stats={"total_tasks": 2},
            traceability=Traceability(linked=1, total=1),
        )
    )
    log.gate("docs_ready", subject("docs", STORY, digest("docs"))).move("DOCS", "docs_ready", "DONE")
    log.add(StoryClosed(final_state="DONE", report_id=REPORT))


_STAGES: dict[Stage, Callable[[StoryLog], None]] = {
    "created": _created,
    "scored": _scored,
    "started": _started,
    "scope": _scope,
    "base": _base,
    "design": _design,
    "planned": _planned,
    "build": _build,
    "task": _task,
    "merged": _merged,
    "qa": _qa,
    "docs": _docs,
    "closed": _closed,
}


def story(
    *,
    until: Stage = "closed",
    only: Iterable[Stage] | None = None,
    config: Mapping[str, Digest] | None = None,
    created: StoryCreated | None = None,
) -> StoryLog:
    """The story up to and with this stage, or exactly the stages of `only`, in their order.

    Args:
        config: what it is created with, instead of one file.
        created: how it is created, instead of `created_payload()`.
    """
    log = StoryLog()
    chosen = tuple(only) if only is not None else STAGES[: STAGES.index(until) + 1]
    for stage in chosen:
        if stage == "created" and (config is not None or created is not None):
            log.add(created or created_payload(config=dict(config or {})), actor=PO)
        else:
            _STAGES[stage](log)
    return log


def facts(caller: Caller | None = None, *, now_ms: int = T0 + 600_000) -> Facts:
    """What a command on the story is decided on; its po sends it unless another caller is named."""
    sent_by = caller or Caller(principal=PO, roles=frozenset({"po"}))
    return Facts(
        caller=sent_by,
        stream=StreamId.of_story(STORY),
        command_id=CommandId(f"{sent_by.principal}/key-1"),
        now_ms=now_ms,
        fsm=fsm(),
        planning=files().load("planning.yaml", PlanningConfig),
        budgets=Budgets(),
        coach=files().load("coach.yaml", CoachConfig),
        thresholds={"L0": 50, "L1": 60, "L2": 70, "L3": 80},
        assignable_roles=("developer", "architect", "qa"),
        held=sent_by.roles,
    )
