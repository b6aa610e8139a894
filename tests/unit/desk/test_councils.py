"""Where a council stands, in the words that people and programs read (CN-15)."""

from __future__ import annotations

import pytest

from fleet.desk.councils import status_of
from fleet.events.payload import Payload
from fleet.kernel.ids import EntityId
from tests.support.event_samples import samples
from tests.support.story_events import open_council, story

COUNCIL = EntityId("co-asked1")


@pytest.mark.rule("CN-15")
@pytest.mark.parametrize(
    ("event", "changes", "status"),
    [
        (None, {}, "PENDING"),
        ("StoryParked", {"cause": "internal_error"}, "FAILED"),
        ("CouncilUndecided", {"council_id": COUNCIL, "reason": "deadline"}, "TIMEOUT"),
        ("CouncilUndecided", {"council_id": COUNCIL}, "COMPLETED"),
        ("CouncilCancelled", {"council_id": COUNCIL}, "CANCELLED"),
    ],
)
def test_council_that_has_not_begun_failed_or_ran_out_of_time_says_so(
    event: str | None, changes: dict[str, str], status: str
) -> None:
    more: tuple[Payload, ...] = (samples()[event].model_copy(update=changes),) if event else ()
    state = story(until="scope").add(open_council(COUNCIL), *more).state
    assert status_of(state, state.councils[COUNCIL]) == status
