"""A pause of the fleet stops every story where it stands, and nothing is different afterwards (PL-50)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.events.codec import decode
from fleet.events.envelope import StoredEvent
from fleet.events.story import StoryClosed
from fleet.kernel.ids import StreamId
from tests.support.sim_judge import expected_ends, judge, parks_of
from tests.support.sim_world import FULL, Outcome, Scenario, simulate
from tests.support.simulation import simulated

PEACE = Scenario("paused", stories=("branch",), shards=2, faults_until_s=0.0, pauses=3)


def _events(outcome: Outcome, stream: str) -> list[StoredEvent]:
    with simulated("read") as loop:
        return loop.run_until_complete(outcome.stores.log.read(StreamId(stream)))


@pytest.mark.rule("PL-50")
@pytest.mark.parametrize("seed", range(4))
def test_story_under_way_stands_still_at_a_pause_and_ends_in_the_same_tree(seed: int):
    outcome = simulate(seed, PEACE)
    verdict = judge(outcome, expected_ends(replace(PEACE, pauses=0)))
    assert parks_of(verdict) == []
    story = _events(outcome, f"story:{outcome.stories[0]}")
    assert isinstance(decode(story[-1]), StoryClosed)
    assert [e.type for e in _events(outcome, "platform:main")] == ["FleetPaused", "FleetResumed"] * 3
    starts = [e.ts_ms for e in story if e.type == "StepStarted"]
    under_way = 0
    for began_ms, ended_ms in outcome.pauses:
        # Told to the admin means recorded before; a step that was being written then is written within the moment.
        assert [ms for ms in starts if began_ms + 1_000 < ms < ended_ms] == []
        under_way += starts[0] < began_ms < starts[-1]
    assert under_way > 0, "no pause met the story under way"


@pytest.mark.rule("PL-50", "EV-20", "CN-122")
def test_pauses_under_faults_of_every_kind_lose_nothing_and_nothing_stays_paused():
    scenario = replace(FULL, name="paused-full", stories=("branch",), pauses=3)
    expected = expected_ends(replace(scenario, pauses=0))
    for seed in range(4):
        outcome = simulate(seed, scenario)
        judge(outcome, expected)
        assert [e.type for e in _events(outcome, "platform:main")] == ["FleetPaused", "FleetResumed"] * 3
