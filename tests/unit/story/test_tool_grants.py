"""Approvals of tool calls as the policy reads them from a story."""

from __future__ import annotations

import pytest

from fleet.events.approval import ApprovalGranted, ApprovalRequested, Subject
from fleet.events.step import PolicyRef, Reserve, StepStarted
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import Digest, EntityId, Principal, RunKey, StepId
from fleet.story.state import tool_approvals
from tests.support.story_events import SYSTEM, T0, StoryLog, story

ASKED = digest_of(b"the call")
GATE = "tool:kubectl.delete"
ANN = Principal("user:ann")


def request(log: StoryLog, name: str = "ap-one", *, gate: str = GATE, subject: Digest = ASKED) -> EntityId:
    """A request for consent is on record."""
    approval_id = EntityId(name)
    log.add(
        ApprovalRequested(
            approval_id=approval_id,
            gate=gate,
            role="devops",
            actor="human",
            subject=Subject(kind="object", id="kubectl.delete", digest=subject),
            risk="high",
            expires_at=T0 + 3_600_000,
            attempt=1,
            card_digest=subject,
            requested_by=SYSTEM,
        )
    )
    return approval_id


def grant(log: StoryLog, approval_id: EntityId, *, subject: Digest = ASKED) -> None:
    """A person said yes."""
    log.add(
        ApprovalGranted(
            approval_id=approval_id,
            principal=ANN,
            as_role="devops",
            subject_digest=subject,
            grant_expires_at=T0 + 900_000,
            delegated=False,
        )
    )


def start(log: StoryLog, approval_id: EntityId) -> None:
    """A step is started on this approval."""
    log.add(
        StepStarted(
            step_id=StepId("apply/delete"),
            kind="tool",
            tool="kubectl",
            op="delete",
            effect="UNSAFE",
            as_role="devops",
            principal=Principal("agent:devops-001"),
            request_digest=ASKED,
            key=RunKey(ASKED.hex),
            deadline_ms=T0,
            policy=PolicyRef(rule_id="devops-work", digest=ASKED),
            approval_id=approval_id,
            reserve=Reserve(),
        )
    )


def test_story_without_tool_calls_has_no_tool_approvals() -> None:
    assert tool_approvals(story(until="closed").state) == ()


@pytest.mark.rule("RT-32")
def test_request_and_its_grant_are_read_from_the_record() -> None:
    log = story(until="scored")
    one = request(log)
    assert [(a.status, a.principal, a.subject) for a in tool_approvals(log.state)] == [("requested", None, ASKED)]
    grant(log, one)
    (found,) = tool_approvals(log.state)
    assert (found.approval_id, found.gate, found.status, found.principal) == ("ap-one", GATE, "granted", ANN)
    assert (found.as_role, found.expires_at_ms, found.is_delegated) == ("devops", T0 + 900_000, False)
    assert not found.is_consumed


def test_grant_of_another_digest_counts_for_that_digest_only() -> None:
    log = story(until="scored")
    grant(log, request(log), subject=digest_of(b"another call"))
    assert [a.subject for a in tool_approvals(log.state)] == [digest_of(b"another call")]


@pytest.mark.rule("RT-33")
def test_approval_that_a_step_names_is_used_up_with_every_older_one_for_the_same_call() -> None:
    log = story(until="scored")
    for name, subject in (("ap-one", ASKED), ("ap-other", digest_of(b"another call")), ("ap-two", ASKED)):
        grant(log, request(log, name, subject=subject), subject=subject)
    start(log, EntityId("ap-two"))
    grant(log, request(log, "ap-three"))
    assert {a.approval_id: a.is_consumed for a in tool_approvals(log.state)} == {
        "ap-one": True,
        "ap-other": False,
        "ap-two": True,
        "ap-three": False,
    }
    assert [a.approval_id for a in tool_approvals(log.state)] == ["ap-one", "ap-other", "ap-two", "ap-three"]
