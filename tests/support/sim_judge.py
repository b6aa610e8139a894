"""The oracle's word on a simulated run, and what its stories come to when nothing goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from fleet.kernel.ids import StoryId
from fleet.story.state import StoryState
from tests.support.oracle import Effects, Verdict, check, what_differs
from tests.support.sim_world import Outcome, Scenario, simulate
from tests.support.simulation import simulated

EXCUSED = frozenset({"model_unavailable", "model_timeout", "sandbox_unavailable", "tool_timeout"})
"""Codes of errors that faults alone may park a story with, besides a crash loop; every other park is a defect."""

NOT_COMPARED = frozenset({"request_digest", "key"})
"""What depends on when the story was created: the date of its commits."""


@dataclass(frozen=True)
class Ends:
    """What stories came to: their states, and the digests of those."""

    states: Mapping[StoryId, StoryState]
    digests: Mapping[StoryId, str]


def judge(outcome: Outcome, expected: Ends | None) -> Verdict:
    """The oracle's word on a run: O1 to O7, and that no story was parked or task died by a defect.

    What the run came to see is added to `Outcome.seen`. Raises AssertionError.
    """
    assert not outcome.failures, f"a task failed unseen: {outcome.failures[0]}"
    assert not outcome.stores.leases.broken, outcome.stores.leases.broken[0]
    with simulated("oracle") as loop:
        looking = check(
            outcome.stores.log,
            acknowledged=outcome.acknowledged,
            graph=outcome.stores.graph if outcome.healed else None,
            effects=Effects(keyed=dict(outcome.stores.forge.moved)),
            healed=outcome.healed,
            ignore=NOT_COMPARED,
        )
        verdict = loop.run_until_complete(looking)
    assert outcome.healed, f"O7: not healed within {outcome.scenario.heals_in_s} s after the faults"
    if expected is not None and verdict.digests != expected.digests:
        story = next(s for s in expected.digests if verdict.digests.get(s) != expected.digests[s])
        differ = what_differs(expected.states[story], verdict.states[story], ignore=NOT_COMPARED)
        raise AssertionError(f"O6: {story} came to another end than without faults: {differ}")
    outcome.seen["takeover"] += verdict.takeovers
    for cause, code, detail in parks_of(verdict):
        assert cause == "crash_loop" or code in EXCUSED, f"O7: a story was parked by {cause} ({code}): {detail}"
        outcome.seen["crash loop parked" if cause == "crash_loop" else "parked in an outage"] += 1
    return verdict


def parks_of(verdict: Verdict) -> list[tuple[str, str, str]]:
    """Cause, code and detail of every time that a story was parked."""
    bodies = [json.loads(e.body) for events in verdict.events.values() for e in events if e.type == "StoryParked"]
    return [(str(b["cause"]), str(b.get("code")), str(b.get("detail"))) for b in bodies]


@cache
def expected_ends(scenario: Scenario) -> Ends:
    """What the stories of a scenario come to when nothing goes wrong."""
    outcome = simulate("peace", replace(scenario, faults_until_s=0.0))
    assert not outcome.faults
    verdict = judge(outcome, None)
    return Ends(verdict.states, verdict.digests)
