"""Actions of the task workflow by people: what the table allows, on facts alone, beside the owner (LC-100..LC-130)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from fleet.events.approval import ApprovalRequested
from fleet.events.codec import decode
from fleet.events.story import StoryCancelled, StoryParked, StoryPaused
from fleet.events.task import RestoreRequested, TaskClaimed, TaskClaimReleased, TaskTransitioned, TaskUpdated
from fleet.events.workspace import WorkspaceScored
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import (
    AlreadyClaimed,
    FleetError,
    GateClosed,
    InvalidInput,
    InvalidTransition,
    NotFound,
    PolicyDenied,
    VersionConflict,
)
from fleet.kernel.ids import CommandId, EntityId, Principal, StreamId
from fleet.log.port import Command
from fleet.owner.duties.councils import end_council
from fleet.owner.duties.tasks import review_task
from fleet.owner.story_owner import StoryOwner
from fleet.owner.workbench import Workbench
from fleet.story.intents import EndCouncil, MeasureTree, ReleaseReview, ReviewTask
from fleet.story.plan import plan, waiting_for
from tests.support.bench import World
from tests.support.rules import fsm
from tests.support.stores import eventually
from tests.support.story_events import (
    ARCHITECT,
    DEVELOPER,
    DOC_TASK,
    QA_2,
    STAGES,
    STORY,
    SYSTEM,
    T0,
    TASK,
    StoryLog,
    digest,
    open_council,
    story,
    subject,
)

NOW = T0 + 600_000
WORK = digest("candidate tree")
WHY = "the umlauts are missing"


class Desk:
    """One story's owner, and commands of people on it."""

    def __init__(self, world: World, bench: Workbench) -> None:
        self.world, self.bench, self._keys = world, bench, 0

    async def do(self, name: str, body: dict[str, Any], *, who: str = "user:root") -> Any:
        self._keys += 1
        id_ = CommandId(f"{who}/key-{self._keys}")
        command = Command(id_, StreamId.of_story(STORY), name, Principal(who), body)
        return await self.world.commands.handle(self.bench, command)

    async def act(self, action: str, *, who: str = "user:root", task: str = TASK, **more: Any) -> Any:
        return await self.do("act_on_task", {"task_id": task, "action": action, **more}, who=who)

    async def refused(self, kind: type[FleetError], action: str, **more: Any) -> FleetError:
        """The refusal; nothing is recorded by it."""
        before = self.bench.state.version
        with pytest.raises(kind) as found:
            await self.act(action, **more)
        assert self.bench.state.version == before
        return found.value

    @property
    def state(self) -> str:
        return self.bench.state.tasks[TASK].state

    async def moves(self) -> list[TaskTransitioned]:
        return [p for p in map(decode, await self.world.events()) if isinstance(p, TaskTransitioned)]


def working(*, paused: bool = True) -> StoryLog:
    """A story in BUILD whose task is under way; paused, so that people come first."""
    log = story(only=STAGES[: STAGES.index("build") + 1])
    log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
    return log.add(StoryPaused(scope="story", by=Principal("user:ana"), reason="I look first")) if paused else log


def handed_over(*, to: str = "pending_arch_review", paused: bool = True) -> StoryLog:
    """Its work waits for the architect, or for QA, or for the po."""
    log = working(paused=paused)
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(WORK,))
    log.task(TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review")
    if to == "pending_arch_review":
        return log
    log.task(TASK, "pending_arch_review", "CLAIM_REVIEW", "arch_reviewing", by=ARCHITECT)
    log.task(TASK, "arch_reviewing", "APPROVE_DESIGN", "arch_approved", by=ARCHITECT)
    log.task(TASK, "arch_approved", "AUTO_ROUTE_TO_QA", "pending_qa")
    if to == "pending_qa":
        return log
    log.task(TASK, "pending_qa", "CLAIM_TESTING", "qa_testing", by=QA_2)
    log.task(TASK, "qa_testing", "APPROVE_TESTS", "qa_passed", by=QA_2)
    return log.task(TASK, "qa_passed", "AUTO_ROUTE_TO_PO", "pending_po_approval")


def asked_for(log: StoryLog) -> StoryLog:
    """The work is put up for acceptance."""
    return log.add(
        ApprovalRequested(
            approval_id=EntityId("ap-work1"),
            gate="task_acceptance",
            role="po",
            actor="human",
            subject=subject("tree", TASK, WORK),
            risk="low",
            expires_at=T0 + 90_000_000,
            attempt=1,
            card_digest=digest("card"),
            requested_by=SYSTEM,
        )
    )


def scored(log: StoryLog, verdict: Any, *, rigor: Any = "L1") -> StoryLog:
    """The work is measured."""
    return log.add(
        WorkspaceScored(
            run_id=EntityId("rn-work1"),
            tree_digest=WORK,
            rigor=rigor,
            score="90",
            verdict=verdict,
            limited_by="L1",
            gates=(),
            dimensions=(),
            reasons=(),
        )
    )


async def desk_of(log: StoryLog) -> Desk:
    world = World(clock=MemoryClock(NOW))
    await log.write_to(world.log)
    return Desk(world, await world.bench())


@pytest.mark.rule("LC-103", "LC-104", "LC-107", "LC-121", "LC-130")
async def test_architect_claims_a_review_and_approves_it_and_the_task_goes_to_qa():
    at = await desk_of(handed_over())
    await at.act("CLAIM_REVIEW")
    claim = at.bench.state.tasks[TASK].claim
    assert claim is not None
    assert (at.state, claim.principal, claim.expires_at_ms) == ("arch_reviewing", "user:root", NOW + 7_200_000)
    await at.act("APPROVE_DESIGN", feedback="it reads well", artifacts=[WORK])
    assert at.state == "pending_qa"
    assert at.bench.state.tasks[TASK].claim is None
    approved, routed = (await at.moves())[-2:]
    assert (approved.from_, approved.action, approved.to) == ("arch_reviewing", "APPROVE_DESIGN", "arch_approved")
    assert (approved.actor_type, approved.principal, approved.as_role) == ("human", "user:root", "architect")
    assert (approved.feedback, approved.evidence) == ("it reads well", (WORK,))
    assert (routed.action, routed.actor_type) == ("AUTO_ROUTE_TO_QA", "system")


@pytest.mark.rule("LC-119", "PL-3")
@pytest.mark.parametrize(
    ("kind", "reviews", "passed"),
    [
        ("code", None, ["AUTO_ROUTE_TO_QA"]),
        ("design", None, ["AUTO_ROUTE_TO_QA", "AUTO_ROUTE_TO_PO"]),
        ("code", {"code": ("architect",)}, ["AUTO_ROUTE_TO_QA", "AUTO_ROUTE_TO_PO", "APPROVE_STORY"]),
    ],
)
async def test_review_that_a_kind_of_task_does_not_need_is_passed_through_and_the_event_says_so(
    kind: str, reviews: dict[str, Any] | None, passed: list[str]
):
    at = await desk_of(handed_over().add(TaskUpdated(task_id=TASK, changes={"kind": kind})))
    if reviews is not None:
        rules = at.bench.rules
        workflow = rules.fsm.task_workflow
        edited = workflow.model_copy(update={"reviews_by_kind": {**workflow.reviews_by_kind, **reviews}})
        rules = replace(rules, fsm=rules.fsm.model_copy(update={"task_workflow": edited}))
        at.bench = replace(at.bench, rules=rules)
    await at.act("CLAIM_REVIEW")
    await at.act("APPROVE_DESIGN")
    steps = [m for m in await at.moves() if m.actor_type == "system"][-len(passed) :]
    assert [m.action for m in steps] == passed
    assert [m.skipped_by_config for m in steps] == [None, *[True] * (len(passed) - 1)]
    assert at.state == steps[-1].to


@pytest.mark.rule("LC-105", "LC-106", "LC-137")
async def test_rejected_review_is_the_next_attempt_of_the_task_and_counts_as_a_rejection():
    at = await desk_of(handed_over())
    await at.act("CLAIM_REVIEW")
    before = at.bench.state.tasks[TASK].attempt
    await at.act("REJECT_DESIGN", feedback=WHY)
    task = at.bench.state.tasks[TASK]
    assert (task.state, task.attempt, task.rejections) == ("implementing", before + 1, {"REJECT_DESIGN": 1})
    assert (task.feedback, task.claim) == ((WHY,), None)


@pytest.mark.rule("LC-120")
@pytest.mark.parametrize(
    ("action", "who", "kind", "word"),
    [
        ("APPROVE_DESIGN", "user:root", InvalidTransition, "invalid_action"),
        ("EXPLODE", "user:root", InvalidTransition, "invalid_action"),
        ("RELEASE_CLAIM", "user:root", InvalidTransition, "invalid_action"),
        ("CLAIM_REVIEW", "user:quinn", PolicyDenied, "rbac_violation"),
        ("CLAIM_REVIEW", "user:nobody", PolicyDenied, "rbac_violation"),
        ("DISCARD_TASK", "user:dev", PolicyDenied, "rbac_violation"),
        ("DISCARD_TASK", "user:ana", GateClosed, "rejected"),
    ],
)
async def test_refused_action_says_which_kind_of_refusal_it_is(
    action: str, who: str, kind: type[FleetError], word: str
):
    at = await desk_of(handed_over())
    error = await at.refused(kind, action, who=who)
    assert (error.details["action_status"], error.details["task_id"]) == (word, TASK)
    if kind is InvalidTransition:
        assert set(error.details["allowed"]) == {"CLAIM_REVIEW", "DISCARD_TASK"}
    if kind is GateClosed:
        assert [(g["name"], g["ok"]) for g in error.details["guards"]] == [("feedback_given", False)]


@pytest.mark.rule("LC-120")
@pytest.mark.parametrize("action", ["ASSIGN_TO_DEVELOPER", "AUTO_ROUTE_TO_ARCHITECT"])
async def test_steps_of_the_system_are_nobody_elses(action: str):
    log = story(only=STAGES[: STAGES.index("build") + 1])
    if action != "ASSIGN_TO_DEVELOPER":
        log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", "implementing")
        log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=DEVELOPER, evidence=(WORK,))
    at = await desk_of(log)
    assert (await at.refused(PolicyDenied, action)).details["action_status"] == "rbac_violation"


async def test_action_in_a_selected_role_is_that_of_no_other_role():
    at = await desk_of(handed_over())
    assert (await at.refused(PolicyDenied, "CLAIM_REVIEW", as_role="po")).details["allowed"] == "architect"
    await at.act("CLAIM_REVIEW", as_role="architect")


async def test_task_and_artifact_that_the_story_does_not_have_are_refused():
    at = await desk_of(handed_over())
    await at.refused(NotFound, "CLAIM_REVIEW", task="tk-none")
    await at.refused(InvalidInput, "CLAIM_REVIEW", artifacts=[digest("a tree of somebody else")])
    await at.refused(InvalidInput, "CLAIM_REVIEW", feedback="x" * 4001)


@pytest.mark.rule("LC-118", "LC-101")
async def test_nobody_hands_work_over_by_saying_so():
    at = await desk_of(working())
    error = await at.refused(GateClosed, "COMMIT_CODE", who="user:dev", artifacts=[digest("base tree")])
    assert [g["name"] for g in error.details["guards"]] == ["work_recorded"]


@pytest.mark.rule("LC-104", "LC-118", "LC-130")
async def test_review_is_decided_by_who_claimed_it_and_never_by_the_author():
    at = await desk_of(handed_over())
    await at.act("CLAIM_REVIEW")
    await at.bench.journal.record(
        "take/1",
        TaskClaimed(task_id=TASK, state="arch_reviewing", principal=Principal("user:eve"), expires_at=NOW + 10_000),
    )
    await at.refused(AlreadyClaimed, "APPROVE_DESIGN")
    await at.bench.journal.record(
        "take/2",
        TaskClaimed(task_id=TASK, state="arch_reviewing", principal=ARCHITECT, expires_at=NOW + 10_000),
    )
    error = await at.refused(GateClosed, "REJECT_DESIGN", feedback=WHY)
    assert [g["name"] for g in error.details["guards"]] == ["claimant"]

    log = working()
    log.task(TASK, "implementing", "COMMIT_CODE", "dev_completed", by=Principal("user:root"), evidence=(WORK,)).task(
        TASK, "dev_completed", "AUTO_ROUTE_TO_ARCHITECT", "pending_arch_review"
    )
    own = await desk_of(log)
    error = await own.refused(GateClosed, "CLAIM_REVIEW")
    assert [g["name"] for g in error.details["guards"]] == ["not_author"]


@pytest.mark.rule("LC-109")
async def test_tests_are_approved_on_a_score_that_does_not_block_and_on_nothing_else():
    at = await desk_of(handed_over(to="pending_qa"))
    await at.act("CLAIM_TESTING", who="user:quinn")
    missing = await at.refused(GateClosed, "APPROVE_TESTS", who="user:quinn")
    assert [g["name"] for g in missing.details["guards"]] == ["scored_report"]
    for verdict, rigor in (("block", "L1"), ("pass", "L3")):
        log = scored(handed_over(to="pending_qa"), verdict, rigor=rigor)
        at = await desk_of(log)
        await at.act("CLAIM_TESTING", who="user:quinn")
        await at.refused(GateClosed, "APPROVE_TESTS", who="user:quinn")
    at = await desk_of(scored(handed_over(to="pending_qa"), "warn"))
    await at.act("CLAIM_TESTING", who="user:quinn")
    await at.act("APPROVE_TESTS", who="user:quinn")
    assert at.state == "pending_po_approval"
    assert (await at.moves())[-2].evidence == ("rn-work1",)


@pytest.mark.rule("LC-110")
async def test_tests_are_rejected_with_feedback():
    at = await desk_of(handed_over(to="pending_qa"))
    await at.act("CLAIM_TESTING", who="user:quinn")
    await at.refused(GateClosed, "REJECT_TESTS", who="user:quinn", feedback="short")
    await at.act("REJECT_TESTS", who="user:quinn", feedback=WHY)
    assert at.state == "implementing"


@pytest.mark.rule("LC-112", "LC-76")
async def test_work_is_accepted_on_the_request_that_waits_and_not_before():
    at = await desk_of(handed_over(to="pending_po_approval"))
    error = await at.refused(GateClosed, "APPROVE_STORY", who="user:ana")
    assert [g["name"] for g in error.details["guards"]] == ["task_acceptance"]
    at = await desk_of(asked_for(handed_over(to="pending_po_approval")))
    await at.act("APPROVE_STORY", who="user:ana")
    assert at.state == "po_approved"
    assert at.bench.state.approvals["ap-work1"].status == "granted"


@pytest.mark.rule("LC-113", "LC-114", "LC-117")
@pytest.mark.parametrize(
    ("action", "to"), [("REQUEST_REWORK", "implementing"), ("REJECT_STORY", "cancelled"), ("DISCARD_TASK", "cancelled")]
)
async def test_refused_work_leaves_no_request_that_could_still_be_granted(action: str, to: str):
    at = await desk_of(asked_for(handed_over(to="pending_po_approval")))
    await at.refused(GateClosed, action, who="user:ana", feedback="no")
    await at.act(action, who="user:ana", feedback=WHY)
    assert at.state == to
    assert at.bench.state.approvals["ap-work1"].status == "rejected"
    with pytest.raises(VersionConflict):
        await at.do("approve", {"gate": "ap-work1"}, who="user:ana")


@pytest.mark.rule("LC-8", "LC-112")
async def test_request_for_work_that_went_another_way_is_not_granted():
    log = asked_for(handed_over(to="pending_po_approval"))
    log.task(TASK, "pending_po_approval", "DISCARD_TASK", "cancelled", feedback=WHY)
    at = await desk_of(log)
    with pytest.raises(VersionConflict, match="does not wait for acceptance"):
        await at.do("approve", {"gate": "ap-work1"}, who="user:ana")
    assert at.state == "cancelled"


@pytest.mark.rule("LC-93")
async def test_parked_story_takes_the_po_s_decisions_and_no_other_action():
    parked = StoryParked(cause="operator", detail="wait for me")
    at = await desk_of(handed_over().add(parked))
    assert "unpark it" in (await at.refused(InvalidTransition, "CLAIM_REVIEW")).message
    at = await desk_of(asked_for(handed_over(to="pending_po_approval")).add(parked))
    await at.act("APPROVE_STORY", who="user:ana")
    assert at.state == "po_approved"


@pytest.mark.rule("LC-93", "PL-47")
async def test_story_that_is_over_or_is_being_restored_takes_no_action():
    at = await desk_of(handed_over().add(StoryCancelled(reason="nobody wants it")))
    await at.refused(InvalidTransition, "CLAIM_REVIEW")
    await at.refused(InvalidTransition, "APPROVE_STORY", who="user:ana")
    wanted = RestoreRequested(
        checkpoint_id=EntityId("rp-first1"), tree_digest=digest("x"), by=Principal("user:ana"), reason=WHY
    )
    at = await desk_of(handed_over().add(wanted))
    await at.refused(InvalidTransition, "CLAIM_REVIEW")


# Beside the owner.


@pytest.mark.rule("PL-48", "LC-130")
async def test_story_waits_for_a_person_who_reviews_and_measures_what_the_review_needs():
    at = await desk_of(handed_over(paused=False))
    assert plan(at.bench.state, fsm(), now_ms=NOW) == (ReviewTask(task_id=TASK, attempt=1),)
    await at.act("CLAIM_REVIEW")
    assert plan(at.bench.state, fsm(), now_ms=NOW) == ()
    assert waiting_for(at.bench.state, fsm(), now_ms=NOW) == f"user:root reviews task {TASK}"
    at = await desk_of(handed_over(to="pending_qa", paused=False))
    await at.act("CLAIM_TESTING", who="user:quinn")
    assert plan(at.bench.state, fsm(), now_ms=NOW) == (MeasureTree(tree=WORK),)
    late = NOW + 14_400_000
    assert plan(at.bench.state, fsm(), now_ms=late) == (ReleaseReview(task_id=TASK),)


@pytest.mark.rule("LC-130")
async def test_review_whose_claim_ran_out_waits_again_and_can_be_claimed_again():
    at = await desk_of(handed_over())
    await at.act("CLAIM_REVIEW")
    await at.do("resume_story", {"note": ""}, who="user:ana")
    clock = at.world.clock
    assert isinstance(clock, MemoryClock)
    owner = asyncio.create_task(StoryOwner(at.bench).run())
    try:
        assert await eventually(lambda: clock.sleepers == 2, within_s=60)
        assert at.state == "arch_reviewing"
        clock.advance(7200)
        assert await eventually(lambda: at.bench.state.disposition == "parked", within_s=60)
    finally:
        owner.cancel()
        await asyncio.gather(owner, return_exceptions=True)
    payloads = [decode(e) for e in await at.world.events()]
    released = next(n for n, p in enumerate(payloads) if isinstance(p, TaskClaimReleased))
    assert cast(TaskClaimReleased, payloads[released]).reason == "expired"
    after = [p for p in payloads[released:] if isinstance(p, TaskTransitioned)]
    # The architect's seat takes the review, and parks the story in this world without the work's files.
    assert [(p.action, p.to, p.principal) for p in after] == [
        ("RELEASE_CLAIM", "pending_arch_review", SYSTEM),
        ("CLAIM_REVIEW", "arch_reviewing", ARCHITECT),
    ]


@pytest.mark.rule("LC-130", "LC-8")
async def test_agent_whose_review_was_taken_back_claims_it_once_more():
    at = await desk_of(handed_over())
    for _ in range(2):
        with pytest.raises(FleetError, match="no blob has digest"):
            await review_task(at.bench, ReviewTask(task_id=TASK, attempt=1))
        assert at.state == "arch_reviewing"
        await at.do("release_task", {"task_id": TASK}, who="user:ana")
        assert at.state == "pending_arch_review"


@pytest.mark.rule("LC-8", "LC-122")
async def test_review_that_a_person_overtook_is_not_recorded():
    at = await desk_of(handed_over())
    stale = TaskTransitioned(
        task_id=TASK,
        from_="pending_arch_review",
        action="CLAIM_REVIEW",
        to="arch_reviewing",
        actor_type="agent",
        principal=ARCHITECT,
        as_role="architect",
    )
    await at.act("DISCARD_TASK", who="user:ana", feedback=WHY)
    before = at.bench.state.version
    with pytest.raises(VersionConflict, match="is cancelled by now"):
        await at.bench.journal.record("task/late", stale)
    assert at.bench.state.version == before
    assert at.state == "cancelled"


@pytest.mark.rule("EV-16", "LC-8")
async def test_step_on_record_is_answered_from_there_however_old_it_is():
    at = await desk_of(working())
    step = TaskTransitioned(
        task_id=DOC_TASK,
        from_="todo",
        action="DISCARD_TASK",
        to="cancelled",
        actor_type="system",
        principal=SYSTEM,
        as_role="system",
    )
    assert await at.bench.journal.record("docs/out", step)
    assert not await at.bench.journal.record("docs/out", step)


@pytest.mark.rule("LC-117", "CN-63")
async def test_council_on_a_discarded_task_ends():
    log = working(paused=False)
    log.add(open_council(EntityId("co-late1"), task_id=TASK))
    at = await desk_of(log)
    await at.act("DISCARD_TASK", who="user:ana", feedback=WHY)
    assert plan(at.bench.state, fsm(), now_ms=NOW) == (EndCouncil("co-late1"),)
    await end_council(at.bench, EndCouncil("co-late1"))
    assert at.bench.state.councils["co-late1"].status == "CANCELLED"
    assert not any(isinstance(i, EndCouncil) for i in plan(at.bench.state, fsm(), now_ms=NOW))


# Claims given back.


@pytest.mark.rule("AP-64", "LC-130")
async def test_claim_is_given_back_by_its_holder_or_a_po_alone():
    log = working()
    log.add(TaskClaimed(task_id=TASK, state="implementing", principal=DEVELOPER, expires_at=NOW + 10_000))
    at = await desk_of(log)
    body = {"task_id": TASK}
    for who in ("user:dev", "user:quinn"):
        with pytest.raises(PolicyDenied):
            await at.do("release_task", body, who=who)
    await at.do("release_task", body, who="user:ana")
    assert (at.state, at.bench.state.tasks[TASK].claim) == ("implementing", None)
    await at.do("claim_task", {"task_id": TASK, "as_role": "developer"}, who="user:dev")
    await at.do("release_task", body, who="user:dev")
    with pytest.raises(InvalidTransition, match="nobody has task"):
        await at.do("release_task", body, who="user:dev")
    with pytest.raises(NotFound):
        await at.do("release_task", {"task_id": "tk-none"}, who="user:ana")
    with pytest.raises(InvalidInput):
        await at.do("release_task", {}, who="user:ana")


@pytest.mark.rule("AP-64", "LC-130", "LC-121")
async def test_review_that_is_given_back_waits_for_a_reviewer_again():
    at = await desk_of(handed_over())
    await at.act("CLAIM_REVIEW")
    await at.do("release_task", {"task_id": TASK}, who="user:ana")
    last = (await at.moves())[-1]
    assert (last.from_, last.action, last.to) == ("arch_reviewing", "RELEASE_CLAIM", "pending_arch_review")
    assert (last.principal, last.as_role) == ("user:ana", "po")
    await at.act("CLAIM_REVIEW")
    assert at.state == "arch_reviewing"
