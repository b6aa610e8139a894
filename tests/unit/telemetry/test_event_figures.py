"""Figures of events: what is on record is counted, with labels of closed lists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.events.codec import decode
from fleet.events.payload import Payload
from fleet.telemetry.catalogue import CATALOGUE
from fleet.telemetry.event_figures import figures_of
from fleet.telemetry.open_stories import OpenStory, ages_of
from tests.support.event_samples import samples
from tests.support.histories import recorded
from tests.support.story_events import T0, story

HISTORIES = {history.name: history.export for history in recorded()}
BOUND = 64
"""Characters of a label: words, never text."""


@pytest.mark.parametrize("payload", list(samples().values()), ids=lambda p: p.type)
def test_figures_of_every_event_are_in_the_catalogue_with_its_labels(payload: Payload) -> None:
    found = list(figures_of(payload, at_ms=T0))
    assert found[0].labels == {"type": payload.type}
    for figure in found:
        metric = CATALOGUE[figure.name]
        assert set(figure.labels) == set(metric.labels)
        assert metric.kind in ("counter", "histogram")
        assert all(len(value) < BOUND and "\n" not in value for value in figure.labels.values())
        assert figure.value >= 0


@pytest.mark.parametrize("name", sorted(HISTORIES))
def test_steps_of_a_story_are_counted_once_with_kind_role_and_time(name: str) -> None:
    state, results, seconds = OpenStory(), 0, 0
    for event in HISTORIES[name].events:
        payload = decode(event)
        started = state.take(event, payload)
        assert state.take(event, payload) is None
        for figure in figures_of(payload, at_ms=event.ts_ms, started=started):
            results += figure.name == "fleet_steps_total"
            seconds += figure.name == "fleet_step_seconds"
            assert "unknown" not in figure.labels.values()
    assert results == seconds == sum(event.type == "StepFinished" for event in HISTORIES[name].events)


def test_result_whose_start_is_not_known_is_counted_without_a_time() -> None:
    finished = next(decode(e) for e in story().events if e.type == "StepFinished")
    found = {figure.name: figure for figure in figures_of(finished, at_ms=T0)}
    assert found["fleet_steps_total"].labels["kind"] == "unknown"
    assert "fleet_step_seconds" not in found


def test_dispositions_and_ages_follow_the_events() -> None:
    log, state = story(), OpenStory()
    seen = set()
    for event in log.events:
        state.take(event, decode(event))
        seen.add((state.disposition, len(state.pending)))
    assert ("active", 1) in seen
    assert state.disposition == "over"
    state.pending = {"ap-a": 0, "ap-b": 5 * 3_600_000, "ap-c": 20 * 3_600_000, "ap-d": 30 * 3_600_000}
    assert ages_of([state], now_ms=30 * 3_600_000) == {"below_1h": 1, "below_8h": 0, "below_24h": 1, "older": 2}


@pytest.mark.parametrize(
    ("kinds", "disposition"),
    [
        (["StoryParked"], "parked"),
        (["StoryParked", "StoryUnparked"], "active"),
        (["StoryPaused"], "paused"),
        (["StoryPaused", "StoryResumed"], "active"),
        (["StoryCancelled"], "over"),
    ],
)
def test_disposition_is_that_of_the_last_turn(kinds: list[str], disposition: str) -> None:
    first = story(until="created").events[0]
    found, state = samples(), OpenStory()
    for version, kind in enumerate(kinds, start=1):
        event = replace(first, version=version)
        state.take(event, found[kind])
    assert state.disposition == disposition
