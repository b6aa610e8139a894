"""Who watches a story sits out an outage of the stores, and sees every event once."""

from __future__ import annotations

import asyncio
import subprocess
from contextlib import aclosing
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity
from cluster.local.record import Addresses, RunningFleet
from fleet.cli.exit_codes import exit_code
from fleet.cli.output import Output
from fleet.cli.story.run import fleet_guard, watch_patiently
from fleet.desk.planning import PlanningDesk
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import StoreUnavailable
from fleet.log.memory import MemoryFeed
from fleet.log.port import FeedHint
from tests.support.bench import World
from tests.support.rules import fsm
from tests.support.story_events import STORY, story


class FeedThatIsAway(MemoryFeed):
    """A feed whose store does not answer the next `outages` waits."""

    outages = 0

    async def meanwhile(self) -> None:
        """What happens while it is away."""

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        if self.outages:
            self.outages -= 1
            await self.meanwhile()
            raise StoreUnavailable("the feed does not answer")
        return await super().wait(cursor, timeout_s=timeout_s)


async def _away(outages: int) -> tuple[World, PlanningDesk, FeedThatIsAway]:
    world = World()
    await story(until="created").write_to(world.log)
    feed = FeedThatIsAway(world.log, world.clock)
    feed.outages = outages
    return world, PlanningDesk(log=world.log, inbox=world.inbox, feed=feed, clock=world.clock, fsm=fsm()), feed


async def test_outage_is_sat_out_and_every_event_is_seen_once(capsys: pytest.CaptureFixture[str]) -> None:
    world, desk, feed = await _away(1)
    feed.meanwhile = lambda: story(until="scored").write_to(world.log)
    seen: list[int] = []
    async with aclosing(watch_patiently(desk, STORY, Output(as_json=False), after=0)) as events:
        async for event in events:
            seen.append(event.version if event else 0)
            if 2 in seen:
                break
    assert seen == [1, 2]
    assert feed.outages == 0
    assert "the feed does not answer; trying again" in capsys.readouterr().err


async def test_outage_without_end_is_told() -> None:
    _, desk, _ = await _away(10)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        async for _ in watch_patiently(desk, STORY, Output(as_json=False), after=0, patience_s=0):
            pass


def _dead_fleet(home: Path) -> subprocess.Popen[bytes]:
    """The supervisor of a fleet that is up in this home until the process is ended."""
    supervisor = subprocess.Popen(["sleep", "600"])
    identity = ProcessIdentity.of(supervisor.pid)
    assert identity is not None
    addresses = Addresses(
        redis_url="redis://127.0.0.1:1", cache_url="redis://127.0.0.1:1", neo4j_uri="bolt://127.0.0.1:1",
        neo4j_user="neo4j", neo4j_password="none", neo4j_database="neo4j",
    )  # fmt: skip
    running = RunningFleet(home=home, supervisor=identity, started_at_ms=0, addresses=addresses)
    (home / "fleet.json").write_text(running.model_dump_json())
    return supervisor


async def _watch(home: Path, desk: PlanningDesk, supervisor: subprocess.Popen[bytes]) -> None:
    require_up = fleet_guard(home)
    supervisor.kill()
    supervisor.wait()
    async for _ in watch_patiently(desk, STORY, Output(as_json=False), after=0, require_up=require_up):
        pass


@pytest.mark.parametrize("stores_are_away", [True, False])
async def test_fleet_that_died_ends_the_watch_and_says_what_to_do(tmp_path: Path, stores_are_away: bool) -> None:
    world, desk, _ = await _away(1_000_000 if stores_are_away else 0)
    # Nothing else happens: the story stands still, and its clock is moved by those who wait.
    watched = asyncio.create_task(_watch(tmp_path, desk, _dead_fleet(tmp_path)))
    assert isinstance(world.clock, MemoryClock)
    while not watched.done():
        world.clock.advance(1.0)
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match=f"`fleet up --detach`, then `fleet resume {STORY}`") as ended:
        watched.result()
    assert exit_code(ended.value) == 5


async def test_fleet_elsewhere_is_not_asked_whether_it_is_up(tmp_path: Path) -> None:
    fleet_guard(tmp_path)(STORY)
