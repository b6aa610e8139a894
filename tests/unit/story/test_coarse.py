"""Where a task stands, in five words (LC-123)."""

from __future__ import annotations

import pytest

from fleet.events.story import StoryParked
from fleet.story.coarse import coarse_status
from tests.support.rules import fsm
from tests.support.story_events import DOC_TASK, TASK, StoryLog, story

WORDS = {
    "todo": "todo",
    "implementing": "in_progress",
    "dev_completed": "in_progress",
    "arch_rejected": "in_progress",
    "qa_failed": "in_progress",
    "pending_arch_review": "in_review",
    "arch_reviewing": "in_review",
    "arch_approved": "in_review",
    "pending_qa": "in_review",
    "qa_testing": "in_review",
    "qa_passed": "in_review",
    "pending_po_approval": "in_review",
    "po_approved": "in_review",
    "done": "completed",
    "cancelled": "cancelled",
}


def _word(log: StoryLog, task_id: str) -> str:
    state = log.state
    return coarse_status(state, state.tasks[task_id])


@pytest.mark.rule("LC-123")
@pytest.mark.parametrize(("state", "word"), WORDS.items())
def test_every_state_of_the_workflow_has_its_word(state: str, word: str):
    log = story(until="planned")
    assert _word(log.task(TASK, "todo", "ASSIGN_TO_DEVELOPER", state), TASK) == word


@pytest.mark.rule("LC-123")
def test_table_above_holds_every_state_of_the_workflow():
    rows = fsm().task_workflow.transitions
    assert set(WORDS) == {s for row in rows for s in (*row.from_, row.to)}


@pytest.mark.rule("LC-123", "PL-46")
def test_task_that_waits_for_a_cancelled_or_parked_task_is_blocked():
    log = story(until="planned")
    assert _word(log, DOC_TASK) == "todo"
    log.add(StoryParked(cause="operator", detail="wait"))
    assert (_word(log, TASK), _word(log, DOC_TASK)) == ("todo", "blocked")
    cancelled = story(until="planned").task(TASK, "todo", "DISCARD_TASK", "cancelled")
    assert _word(cancelled, DOC_TASK) == "blocked"
