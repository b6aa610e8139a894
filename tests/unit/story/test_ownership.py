"""A takeover counts against the story that its last owner was working on, and against no other (LC-94, EV-230)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet.events.approval import ApprovalRequested
from fleet.events.report import OwnershipTaken
from fleet.events.story import QuestionAnswered, RepoSource, StoryParked, StoryStarted, StoryUnparked
from fleet.kernel.ids import EntityId
from fleet.story.approvals import subject_of
from fleet.story.intents import Park, RequestGate
from fleet.story.ownership import is_suspect, takeover_cause
from fleet.story.plan import plan
from tests.support.rules import fsm
from tests.support.story_events import PO, SYSTEM, T0, StoryLog, digest, story

ANSWERED = QuestionAnswered(question_id=EntityId("qu-one1"), answer="yes", answered_by=PO)


def taken(log: StoryLog, number: int, *, owner: str = "", cause: str = "restart") -> StoryLog:
    """The story has a new owner: the next incarnation of shard 0, unless one is named."""
    return log.add(
        OwnershipTaken(
            epoch=number,
            previous_epoch=number - 1,
            owner=owner or f"0/a{number}",
            cause=cause,  # pyright: ignore[reportArgumentType]
        )
    )


def count(log: StoryLog) -> int:
    return log.state.takeovers_without_progress


def busy() -> StoryLog:
    """A step is under way."""
    log = story(until="base").step("think/one")
    log.events.pop()
    return log


@pytest.mark.rule("EV-230")
@pytest.mark.parametrize(
    ("previous", "owner", "cause"),
    [
        ("", "council:0/1", "new"),
        ("council:0/1", "council:0/2", "restart"),
        ("council:0/1", "council:1/1", "expired"),
        ("council:0/1", "council:0/1", "expired"),
    ],
)
def test_cause_of_a_takeover_follows_from_both_owners(previous: str, owner: str, cause: str):
    assert takeover_cause(previous, owner) == cause


@pytest.mark.rule("LC-94")
def test_three_owners_that_died_in_one_step_park_the_story_and_name_the_step():
    log = busy()
    for number in (2, 3, 4):
        assert not isinstance(plan(log.state, fsm(), now_ms=T0)[0], Park)
        assert is_suspect(log.state, "0/next") == (number == 3)
        taken(log, number)
        assert count(log) == number - 1
    (park,) = plan(log.state, fsm(), now_ms=T0)
    assert isinstance(park, Park)
    assert park.cause == "crash_loop"
    assert "think/one" in park.detail
    assert "fleet resume" in park.detail


@pytest.mark.rule("LC-94")
def test_owners_that_died_before_they_recorded_anything_count_as_well():
    log = taken(story(until="base"), 2)
    assert count(log) == 0
    for number in (3, 4, 5):
        taken(log, number)
    assert count(log) == 3
    assert isinstance(plan(log.state, fsm(), now_ms=T0)[0], Park)


@pytest.mark.rule("LC-94")
@pytest.mark.parametrize(
    "progress",
    [
        lambda log: log.step("think/two"),
        lambda log: log.add(QuestionAnswered(question_id=EntityId("qu-one1"), answer="yes", answered_by=PO), actor=PO),
    ],
    ids=["step", "person"],
)
def test_anything_recorded_since_starts_the_count_anew(progress: Callable[[StoryLog], StoryLog]):
    log = taken(taken(busy(), 2), 3)
    assert count(log) == 2
    progress(log)
    assert count(log) == 0


def test_owner_that_takes_its_own_story_up_again_has_not_died():
    log = taken(busy(), 2)
    assert count(log) == 1
    taken(log, 3, owner="0/a2", cause="expired")
    assert count(log) == 1


@pytest.mark.rule("LC-94")
def test_story_that_waits_for_a_person_is_not_blamed_for_the_deaths_of_its_owners():
    # No gate of this start is delegated.
    repo = RepoSource(provider="local", url="/srv/text")
    log = story(until="planned").add(StoryStarted(repo=repo, toolchain="python", record=False))
    while plan(log.state, fsm(), now_ms=T0):
        (owed,) = plan(log.state, fsm(), now_ms=T0)
        log.add(requested(log, owed))
    for number in range(2, 8):
        taken(log, number)
    assert count(log) >= 3
    assert plan(log.state, fsm(), now_ms=T0) == ()
    assert log.state.disposition == "active"


def requested(log: StoryLog, owed: object) -> ApprovalRequested:
    """The gate is asked for, as the story owes it."""
    assert isinstance(owed, RequestGate)
    subject = subject_of(log.state, fsm().gate(log.state.lifecycle, owed.gate), None)
    assert subject is not None
    return ApprovalRequested(
        approval_id=EntityId(f"ap-wait-{log.version}"),
        gate=owed.gate,
        role="po",
        actor="human",
        subject=subject,
        risk="low",
        expires_at=T0 + 86_400_000,
        attempt=1,
        card_digest=digest("card"),
        requested_by=SYSTEM,
    )


@pytest.mark.rule("LC-94", "LC-95")
def test_parked_story_is_not_counted_and_unparking_starts_anew():
    log = taken(taken(busy(), 2), 3).add(StoryParked(cause="operator", detail="stop for a while"))
    taken(taken(log, 4), 5)
    assert count(log) == 0
    log.add(StoryUnparked(by=PO, note="go on with it", cause="operator"), actor=PO)
    assert (count(log), log.state.disposition) == (0, "active")
    assert count(taken(log, 6)) == 1


def test_first_owner_is_never_a_takeover():
    log = story(only=("created", "scored")).step("think/one")
    log.events.pop()
    assert count(taken(log, 1, cause="new")) == 0
    assert (log.state.owner, log.state.epoch, log.state.owned_version) == ("0/a1", 1, log.version)
