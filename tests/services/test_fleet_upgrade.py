"""An upgrade of a RayService: for a while two fleets with the same shards work on one log, then the old one ends."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest

from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId
from tests.support.stores import eventually
from tests.support.team import Team, team
from tests.support.team_models import RECORDED, demo_repository, demo_story

pytestmark = pytest.mark.timeout(600)


def results(events: list[StoredEvent]) -> Counter[str]:
    """How often each step has a result."""
    return Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepFinished")


def owners(events: list[StoredEvent]) -> list[str]:
    """Who took the story, in order."""
    return [json.loads(e.body)["owner"] for e in events if e.type == "OwnershipTaken"]


async def in_the_middle(t: Team, story_id: StoryId) -> None:
    """Some steps have results, and the story is not over."""

    async def holds() -> bool:
        return len(results(await t.desk.events(story_id))) > 2

    await eventually(holds, within_s=200)


@pytest.mark.rule("EV-4", "GL-19")
async def test_story_goes_over_to_the_new_fleet_while_the_old_one_runs_and_nothing_is_done_twice(
    tmp_path: Path,
) -> None:
    async with team(tmp_path) as t:
        story_id = await t.create(demo_story())
        waiting = await t.create({**demo_story(), "title": "As a reader, I want a story that waits"})
        await t.start(story_id, demo_repository(tmp_path / "stage"), model=RECORDED)
        await in_the_middle(t, story_id)
        old, old_work = t.shard, t._running
        assert old_work is not None
        t.begin(t.make_shard("of-the-new-fleet", t.log))

        await eventually(lambda: old.status().state == "superseded", within_s=60)
        await eventually(lambda: old.status().stories == (), within_s=5)
        await asyncio.wait_for(old_work, 60)  # of itself: nobody has told it anything
        # The operator takes the old cluster away while the new one has the stories: what it frees is not its own.
        await old.drain()
        state = await t.settled(story_id)
        assert state.closed, state.park

        for one in (story_id, waiting):
            await eventually(lambda one=one: _is_last_owner(t, one, "of-the-new-fleet"), within_s=60)
            epochs = [event.epoch for event in await t.desk.events(one)]
            assert epochs == sorted(epochs), "the old fleet wrote after the new one had the story"
        events = await t.desk.events(story_id)
        assert set(results(events).values()) == {1}
        assert len(owners(events)) == 2


async def _is_last_owner(t: Team, story_id: StoryId, incarnation: str) -> bool:
    return owners(await t.desk.events(story_id))[-1].endswith(incarnation)
