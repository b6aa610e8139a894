"""A whole node of a Ray cluster dies with stories in the middle of tool runs (F3)."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity, descendants
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

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

RESUMED_S = 30
STORIES = 3


def runs_under_way(events: list[StoredEvent]) -> set[str]:
    """Steps that run a tool in the sandbox and have no result yet."""
    bodies = [(e.type, json.loads(e.body)) for e in events if e.type in ("StepStarted", "StepFinished")]
    started = {b["step_id"] for kind, b in bodies if kind == "StepStarted" and b["kind"] == "run"}
    return started - {b["step_id"] for kind, b in bodies if kind == "StepFinished"}


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayFleet]:
    """A head without actors and two nodes for them, of which the first has all."""
    with ray_fleet(tmp_path_factory.mktemp("n"), workers=2) as found:
        yield found


@pytest.mark.rule("GL-19", "RC-54")
async def test_stories_of_a_dead_node_go_on_at_another_one(fleet: RayFleet, tmp_path: Path) -> None:
    _, doomed, refuge = fleet.raylets
    async with fleet.client() as client:
        stories, repos = list[StoryId](), list[Path]()
        for number in range(STORIES):
            stories.append(await client.create(demo_story()))
            repos.append(await asyncio.to_thread(demo_repository, tmp_path / str(number)))
        await asyncio.gather(*(client.start(s, repo) for s, repo in zip(stories, repos, strict=True)))

        async def tools_run() -> bool:
            if not any("/fleet/inside/" in command_of(p) for p in descendants(doomed)):
                return False
            # Two slots for runs and three stories: all in a run at one moment is rare, none between two steps rarer.
            histories = [await client.events(s) for s in stories]
            return any(map(runs_under_way, histories)) and all(map(owners_of, histories))

        await until(tools_run, within_s=400, why="a tool runs on the node that is about to die")
        on_the_node = descendants(doomed)
        epochs = {s: len(owners_of(await client.events(s))) for s in stories}
        fleet.send(doomed, signal.SIGKILL)
        killed = time.monotonic()

        async def all_resumed() -> bool:
            return all([len(owners_of(await client.events(s))) > epochs[s] for s in stories])

        await until(all_resumed, within_s=RESUMED_S, why="every story has a new owner")
        while (
            left := [command_of(p)[:80] for p in on_the_node if p.is_alive]
        ) and time.monotonic() < killed + RESUMED_S:
            await asyncio.sleep(0.1)
        assert left == [], "processes of the dead node live on"
        assert len(descendants(refuge)) > 5
        for story_id in stories:
            state = await client.settled(story_id, within_s=240)
            assert state.closed, state.park
            assert acknowledged_is_kept(fleet.proxy.of(f"story:{story_id}"), await client.events(story_id)) > 100
        expected = {s: await end_without_faults(tmp_path / "plain" / s, s) for s in stories}
        verdict = await check(
            client.log, acknowledged=(), expected=expected, ignore=OWN_TO_A_RUN, fired={"node death": 1}
        )
        assert verdict.takeovers >= STORIES


def command_of(process: ProcessIdentity) -> str:
    """The command line; empty when the process is gone."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
