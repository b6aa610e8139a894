"""What a story owes is a pure function of its state (PL-48, PL-49)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.events.approval import ApprovalExpired, ApprovalRejected, ApprovalRequested, ApprovalRevoked, Subject
from fleet.events.council import CouncilUndecided
from fleet.events.payload import Payload
from fleet.events.story import StoryCancelled, StoryParked, StoryPaused, StoryResumed
from fleet.events.task import TreeMerged
from fleet.kernel.ids import EntityId, Principal
from fleet.story.evolve.story import fold
from fleet.story.intents import (
    AdvanceCouncil,
    CheckoutBase,
    CloseStory,
    CommitWork,
    DecideGate,
    DerivePlan,
    ExpireGate,
    FireTransition,
    GenerateReport,
    Intent,
    LoopBack,
    MeasureTree,
    MergeTask,
    OpenDesignCouncil,
    OpenTaskCouncil,
    Park,
    ProduceDocs,
    Publish,
    ReopenTaskCouncil,
    RequestEscalation,
    RequestGate,
    ReviewTask,
    StartTask,
)
from fleet.story.intents import TestTask as QaTestTask
from fleet.story.plan import plan, waiting_for
from fleet.story.state import Approval, StoryState
from tests.support.rules import fsm
from tests.support.story_events import (
    BASE,
    CONTENT,
    DECISION,
    DESIGN_COUNCIL,
    DOC_TASK,
    DOCUMENTED,
    MERGED,
    PLAN,
    PO,
    STORY,
    SYSTEM,
    T0,
    TASK,
    TASK_COUNCIL,
    Stage,
    StoryLog,
    digest,
    open_council,
    story,
    subject,
)

NOW = T0 + 600_000
WORKED_ON: tuple[Stage, ...] = ("created", "scored", "started", "scope", "base", "design", "planned", "build")


def owed(log: StoryLog, *, now_ms: int = NOW) -> tuple[Intent, ...]:
    return plan(log.state, fsm(), now_ms=now_ms)


def only(log: StoryLog) -> Intent:
    (intent,) = owed(log)
    return intent


@pytest.mark.rule("PL-48", "PL-49")
def test_plan_of_every_prefix_is_the_same_again_and_never_fails():
    state: StoryState | None = None
    events = story().events
    seen = set[str]()
    for cut, event in enumerate(events, start=1):
        state = fold([event], state)
        assert state is not None
        intents = plan(state, fsm(), now_ms=NOW)
        if cut % 13 == 0:
            assert plan(fold(events[:cut]) or state, fsm(), now_ms=NOW) == intents
        seen.update(type(i).__name__ for i in intents)
        assert waiting_for(state, fsm(), now_ms=NOW) is None or not intents
    assert {"CheckoutBase", "MeasureTree", "AdvanceCouncil", "MergeTask", "RequestGate"} <= seen
    assert plan(state, fsm(), now_ms=NOW) == ()  # pyright: ignore[reportArgumentType]


@pytest.mark.rule("PL-49")
@pytest.mark.parametrize("lifecycle", ["agile", "sdlc", "sdlc-no-deploy"])
def test_plan_in_every_state_of_every_lifecycle_owes_or_says_what_it_waits_for(lifecycle: str):
    base = story(until="base").state
    for name in fsm().lifecycles[lifecycle].states:
        for state in (base, story(until="merged").state, story(until="docs").state):
            there = state.with_(lifecycle=lifecycle, state=name)
            intents = plan(there, fsm(), now_ms=NOW)
            assert intents == plan(there, fsm(), now_ms=NOW)
            assert intents or waiting_for(there, fsm(), now_ms=NOW)


@pytest.mark.parametrize("until", ["created", "scored"])
def test_story_that_nobody_started_owes_nothing_and_waits_for_its_start(until: Stage):
    log = story(until=until)
    assert owed(log) == ()
    assert waiting_for(log.state, fsm(), now_ms=NOW) == "start the story"


def test_started_story_pins_and_measures_its_base_first():
    log = story(until="started")
    assert only(log) == CheckoutBase()
    log.add(TreeMerged(base_digest=BASE, result_digest=BASE, commit="0a" * 20))
    assert only(log) == MeasureTree(tree=BASE)


def started_draft() -> StoryLog:
    log = story(only=("created", "scored", "started", "base"))
    assert only(log) == FireTransition("create_story")
    return log.move("BACKLOG", "create_story", "DRAFT")


def ask(log: StoryLog, gate: str, about: Subject, *, attempt: int = 1, role: str = "po") -> StoryLog:
    return log.add(
        ApprovalRequested(
            approval_id=EntityId(f"ap-{gate.replace('_', '-')}-{attempt}"),
            gate=gate,
            role=role,
            actor="human",
            subject=about,
            risk="low",
            expires_at=NOW + 86_400_000,
            attempt=attempt,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


SCOPE = subject("content", STORY, CONTENT)


@pytest.mark.rule("LC-77")
def test_gate_is_requested_then_decided_by_the_delegate():
    log = started_draft()
    assert only(log) == RequestGate(gate="approve_scope", subject=CONTENT)
    ask(log, "approve_scope", SCOPE)
    assert only(log) == DecideGate(gate="approve_scope", approval_id="ap-approve-scope-1")


@pytest.mark.rule("LC-72", "LC-73", "LC-76")
def test_gate_without_a_delegate_waits_for_a_person_until_nobody_answered_and_is_asked_again():
    log = ask(started_draft(), "approve_scope", SCOPE)
    assert owed(log, now_ms=NOW + 86_399_999) == ()
    assert waiting_for(log.state, fsm(), now_ms=NOW + 86_399_999) == "gate approve_scope waits for role po"
    late = NOW + 10 * 365 * 86_400_000
    assert owed(log, now_ms=late) == (ExpireGate(approval_id="ap-approve-scope-1"),)
    log.add(ApprovalExpired(approval_id=EntityId("ap-approve-scope-1"), attempt=1))
    assert owed(log, now_ms=late) == (RequestGate(gate="approve_scope", subject=CONTENT),)


@pytest.mark.rule("PL-50")
def test_paused_story_owes_nothing_until_it_is_resumed():
    log = started_draft()
    log.add(StoryPaused(scope="story", by=PO, reason="the repository moves"))
    assert owed(log, now_ms=NOW) == ()
    assert waiting_for(log.state, fsm(), now_ms=NOW) == "paused: resume the story"
    log.add(StoryResumed(scope="story", by=PO))
    assert owed(log, now_ms=NOW) == (RequestGate(gate="approve_scope", subject=CONTENT),)


@pytest.mark.rule("LC-77")
def test_delegate_without_a_supporting_fact_decides_nothing():
    log = ask(started_draft(), "approve_scope", SCOPE)
    assert log.state.score is not None
    failing = log.state.score.model_copy(update={"dor_ok": False})
    state = log.state.with_(score=failing)
    assert plan(state, fsm(), now_ms=NOW) == ()


def test_story_that_is_not_ready_waits_with_the_finding():
    log = started_draft()
    assert log.state.score is not None
    state = log.state.with_(score=log.state.score.model_copy(update={"dor_ok": False, "score": "40"}))
    assert plan(state, fsm(), now_ms=NOW) == ()
    assert (waiting_for(state, fsm(), now_ms=NOW) or "").startswith("dor_ok: readiness score 40, needed 75")


@pytest.mark.rule("LC-73")
@pytest.mark.parametrize("kind", ["expired", "revoked"])
def test_request_that_nobody_granted_is_asked_for_again(kind: str):
    log = ask(started_draft(), "approve_scope", SCOPE)
    approval_id = EntityId("ap-approve-scope-1")
    log.add(
        ApprovalExpired(approval_id=approval_id, attempt=1)
        if kind == "expired"
        else ApprovalRevoked(approval_id=approval_id, principal=PO, reason="a mistake")
    )
    assert only(log) == RequestGate(gate="approve_scope", subject=CONTENT)


def test_rejected_gate_is_not_asked_for_again_until_the_story_went_back():
    log = story(until="planned")
    ask(log, "approve_design", subject("plan", PLAN, digest("plan")))
    log.add(
        ApprovalRejected(
            approval_id=EntityId("ap-approve-design-1"),
            principal=PO,
            as_role="po",
            reason="not like this",
            delegated=False,
        )
    )
    assert owed(log) == ()
    waits = waiting_for(log.state, fsm(), now_ms=NOW) or ""
    assert f"ask again with `fleet story ask {log.state.story_id} approve_design`" in waits
    log.move("DESIGN", "reject_design", "DRAFT", loopback=True).move("DRAFT", "approve_scope", "DESIGN")
    assert only(log) == RequestGate(gate="approve_design", subject=digest("plan"))


def test_design_is_deliberated_then_derived_then_put_to_the_po():
    log = story(until="base")
    assert only(log) == OpenDesignCouncil(attempt=1)
    log.add(open_council(DESIGN_COUNCIL, design=True))
    assert only(log) == AdvanceCouncil(DESIGN_COUNCIL)
    assert only(story(until="design")) == DerivePlan(decision_id=DECISION)
    assert only(story(until="planned")) == RequestGate(gate="approve_design", subject=digest("plan"))


@pytest.mark.rule("CN-56")
def test_undecided_design_parks_and_a_new_text_gets_a_new_council():
    log = story(until="base").add(open_council(DESIGN_COUNCIL, design=True))
    log.add(
        CouncilUndecided(
            council_id=DESIGN_COUNCIL,
            reason="all_rejected",
            tally={},
            decision_hash=digest("decision"),
            minority_report_digest=digest("minority"),
            approval_id=EntityId("ap-escalate1"),
        )
    )
    parked = only(log)
    assert isinstance(parked, Park)
    assert (parked.cause, "all_rejected" in parked.detail) == ("council_undecided", True)
    there = escalated(log.state, DESIGN_COUNCIL, "requested").with_(disposition="parked", park=parked)
    assert f"`fleet story approve {STORY} council_escalation`" in (waiting_for(there, fsm(), now_ms=NOW) or "")
    edited = log.state.with_(content=replace(log.state.content, digest=digest("new text")))
    back = edited.with_(state="DESIGN")
    assert plan(back, fsm(), now_ms=NOW) == (OpenDesignCouncil(attempt=2),)


@pytest.mark.rule("PL-40")
def test_tasks_start_in_order_and_one_at_a_time():
    assert only(story(until="build")) == StartTask(task_id=TASK)
    log = story(until="build").task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    assert only(log) == OpenTaskCouncil(task_id=TASK, attempt=1)
    log.add(open_council(TASK_COUNCIL, task_id=TASK))
    assert only(log) == AdvanceCouncil(TASK_COUNCIL)


@pytest.mark.rule("LC-100", "PL-40", "PL-46")
def test_task_is_assigned_once_what_it_depends_on_is_done_and_a_cancelled_one_is_not():
    state = story(until="build").state
    assert state.tasks[DOC_TASK].task.depends_on == (TASK,)

    def after(name: str) -> tuple[Intent, ...]:
        tasks = {**state.tasks, TASK: replace(state.tasks[TASK], state=name)}
        return plan(state.with_(tasks=tasks), fsm(), now_ms=NOW)

    assert after("todo") == (StartTask(task_id=TASK),)
    assert after("done") == (StartTask(task_id=DOC_TASK),)
    (stalled,) = after("cancelled")
    assert isinstance(stalled, Park)
    assert stalled.cause == "plan_stalled"
    row = fsm().task_workflow.find("todo", "ASSIGN_TO_DEVELOPER")
    assert row is not None
    assert (row.to, row.by) == ("implementing", "system")


def test_task_of_higher_priority_starts_first_and_position_decides_among_equals():
    state = story(until="build").state
    first = state.tasks[TASK]
    second = replace(first, task=first.task.model_copy(update={"task_id": EntityId("tk-urgent1"), "depends_on": ()}))

    def starts(first_priority: int, second_priority: int) -> tuple[Intent, ...]:
        tasks = {
            one.task.task_id: replace(one, task=one.task.model_copy(update={"priority": priority}))
            for one, priority in ((first, first_priority), (second, second_priority))
        }
        return plan(state.with_(tasks=tasks), fsm(), now_ms=NOW)

    assert starts(2, 1) == (StartTask(task_id=EntityId("tk-urgent1")),)
    assert starts(1, 2) == starts(1, 1) == (StartTask(task_id=TASK),)


def in_task_state(name: str, **changes: Any) -> StoryState:
    state = story(until="task").state
    return state.with_(tasks={**state.tasks, TASK: replace(state.tasks[TASK], state=name, **changes)})


@pytest.mark.parametrize(
    ("name", "intent"),
    [
        ("implementing", CommitWork(task_id=TASK, council_id=TASK_COUNCIL)),
        ("pending_arch_review", ReviewTask(task_id=TASK, attempt=1)),
        ("arch_reviewing", ReviewTask(task_id=TASK, attempt=1)),
        ("pending_qa", QaTestTask(task_id=TASK, attempt=1)),
        ("qa_testing", QaTestTask(task_id=TASK, attempt=1)),
        ("pending_po_approval", RequestGate("task_acceptance", digest("candidate tree"), TASK)),
        ("po_approved", MergeTask(task_id=TASK, attempt=1)),
    ],
)
def test_task_owes_the_work_of_its_state(name: str, intent: Intent):
    assert plan(in_task_state(name), fsm(), now_ms=NOW) == (intent,)


@pytest.mark.rule("LC-119", "PL-3")
def test_work_that_nobody_in_qa_tests_is_measured_before_it_is_put_up_for_acceptance():
    state = in_task_state("pending_po_approval", candidate_tree=digest("a design"))
    task = state.tasks[TASK]
    design = replace(task, task=task.task.model_copy(update={"kind": "design"}))
    owed = plan(state.with_(tasks={**state.tasks, TASK: design}), fsm(), now_ms=NOW)
    assert owed == (MeasureTree(tree=digest("a design")),)


def escalated(state: StoryState, council_id: EntityId, status: str = "granted") -> StoryState:
    """A person said this about the escalation of the council, which came to no decision."""
    request = ApprovalRequested(
        approval_id=EntityId("ap-escalate1"),
        gate="council_escalation",
        role="po",
        actor="human",
        subject=Subject(kind="object", id=council_id, digest=digest("minority")),
        risk="medium",
        expires_at=NOW + 1,
        attempt=1,
        card_digest=digest("minority"),
        requested_by=Principal("system:council"),
    )
    record = replace(state.councils[council_id], status="UNDECIDED", reason="no_quorum")
    approval = Approval(request=request, status=status, requested_version=1)  # pyright: ignore[reportArgumentType]
    return state.with_(councils={**state.councils, council_id: record}, approvals={"ap-escalate1": approval})


@pytest.mark.rule("CN-56", "CN-113")
def test_granted_escalation_asks_a_new_council_and_nothing_else_does():
    design = story(until="base").add(open_council(DESIGN_COUNCIL, design=True)).state
    assert plan(escalated(design, DESIGN_COUNCIL), fsm(), now_ms=NOW) == (OpenDesignCouncil(attempt=2),)
    task = escalated(in_task_state("implementing"), TASK_COUNCIL)
    assert plan(task, fsm(), now_ms=NOW) == (ReopenTaskCouncil(task_id=TASK, attempt=1, after=TASK_COUNCIL),)
    again = plan(escalated(design, DESIGN_COUNCIL, "expired"), fsm(), now_ms=NOW)
    assert again == (RequestEscalation(council_id=DESIGN_COUNCIL),)
    for status in ("requested", "rejected", "revoked"):
        (parked,) = plan(escalated(design, DESIGN_COUNCIL, status), fsm(), now_ms=NOW)
        assert isinstance(parked, Park), status
    other = escalated(design, DESIGN_COUNCIL)
    found = other.approvals["ap-escalate1"]
    of_other = found.request.model_copy(update={"subject": Subject(kind="object", id="co-x1", digest=digest("m"))})
    elsewhere = other.with_(approvals={"ap-escalate1": replace(found, request=of_other)})
    (parked,) = plan(elsewhere, fsm(), now_ms=NOW)
    assert isinstance(parked, Park)


def test_task_in_a_state_that_the_system_leaves_at_once_is_a_defect():
    (parked,) = plan(in_task_state("qa_failed"), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert parked.cause == "internal_error"
    (lost,) = plan(in_task_state("pending_po_approval", candidate_tree=None), fsm(), now_ms=NOW)
    assert isinstance(lost, Park)
    assert lost.cause == "internal_error"


@pytest.mark.rule("LC-106")
def test_task_that_was_sent_back_gets_a_council_of_its_own():
    log = story(until="task")
    log.task(TASK, "arch_reviewing", "REJECT_DESIGN", "arch_rejected", feedback="the table is missing")
    log.task(TASK, "arch_rejected", "REVISE_CODE", "implementing")
    assert only(log) == OpenTaskCouncil(task_id=TASK, attempt=2)


@pytest.mark.rule("LC-137")
@pytest.mark.parametrize(("count", "parks"), [(3, False), (4, True)])
def test_task_that_is_rejected_too_often_parks_the_story(count: int, parks: bool):
    (intent,) = plan(in_task_state("implementing", rejections={"REJECT_TESTS": count}), fsm(), now_ms=NOW)
    assert (isinstance(intent, Park) and intent.cause == "rework_limit") is parks


@pytest.mark.rule("CN-56")
def test_undecided_council_of_a_task_parks_the_story():
    state = in_task_state("implementing")
    record = replace(state.councils[TASK_COUNCIL], status="UNDECIDED", reason="no_quorum")
    (parked,) = plan(state.with_(councils={**state.councils, TASK_COUNCIL: record}), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert (parked.cause, "no_quorum" in parked.detail) == ("council_undecided", True)


@pytest.mark.rule("PL-45", "PL-46")
def test_cancelled_dependency_stalls_the_plan_instead_of_counting_as_done():
    state = story(until="build").state
    gone = {**state.tasks, TASK: replace(state.tasks[TASK], state="cancelled")}
    (parked,) = plan(state.with_(tasks=gone), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert (parked.cause, DOC_TASK in parked.detail) == ("plan_stalled", True)
    both = {k: replace(t, state="cancelled") for k, t in state.tasks.items()}
    (all_gone,) = plan(state.with_(tasks=both), fsm(), now_ms=NOW)
    assert isinstance(all_gone, Park)
    assert all_gone.detail == "every task of the plan is cancelled"


def accept_request(state: StoryState, **changes: Any) -> StoryState:
    log = ask(story(until="task"), "task_acceptance", subject("tree", TASK, digest("candidate tree")))
    (approval,) = [a for a in log.state.approvals.values() if a.request.gate == "task_acceptance"]
    key = approval.request.approval_id
    return state.with_(approvals={**state.approvals, key: replace(approval, **changes)})


@pytest.mark.rule("LC-77")
def test_acceptance_is_delegated_only_for_a_tree_that_passed():
    waiting = accept_request(in_task_state("pending_po_approval"))
    assert plan(waiting, fsm(), now_ms=NOW) == ()
    assert waiting.start is not None
    delegation = waiting.start.delegations[0].model_copy(update={"gate": "task_acceptance"})
    delegated = waiting.with_(start=waiting.start.model_copy(update={"delegations": (delegation,)}))
    assert plan(delegated, fsm(), now_ms=NOW) == ()
    merged = story(until="merged").state
    passed = delegated.with_(scores={digest("candidate tree"): merged.scores[MERGED]})
    (decide,) = plan(passed, fsm(), now_ms=NOW)
    assert isinstance(decide, DecideGate)
    assert decide.task_id == TASK
    expired = accept_request(in_task_state("pending_po_approval"), status="expired")
    assert isinstance(plan(expired, fsm(), now_ms=NOW)[0], RequestGate)


def test_built_story_moves_on_by_itself():
    log = story(until="merged")
    log.events.pop()
    assert only(log) == FireTransition("build_done")


def test_story_in_test_asks_for_the_sign_off_of_qa():
    assert only(story(until="merged")) == RequestGate(gate="qa_passed", subject=MERGED)


def scored(log: StoryLog, verdict: str, tree: Any = MERGED) -> StoryState:
    state = log.state
    return state.with_(scores={**state.scores, tree: state.scores[tree].model_copy(update={"verdict": verdict})})


@pytest.mark.rule("LC-47", "LC-92")
def test_blocking_tree_goes_back_until_the_limit_parks_it():
    state = scored(story(until="merged"), "block")
    assert plan(state, fsm(), now_ms=NOW) == (LoopBack(event="reject_test", tree=MERGED),)
    (parked,) = plan(state.with_(loopbacks={"reject_test": 5}), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert parked.cause == "loopback_limit"
    quiet = fsm().model_copy(update={"limits": fsm().limits.model_copy(update={"auto_loopback": False})})
    assert plan(state, quiet, now_ms=NOW) == ()


@pytest.mark.rule("LC-56")
def test_warning_asks_qa_to_accept_it():
    state = scored(story(until="merged"), "warn")
    (intent,) = plan(state, fsm(), now_ms=NOW)
    assert isinstance(intent, RequestGate)
    assert intent.gate == "accept_warning"


@pytest.mark.rule("RG-42")
@pytest.mark.parametrize("goes_back", [True, False])
def test_blocking_verdict_is_put_to_nobody(goes_back: bool):
    limits = fsm().limits.model_copy(update={"auto_loopback": goes_back})
    owed = plan(scored(story(until="merged"), "block"), fsm().model_copy(update={"limits": limits}), now_ms=NOW)
    assert not [intent for intent in owed if isinstance(intent, RequestGate)]


@pytest.mark.rule("LC-96")
def test_tree_scored_at_another_rigor_is_measured_again():
    state = story(until="merged").state.with_(rigor="L2")
    assert plan(state, fsm(), now_ms=NOW) == (MeasureTree(tree=MERGED),)


@pytest.mark.rule("LC-48")
def test_documents_are_written_measured_and_reported_before_the_last_gate():
    assert only(story(until="qa")) == ProduceDocs(tree=MERGED)
    log = story(until="docs")
    assert isinstance(only(log), GenerateReport)
    assert plan(log.state.with_(reports={BASE: log.state.reports[BASE]}), fsm(), now_ms=NOW) == (
        MeasureTree(tree=DOCUMENTED),
    )
    bare = log.state.with_(report_version=log.version + 1)
    assert bare.docs is not None
    (parked,) = plan(bare.with_(docs=replace(bare.docs, criteria={})), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert parked.cause == "stuck"


def test_blocking_documents_in_a_state_without_a_way_back_park_the_story():
    (parked,) = plan(scored(story(until="docs"), "block", DOCUMENTED), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert (parked.cause, "DOCS has no way back" in parked.detail) == ("stuck", True)


@pytest.mark.rule("PL-43")
def test_finished_story_publishes_once_and_closes():
    log = story()
    log.events.pop()
    assert only(log) == Publish(commit="0c" * 20)
    log.step("publish", kind="run")
    assert only(log) == CloseStory()
    nothing_changed = log.state.with_(steps={}, commit=log.state.base_commit)
    assert plan(nothing_changed, fsm(), now_ms=NOW) == (CloseStory(),)
    assert owed(story()) == ()


@pytest.mark.rule("LC-94")
def test_third_takeover_without_progress_parks_as_a_crash_loop():
    state = story(until="base").state
    assert not isinstance(plan(state.with_(takeovers_without_progress=2), fsm(), now_ms=NOW)[0], Park)
    (parked,) = plan(state.with_(takeovers_without_progress=3), fsm(), now_ms=NOW)
    assert isinstance(parked, Park)
    assert parked.cause == "crash_loop"


@pytest.mark.rule("LC-93")
@pytest.mark.parametrize(
    ("payload", "waits"),
    [
        (
            StoryParked(cause="stuck", detail="nothing moved."),
            f"parked (stuck): nothing moved. Once that is mended, `fleet resume {STORY}` goes on",
        ),
        (StoryCancelled(reason="nobody needs it any more"), None),
    ],
)
def test_story_that_is_not_active_owes_nothing(payload: Payload, waits: str | None):
    log = story(until="base").add(payload)
    assert owed(log) == ()
    assert waiting_for(log.state, fsm(), now_ms=NOW) == waits


def test_story_that_works_or_is_closed_waits_for_nobody():
    assert waiting_for(story(until="base").state, fsm(), now_ms=NOW) is None
    assert waiting_for(story().state, fsm(), now_ms=NOW) is None
