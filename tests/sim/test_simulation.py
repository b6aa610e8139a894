"""Thousands of seeded runs of a small fleet whose stores, processes and clocks fail (F11, F15, F23).

FLEET_SIM_SEEDS runs and FLEET_SIM_FIRST is the first seed; without them 2,000 lean runs and 100 of whole stories are
made: 250 and 50 by `make test`, the rest by `make test-wide`. A failing seed prints its faults and the command that
runs it again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim_spans import Runs, Span
from tests.support.sim_world import FULL, LEAN, simulate

FIRST = int(os.environ.get("FLEET_SIM_FIRST", "0"))
SEEDS = int(os.environ.get("FLEET_SIM_SEEDS", "2000"))
CHUNK = 125
ROOT = Path(__file__).resolve().parents[2]

ALWAYS_SEEN = (
    "fault: crash before",
    "fault: crash after",
    "fault: lost reply",
    "fault: unavailable",
    "fault: freeze before",
    "fault: freeze after",
    "slow call",
    "killed at any moment",
    "sandbox killed",
    "zombie",
    "clock of a shard jumped",
    "clock of the store jumped",
    "hint lost",
    "hint repeated",
    "hints reordered",
    "command delivered again",
    "fenced",
    "run fenced",
    "duplicate returned",
    "claim lost",
    "lease lost",
    "self-fenced",
    "takeover",
    "cursor lost race",
    "run answered from the record",
    "crash loop parked",
    "parked in an outage",
)
"""What all runs together must come to see (O8): otherwise they show less than they say."""


def _spans(seeds: int, size: int) -> list[tuple[int, int]]:
    return [(FIRST + n, min(size, seeds - n)) for n in range(0, seeds, size)]


LEAN_SPANS = _spans(SEEDS, CHUNK)
FULL_SPANS = _spans(max(1, SEEDS // 6), 25)


# All that somebody asks for; else what is enough to see everything, and the rest in `make test-wide`.
LEAN_FIRST = LEAN_SPANS if "FLEET_SIM_SEEDS" in os.environ else LEAN_SPANS[:2]
FULL_FIRST = FULL_SPANS if "FLEET_SIM_SEEDS" in os.environ else FULL_SPANS[:10]
LEAN_REST, FULL_REST = LEAN_SPANS[len(LEAN_FIRST) :], FULL_SPANS[len(FULL_FIRST) :]


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    """The first spans at once, on every core, behind whatever else the machine has to do: no clock of theirs is real.

    The first test that asks for one of them waits for most of the others too.
    """
    with Runs([(LEAN, *span) for span in LEAN_FIRST] + [(FULL, *span) for span in FULL_FIRST]) as started:
        yield started


@pytest.fixture(scope="module")
def more_runs() -> Iterator[Runs]:
    """The rest of the spans."""
    with Runs([(LEAN, *span) for span in LEAN_REST] + [(FULL, *span) for span in FULL_REST]) as started:
        yield started


def _heals(found: Span, count: int) -> None:
    assert not found.broken, f"{len(found.broken)} of {count} seeds are broken\n" + "\n\n".join(found.broken[:3])


@pytest.mark.rule("PL-48", "GL-19", "EV-3", "EV-4", "EV-14", "EV-15", "EV-20")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "count"), LEAN_FIRST)
def test_lean_fleet_under_faults_heals_and_comes_to_the_end_without_faults(runs: Runs, first: int, count: int) -> None:
    _heals(runs.span(LEAN, first, count), count)


@pytest.mark.rule("PL-48", "PL-43", "RC-51", "RC-54")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "count"), FULL_FIRST)
def test_full_story_under_faults_heals_and_comes_to_the_end_without_faults(runs: Runs, first: int, count: int) -> None:
    _heals(runs.span(FULL, first, count), count)


@pytest.mark.wide
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "count"), LEAN_REST)
def test_more_lean_fleets_under_faults_heal_and_come_to_the_end_without_faults(
    more_runs: Runs, first: int, count: int
) -> None:
    _heals(more_runs.span(LEAN, first, count), count)


@pytest.mark.wide
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("first", "count"), FULL_REST)
def test_more_full_stories_under_faults_heal_and_come_to_the_end_without_faults(
    more_runs: Runs, first: int, count: int
) -> None:
    _heals(more_runs.span(FULL, first, count), count)


@pytest.mark.timeout(3600)
@pytest.mark.skipif(SEEDS < 1000, reason="fewer than 1,000 seeds need not come to see everything")
def test_seeds_together_come_to_see_every_interesting_state(runs: Runs) -> None:
    spans = [runs.span(LEAN, *s) for s in LEAN_FIRST] + [runs.span(FULL, *s) for s in FULL_FIRST]
    seen: Counter[str] = Counter()
    for found in spans:
        seen.update(found.seen)
    missing = [name for name in ALWAYS_SEEN if not seen[name]]
    assert not missing, f"O8: never seen in so many seeds: {missing}; seen: {dict(seen)}"


def test_seed_run_twice_is_the_same_run_byte_for_byte() -> None:
    for scenario in (LEAN, FULL):
        first, again, other = simulate(11, scenario), simulate(11, scenario), simulate(12, scenario)
        assert first.trace == again.trace
        assert first.faults == again.faults
        assert first.trace != other.trace


def test_seed_run_in_another_process_is_the_same_run_byte_for_byte() -> None:
    code = "from tests.support.sim_world import LEAN, simulate; print(simulate(11, LEAN).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == simulate(11, LEAN).trace


def test_failing_seed_names_its_faults_and_the_command_that_runs_it_again() -> None:
    outcome = simulate(11, LEAN)
    told = outcome.told()
    assert outcome.faults
    assert all(fault in told for fault in outcome.faults)
    assert "FLEET_SIM_FIRST=11 FLEET_SIM_SEEDS=1 pytest tests/sim/test_simulation.py -k lean" in told
