"""The fold: the same events give the same state, whole or in parts (LC-8, EV-31)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.council.facts import MissingTests
from fleet.events.approval import ApprovalExpired, ApprovalRejected, ApprovalRequested, ApprovalRevoked
from fleet.events.council import BallotCast, CouncilCancelled, DraftFailed
from fleet.events.decision import DecisionAccepted, DecisionRejected
from fleet.events.payload import Payload
from fleet.events.plan import PlanAdopted, PlanProposed, PlanRejected
from fleet.events.registry import EVENT_TYPES
from fleet.events.report import OwnershipTaken
from fleet.events.story import (
    QuestionAnswered,
    QuestionRaised,
    RigorChanged,
    StoryArchived,
    StoryCancelled,
    StoryClosed,
    StoryEdited,
    StoryParked,
    StoryUnparked,
    Topic,
    TransitionRefused,
)
from fleet.kernel.errors import LogCorrupted, UnsupportedSchema
from fleet.kernel.ids import EntityId, StepId
from fleet.story.evolve.story import (
    _HANDLERS,  # pyright: ignore[reportPrivateUsage]
    NO_STATE,
    evolve,
    fold,
)
from tests.support.story_events import (
    AC_1,
    CONTENT,
    DECISION,
    DEVELOPER,
    MERGED,
    PLAN,
    PO,
    STORY,
    SYSTEM,
    TASK,
    TASK_COUNCIL,
    StoryLog,
    created_payload,
    decision_payload,
    digest,
    open_council,
    story,
    subject,
)

FACTS_WITHOUT_STATE = frozenset(
    {
        "TransitionRefused",
        "ContextPackBuilt",
    }
)


@pytest.mark.rule("EV-31")
def test_every_event_type_has_a_fold_handler_or_is_marked_as_without_state():
    handled = {cls.__name__ for cls in _HANDLERS} | {"StoryCreated"}
    assert handled | NO_STATE == set(EVENT_TYPES)
    assert not handled & NO_STATE
    assert FACTS_WITHOUT_STATE <= NO_STATE


def test_fold_of_any_prefix_and_the_rest_equals_the_fold_of_all():
    events = story().events
    whole, state = fold(events), None
    for cut, event in enumerate(events, start=1):
        state = evolve(state, event)
        if cut % 17 == 0:
            assert fold(events[cut:], state) == whole
    assert state == whole


def test_fold_of_nothing_is_no_story():
    assert fold([]) is None


def test_fold_keeps_the_earlier_state_untouched():
    log = story(until="scope")
    before = log.state
    log.move("DESIGN", "reject_design", "DRAFT", loopback=True)
    assert (before.state, log.state.state) == ("DESIGN", "DRAFT")
    assert not before.loopbacks


def test_event_without_state_only_moves_the_version_and_the_time():
    log = story(until="created")
    before = log.state
    log.add(TransitionRefused(state="BACKLOG", event="approve_scope", guards=(), principal=PO))
    assert log.state == before.with_(version=2, updated_ms=log.events[-1].ts_ms)


def test_story_that_begins_with_another_event_is_corrupted():
    log = StoryLog().add(StoryClosed(final_state="DONE", report_id=None))
    with pytest.raises(LogCorrupted, match="begins with StoryCreated"):
        fold(log.events)


@pytest.mark.parametrize("kept", [slice(0, 3, 2), slice(1, None)])
def test_gap_in_the_versions_is_corrupted(kept: slice):
    with pytest.raises(LogCorrupted, match="does not follow"):
        fold(story(until="started").events[kept])


@pytest.mark.rule("EV-30")
def test_event_newer_than_the_reader_stops_the_fold():
    log = story(until="scored")
    newer = replace(log.events[1], schema=99)
    with pytest.raises(UnsupportedSchema):
        fold([log.events[0], newer])


def test_story_of_the_builder_ends_closed_with_its_work_in_the_tree():
    state = story().state
    assert (state.state, state.closed, state.tasks[TASK].state) == ("DONE", True, "done")
    assert state.tree_authors == (DEVELOPER, SYSTEM)
    assert state.councils[TASK_COUNCIL].status == "DECIDED"
    assert state.plan is not None
    assert state.plan.status == "ADOPTED"


def test_edit_changes_text_criteria_and_digest():
    log = story(until="created")
    log.add(
        StoryEdited(
            changes={
                "title": "Slugs",
                "tags": ["a", "b"],
                "acceptance_criteria": [{"ac_id": AC_1, "text": "Given x, y holds"}],
            },
            content_digest=digest("new"),
            previous_content_digest=CONTENT,
        ),
        actor=PO,
    )
    content = log.state.content
    assert (content.title, content.tags, len(content.acceptance_criteria)) == ("Slugs", ("a", "b"), 1)
    assert content.digest == digest("new")


@pytest.mark.rule("LC-90")
def test_loop_back_voids_the_grants_so_far_and_counts():
    log = story(until="merged").gate("qa_passed", subject("tree", STORY, MERGED), role="qa")
    log.move("TEST", "reject_test", "BUILD", loopback=True)
    state = log.state
    assert {a.voided for a in state.approvals.values() if a.status == "granted"} == {True}
    assert (state.state, state.loopbacks) == ("BUILD", {"reject_test": 1})


def test_parked_story_goes_on_after_unparking_with_a_clean_count():
    log = story(until="base")
    log.add(StoryParked(cause="stuck", detail="nothing moved"))
    parked = log.state
    log.add(StoryUnparked(by=PO, note="look again please", cause="stuck"))
    assert parked.park is not None
    assert (parked.disposition, parked.park.cause, parked.park.version) == ("parked", "stuck", parked.version)
    assert (log.state.disposition, log.state.park, log.state.takeovers_without_progress) == ("active", None, 0)


@pytest.mark.parametrize(
    ("payload", "disposition"),
    [
        (StoryCancelled(reason="nobody needs it any more"), "cancelled"),
        (StoryArchived(export_digest=digest("export")), "archived"),
    ],
)
def test_end_of_a_story_is_its_disposition_not_its_state(payload: Payload, disposition: str):
    log = story(until="scope").add(payload)
    assert (log.state.disposition, log.state.state) == (disposition, "DESIGN")


def test_rigor_change_is_the_rigor_from_there_on():
    log = story(until="created").add(RigorChanged(from_="L1", to="L2", reason="a payment is involved"))
    assert log.state.rigor == "L2"


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (ApprovalExpired(approval_id=EntityId("ap-one1"), attempt=1), "expired"),
        (ApprovalRevoked(approval_id=EntityId("ap-one1"), principal=PO, reason="a mistake of mine"), "revoked"),
        (
            ApprovalRejected(
                approval_id=EntityId("ap-one1"), principal=PO, as_role="po", reason="not like this", delegated=False
            ),
            "rejected",
        ),
    ],
)
def test_request_ends_in_the_status_that_was_recorded(payload: Payload, status: str):
    log = story(until="scored").add(request("ap-one1")).add(payload)
    assert log.state.approvals["ap-one1"].status == status
    other = story(until="scored").add(payload)
    assert other.state.approvals == {}


def request(approval_id: str, gate: str = "approve_scope") -> ApprovalRequested:
    return ApprovalRequested(
        approval_id=EntityId(approval_id),
        gate=gate,
        role="po",
        actor="human",
        subject=subject("content", STORY, CONTENT),
        risk="low",
        expires_at=1_900_000_000_000,
        attempt=1,
        card_digest=digest("card"),
        requested_by=PO,
    )


def test_decision_moves_through_its_statuses_and_unknown_ones_change_nothing():
    log = story(until="created").add(decision_payload())
    assert log.state.decisions[DECISION].status == "PROPOSED"
    log.add(DecisionRejected(decision_id=DECISION, by=PO, as_role="po", reason="it costs too much"))
    assert log.state.decisions[DECISION].status == "REJECTED"
    before = log.state.decisions
    log.add(DecisionAccepted(decision_id=EntityId("de-other9"), by=PO, as_role="po"))
    assert log.state.decisions == before


def test_second_finish_of_a_step_counts_nothing_again():
    log = story(until="base").step("think/one", tokens=(10, 5))
    once = log.state
    finish = next(p for p in reversed(log.decoded_payloads("StepFinished")))
    log.add(finish)
    assert (log.state.tokens, log.state.calls) == (once.tokens, once.calls)
    assert (once.steps[StepId("think/one")].finished is not None, once.tokens) == (True, 15)


@pytest.mark.rule("LC-94")
def test_takeover_counts_against_a_story_only_with_a_step_under_way():
    taken = OwnershipTaken(epoch=2, previous_epoch=1, owner="0/a2", cause="expired")
    idle = story(until="base").add(taken)
    assert idle.state.takeovers_without_progress == 0
    busy = story(until="base").step("think/one")
    busy.events.pop()
    busy.add(taken)
    assert busy.state.takeovers_without_progress == 1
    busy.step("think/two")
    assert busy.state.takeovers_without_progress == 0


def test_question_is_open_until_it_is_answered():
    raised = QuestionRaised(
        question_id=EntityId("qu-one1"),
        kind="question",
        text="Which umlauts?",
        severity="blocking",
        about=Topic(kind="story", id=STORY),
        asked_by=DEVELOPER,
    )
    log = story(until="created").add(raised)
    assert log.state.questions["qu-one1"].answer is None
    log.add(QuestionAnswered(question_id=EntityId("qu-one1"), answer="All", answered_by=PO))
    assert log.state.questions["qu-one1"].answer == "All"
    log.add(QuestionAnswered(question_id=EntityId("qu-two2"), answer="None", answered_by=PO))
    assert set(log.state.questions) == {"qu-one1"}


@pytest.mark.rule("PL-10")
def test_adopting_a_plan_supersedes_the_one_before():
    log = story(until="planned")
    first = log.decoded_payloads("PlanProposed")[0]
    assert isinstance(first, PlanProposed)
    second = first.model_copy(update={"plan_id": EntityId("pv-next2"), "version": 2})
    log.add(second)
    log.add(PlanAdopted(plan_id=EntityId("pv-next2"), version=2, decision_id=DECISION))
    assert {k: p.status for k, p in log.state.plans.items()} == {PLAN: "SUPERSEDED", "pv-next2": "ADOPTED"}
    log.add(PlanRejected(plan_id=EntityId(PLAN), reason="an older idea", by=PO))
    assert log.state.plans[PLAN].status == "REJECTED"


def test_rejected_task_loses_candidate_and_author_and_keeps_the_feedback():
    log = story(until="task")
    log.task(TASK, "arch_reviewing", "REJECT_DESIGN", "arch_rejected", feedback="the table is missing")
    log.task(TASK, "arch_rejected", "REVISE_CODE", "implementing")
    task = log.state.tasks[TASK]
    assert (task.candidate_tree, task.author, task.attempt) == (None, None, 2)
    assert (task.feedback, task.rejections) == (("the table is missing",), {"REJECT_DESIGN": 1})


@pytest.mark.rule("CN-48", "CN-109")
def test_second_ballot_of_a_voter_changes_nothing():
    log = story(until="task")
    record = log.state.councils[TASK_COUNCIL]
    cast = log.decoded_payloads("BallotCast")[-1]
    assert isinstance(cast, BallotCast)
    log.add(cast.model_copy(update={"votes": {}, "ranking": ()}))
    assert log.state.councils[TASK_COUNCIL].deliberation == record.deliberation


def test_failed_test_author_counts_as_having_delivered():
    log = StoryLog().add(created_payload(), actor=PO).add(open_council(TASK_COUNCIL, task_id=TASK))
    assert log.state.councils[TASK_COUNCIL].deliberation.tests is None
    log.add(DraftFailed(council_id=TASK_COUNCIL, member_id=EntityId("qa-001"), attempt=1, code="reply_malformed"))
    assert log.state.councils[TASK_COUNCIL].deliberation.tests == MissingTests("qa-001", "reply_malformed")


def test_cancelled_council_says_so_and_events_of_an_unknown_one_change_nothing():
    log = story(until="created").add(open_council(TASK_COUNCIL, task_id=TASK))
    log.add(CouncilCancelled(council_id=TASK_COUNCIL, reason="the task was discarded"))
    assert log.state.councils[TASK_COUNCIL].status == "CANCELLED"
    log.add(CouncilCancelled(council_id=EntityId("co-other9"), reason="the task was discarded"))
    assert set(log.state.councils) == {TASK_COUNCIL}
