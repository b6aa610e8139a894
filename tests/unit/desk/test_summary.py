"""The last screen of a run: what is on record, and nothing else."""

from __future__ import annotations

import pytest

from fleet.desk.summary import phase_seconds, summarise
from fleet.events.story import StoryCancelled, StoryParked
from tests.support.story_events import STORY, story


def test_finished_story_names_branch_tests_score_and_councils():
    log = story()
    facts = summarise(log.state, log.events, waiting_for=None)
    assert (facts["outcome"], facts["branch"], facts["commit"]) == ("done", f"fleet/{STORY}", "0c" * 20)
    assert (facts["tests"]["unit"]["passed"], facts["tests"]["e2e"], facts["verdict"]) == (12, None, "pass")
    assert (facts["ballots"], len(facts["councils"])) == (4, 2)
    labels = [label for label, _ in facts["lines"]]
    assert labels[:4] == ["branch", "commit", "unit", "quality"]
    assert "next" not in labels
    (why,) = [value for label, value in facts["lines"] if label == "why"]
    assert why == (
        "chose the work of developer-001: gates passed, 4 of 4 independent tests, 20 lines; developer-002: gates "
        "passed, 4 of 4 independent tests, 20 lines; ballots decided between equals"
    )


@pytest.mark.parametrize(
    ("payload", "outcome"),
    [
        (StoryParked(cause="stuck", detail="nothing moved"), "parked"),
        (StoryCancelled(reason="nobody needs it any more"), "cancelled"),
        (None, "waiting"),
    ],
)
def test_story_that_is_not_finished_says_why_and_names_no_branch(payload: object, outcome: str):
    log = story(until="created")
    if payload is not None:
        log.add(payload)  # pyright: ignore[reportArgumentType]
    facts = summarise(log.state, log.events, waiting_for="look at it")
    assert (facts["outcome"], facts["branch"], facts["score"]) == (outcome, None, None)
    assert ("next", "look at it") in facts["lines"]


def test_time_of_each_state_adds_up_to_the_whole():
    log = story(until="scope").wait(59_000).move("DESIGN", "reject_design", "DRAFT", loopback=True)
    found = phase_seconds(log.events)
    assert list(found) == ["BACKLOG", "DRAFT", "DESIGN"]
    assert found["DESIGN"] == 60.0
    assert sum(found.values()) == (log.events[-1].ts_ms - log.events[0].ts_ms) / 1000
    assert phase_seconds([]) == {}
