"""Recorded stories fold and plan to what they came to when they were recorded (GL-16, EV-30; F20)."""

from __future__ import annotations

import pytest

from fleet.events.codec import decode, encode
from fleet.story.snapshot import state_schema
from tests.support.histories import History, recorded, told

RECORDED = recorded()
MEND = "if this is meant: raise _FOLD of fleet/story/snapshot.py, then run `python -m tests.support.histories --again`"
each = pytest.mark.parametrize("history", RECORDED, ids=[history.name for history in RECORDED])


def test_there_are_recorded_histories() -> None:
    assert {"delivered", "cancelled"} <= {history.name for history in RECORDED}


@pytest.mark.rule("EV-30", "GL-16")
@each
def test_every_version_of_a_recorded_story_owes_what_it_owed_then(history: History) -> None:
    def plans(entries: object) -> list[object]:
        return [{k: v for k, v in e.items() if k != "state_digest"} for e in entries]  # type: ignore[attr-defined]

    assert plans(told(history.export)) == plans(history.versions), MEND


@pytest.mark.rule("EV-6", "GL-16")
@each
def test_every_version_of_a_recorded_story_has_the_state_it_had_then(history: History) -> None:
    assert history.schema == state_schema(), f"the form of a story's state is another one; {MEND}"
    assert [e["state_digest"] for e in told(history.export)] == [e["state_digest"] for e in history.versions], MEND


@pytest.mark.rule("EV-30")
@each
def test_recorded_bodies_are_read_by_the_present_models(history: History) -> None:
    for event in history.export.events:
        payload = decode(event)
        assert payload.type == event.type
        assert encode(payload).schema >= event.schema
