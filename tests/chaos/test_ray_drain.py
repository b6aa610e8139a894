"""With stories at work a node comes to a Ray cluster and the old one is drained, as when a machine is emptied."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local.identity import descendants
from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId
from tests.support.oracle import check
from tests.support.ray_fleet import (
    OWN_TO_A_RUN,
    RayFleet,
    acknowledged_is_kept,
    end_without_faults,
    owners_of,
    ray_fleet,
    until,
)
from tests.support.ray_host import DRAIN_S
from tests.support.ray_log_proxy import Append
from tests.support.team_models import demo_repository, demo_story

pytestmark = [pytest.mark.wide, pytest.mark.timeout(900)]

STORIES = 2
AT_ONCE, PACE_S = 40, 1.0
"""A story needs more than a hundred appends to its end: the first go at once, each further one takes a pace."""
MOVED_S = 240
"""That the stories move is what is tested; how fast they do on an idle machine is a figure, not a test."""


def steps(events: list[StoredEvent], kind: str) -> Counter[str]:
    """How often each step was begun, or ended."""
    return Counter(json.loads(e.body)["step_id"] for e in events if e.type == kind)


class Slowed:
    """A rule of the proxy: no story comes to its end before its node is gone, however fast the machine is."""

    def __init__(self) -> None:
        self.is_over = False
        self._passed: Counter[str] = Counter()

    async def __call__(self, append: Append) -> bool:
        """Always lets the append go on, in its time."""
        self._passed[append.stream] += 1
        if not self.is_over and self._passed[append.stream] > AT_ONCE:
            await asyncio.sleep(PACE_S)
        return True


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayFleet]:
    """A head without actors and one node for them."""
    with ray_fleet(tmp_path_factory.mktemp("e"), workers=1) as found:
        yield found


@pytest.mark.rule("GL-19", "RC-54")
async def test_stories_of_a_drained_node_work_on_until_it_ends_and_move_to_one_that_came_meanwhile(
    fleet: RayFleet, tmp_path: Path
) -> None:
    _, drained = fleet.raylets
    fleet.proxy.before = slowed = Slowed()
    async with fleet.client() as client:
        stories = [await client.create(demo_story()) for _ in range(STORIES)]
        for number, story_id in enumerate(stories):
            await client.start(story_id, await asyncio.to_thread(demo_repository, tmp_path / str(number)))

        async def histories() -> dict[StoryId, list[StoredEvent]]:
            return {story_id: await client.events(story_id) for story_id in stories}

        async def all_at_work() -> bool:
            return all(owners_of(e) and len(steps(e, "StepFinished")) > 2 for e in (await histories()).values())

        await until(all_at_work, within_s=400, why="both stories are in the middle")
        before = {story_id: owners_of(events) for story_id, events in (await histories()).items()}
        living = {process.pid for process in descendants(drained)}
        assert {_pid(owner) for owners in before.values() for _, owner in owners} <= living

        refuge = await asyncio.to_thread(fleet.add_node)
        found = await asyncio.to_thread(fleet.drain)
        assert found["was_draining"], found
        assert found["ended_ms"] - found["told_ms"] >= (DRAIN_S - 1) * 1000, "the node was not given its time"
        slowed.is_over = True
        left = [process.pid for process in descendants(drained)]
        assert left == []

        async def all_moved() -> bool:
            # A busy node may have lost a story and taken it again before it ended: the last owner counts.
            there = {process.pid for process in descendants(refuge)}
            return all(_pid(owners_of(events)[-1][1]) in there for events in (await histories()).values())

        await until(all_moved, within_s=MOVED_S, why="every story has an owner on the other node")
        during = [
            event
            for events in (await histories()).values()
            for event in events
            if found["told_ms"] <= event.ts_ms <= found["ended_ms"]
            and event.epoch in {epoch for epoch, owner in owners_of(events) if _pid(owner) in living}
        ]
        assert during != [], "no story was worked on while its node was drained"

        for story_id in stories:
            state = await client.settled(story_id, within_s=400)
            assert state.closed, state.park
            events = await client.events(story_id)
            assert set(steps(events, "StepFinished").values()) == {1}
            assert steps(events, "StepStarted").keys() == steps(events, "StepFinished").keys()
            assert acknowledged_is_kept(fleet.proxy.of(f"story:{story_id}"), events) > 100
        expected = {s: await end_without_faults(tmp_path / "plain" / s, s) for s in stories}
        verdict = await check(
            client.log, acknowledged=(), expected=expected, ignore=OWN_TO_A_RUN, fired={"node drained": 1}
        )
        assert verdict.takeovers >= STORIES


def _pid(owner: str) -> int:
    """The process of an owner, `council:0/<pid>-<when>`."""
    return int(owner.partition("/")[2].partition("-")[0])
