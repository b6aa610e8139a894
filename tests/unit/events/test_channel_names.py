"""What clients of other names of channels look for is here under these types (EV-260..EV-268)."""

from __future__ import annotations

import pytest

from fleet.events.codec import published
from fleet.events.registry import EVENT_TYPES
from fleet.kernel.ids import RunKey
from fleet.log.redis.keys import dlq_key, run_out_key
from tests.support.event_samples import samples
from tests.support.graphs import stored

NAMES = (
    ("EV-260", "CASE_CREATED", "StoryCreated", "title acceptance_criteria"),
    ("EV-260", "TRANSITION", "StoryTransitioned", "from event to"),
    ("EV-260", "SUBTASK_ADDED", "TaskAdded", "task"),
    ("EV-260", "HUMAN_APPROVAL", "ApprovalGranted", "approval_id principal"),
    ("EV-260", "HUMAN_APPROVAL", "ApprovalRejected", "approval_id principal"),
    ("EV-260", "SCORE_UPDATED", "StoryScored", "score"),
    ("EV-260", "SCORE_UPDATED", "WorkspaceScored", "score"),
    ("EV-261", "agent.requests", "StepStarted", "as_role task_id request_digest"),
    ("EV-262", "agent.response.completed", "StepFinished", "outcome"),
    ("EV-262", "agent.responses", "DraftReceived", "candidate_id"),
    ("EV-262", "agent.response.failed", "DraftFailed", "member_id"),
    ("EV-262", "agent.responses", "WorkspaceReported", "report_digest"),
    ("EV-263", "context.updated", "ContextChanged", "changes version hash"),
    ("EV-266", "task.derivation.requested", "TaskDerivationRequested", "content_digest"),
    ("EV-266", "task.derivation.completed", "PlanProposed", "tasks"),
    ("EV-266", "task.derivation.failed", "TaskDerivationFailed", "problems"),
    ("EV-267", "planning.backlog_review.story.reviewed", "CeremonyStoryReviewed", "story_id"),
)


@pytest.mark.parametrize(
    ("name", "fields"),
    [pytest.param(*r[2:], marks=pytest.mark.rule(r[0]), id=f"{r[1]} {r[2]}") for r in NAMES],
)
def test_type_carries_what_the_other_name_carries(name: str, fields: str) -> None:
    envelope = published(stored(samples()[name], stream="story:st-cart7", version=7))
    assert envelope["type"] == name
    assert set(fields.split()) <= envelope["body"].keys()


@pytest.mark.rule("EV-263")
def test_change_of_context_is_told_in_its_group() -> None:
    assert EVENT_TYPES["ContextChanged"].group == "context"
    (change, *_) = published(stored(samples()["ContextChanged"], stream="story:st-cart7", version=7))["body"]["changes"]
    assert "entity_id" in change


@pytest.mark.rule("EV-264", "EV-265")
def test_log_lines_and_dead_letters_have_keys_of_their_partition() -> None:
    assert dlq_key("p00").endswith(":dlq")
    assert "p00" in dlq_key("p00")
    run = RunKey("0" * 64)
    assert run_out_key(run).endswith(f":run:{run}:out")


@pytest.mark.rule("EV-268")
def test_envelope_has_the_fields_of_the_other_one() -> None:
    envelope = published(stored(samples()["StoryStarted"], stream="story:st-cart7", version=7))
    assert envelope["event_id"] == "story:st-cart7/7"
    assert {"stream", "ts", "origin", "trace_id"} <= envelope.keys()
