"""A snapshot of a story is as good as its events, at every version (EV-6)."""

from __future__ import annotations

import pytest

from fleet.events.report import OwnershipTaken
from fleet.events.step import StepOutcomeUnknown, StepResolved
from fleet.events.story import StoryParked, StoryUnparked
from fleet.kernel.errors import LogCorrupted
from fleet.kernel.ids import StepId
from fleet.story.evolve.story import fold
from fleet.story.snapshot import decode_state, encode_state, state_schema
from fleet.story.state import StoryState
from tests.support.story_events import PO, StoryLog, digest, story


def eventful() -> StoryLog:
    """A whole story in which everything happens that a state can hold: loop-backs, parks, takeovers, unknown steps."""
    log = story(until="merged").move("TEST", "reject_test", "BUILD", loopback=True)
    log.step("deploy/1").events.pop()
    log.add(OwnershipTaken(epoch=2, previous_epoch=1, owner="0/a2", cause="restart"))
    log.add(StepOutcomeUnknown(step_id=StepId("deploy/1"), sent_digest=digest("sent"), sent_at=7))
    log.add(StoryParked(cause="outcome_unknown", detail="a deployment", ref="deploy/1"))
    log.add(StepResolved(step_id=StepId("deploy/1"), outcome="not_happened", by=PO, note="the host shows the old one"))
    log.add(StoryUnparked(by=PO, note="it did not happen", cause="outcome_unknown"))
    return log


@pytest.mark.rule("EV-6")
@pytest.mark.parametrize("log", [story(), eventful()], ids=["closed", "eventful"])
def test_fold_from_a_snapshot_of_any_prefix_equals_the_fold_of_all(log: StoryLog):
    events = log.events
    whole, state = fold(events), None
    for cut, event in enumerate(events, start=1):
        state = fold([event], state)
        assert isinstance(state, StoryState)
        restored = decode_state(encode_state(state))
        assert restored == state, event.event_id
        assert fold(events[cut:], restored) == whole, event.event_id


def test_snapshot_is_the_same_bytes_for_the_same_state():
    assert encode_state(story().state) == encode_state(decode_state(encode_state(story().state)))


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", encode_state(story().state)[:-9]])
def test_bytes_that_are_no_state_are_refused(data: bytes):
    with pytest.raises(LogCorrupted, match="cannot be read"):
        decode_state(data)


def test_schema_names_the_shape_of_the_state():
    assert state_schema() == state_schema()
    assert state_schema().startswith("story-state/")
