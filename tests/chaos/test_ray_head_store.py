"""The head of a Ray cluster of three nodes is killed and comes back with its state in Redis; stories go on (F4)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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
from tests.support.team_models import demo_repository, demo_story

pytestmark = [pytest.mark.wide, pytest.mark.timeout(900)]

MOVED_S = 240
"""That the story moves is what is tested; how fast it does on an idle machine is a figure, not a test."""


def finished(events: list[StoredEvent]) -> Counter[str]:
    """How often each step has a result."""
    return Counter(json.loads(e.body)["step_id"] for e in events if e.type == "StepFinished")


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayFleet]:
    """A head without actors, whose state is in Redis, and two nodes, of which the first has all actors."""
    with ray_fleet(tmp_path_factory.mktemp("k"), workers=2, keeps_head=True) as found:
        yield found


@pytest.mark.rule("GL-19", "RC-54")
async def test_head_that_comes_back_knows_every_actor_and_moves_them_from_a_node_that_dies_next(
    fleet: RayFleet, tmp_path: Path
) -> None:
    _, doomed, refuge = fleet.raylets
    async with fleet.client() as client:
        story_id: StoryId = await client.create(demo_story())
        await client.start(story_id, await asyncio.to_thread(demo_repository, tmp_path))

        async def at_work() -> bool:
            return len(finished(await client.events(story_id))) > 1

        await until(at_work, within_s=400, why="the story is in the middle")
        before = owners_of(await client.events(story_id))

        died = await asyncio.to_thread(fleet.head_dies)
        assert len(died["pids"]) >= 2
        assert [pid for pid in died["pids"] if _is_alive(pid)] == [], "the head lives"
        # Without a head its owner works on, or waits for whom it cannot find: nobody takes the story away from it.
        await asyncio.sleep(3)
        assert owners_of(await client.events(story_id)) == before

        back = await asyncio.to_thread(fleet.head_is_back)
        assert {"council:0", "context", "sandbox:local"} <= set(back["actors"]), "the new head knows nothing"

        fleet.send(doomed, signal.SIGKILL)

        async def moved() -> bool:
            return len(owners_of(await client.events(story_id))) > len(before)

        await until(moved, within_s=MOVED_S, why="the new head has started the owner on the other node")
        _, owner = owners_of(await client.events(story_id))[-1]
        assert int(owner.partition("/")[2].partition("-")[0]) in {p.pid for p in descendants(refuge)}

        state = await client.settled(story_id, within_s=400)
        assert state.closed, state.park
        events = await client.events(story_id)
        assert set(finished(events).values()) == {1}
        assert acknowledged_is_kept(fleet.proxy.of(f"story:{story_id}"), events) > 100
        expected = {story_id: await end_without_faults(tmp_path / "plain", story_id)}
        await check(
            client.log,
            acknowledged=(),
            expected=expected,
            ignore=OWN_TO_A_RUN,
            fired={"head death": 1, "node death": 1},
        )


def _is_alive(pid: int) -> bool:
    """Whether a process of this id runs, and is no zombie."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
