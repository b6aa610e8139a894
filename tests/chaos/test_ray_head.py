"""The head of the local Ray dies, and with it the whole fleet (F4): `fleet up` on the same home goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity, descendants
from cluster.local.record import RunningFleet, find_running
from fleet.desk.planning import PlanningDesk
from fleet.kernel.clock import SystemClock
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.log import RedisEventLog
from tests.support.oracle import check
from tests.support.processes import processes_below
from tests.support.ray_fleet import OWN_TO_A_RUN, ROOT, Client, end_without_faults, owners_of, until
from tests.support.rules import fsm
from tests.support.team_models import demo_repository, demo_story

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

_GONE_S = 55
"""Less than the 64 s after which Ray's own processes give up on their head."""


def fleet(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One call of the command line."""
    plain = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    environ = {**plain, "FLEET_HOME": str(home), "FLEET_MEMORY_FLOOR_MB": "500", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "fleet.cli", *arguments]
    return subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=300)


def up(home: Path) -> RunningFleet:
    """A fleet is up in this home."""
    done = fleet(home, "up", "--detach", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    running = find_running(home)
    assert running is not None
    return running


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a fleet; afterwards nothing of it runs."""
    found = tmp_path_factory.mktemp("g")
    yield found
    fleet(found, "down", "--json")
    assert processes_below(found) == []


@asynccontextmanager
async def client_of(running: RunningFleet) -> AsyncGenerator[Client]:
    """A client of the running fleet."""
    redis, cache = connect_redis(running.addresses.redis_url), connect_redis(running.addresses.cache_url)
    log = RedisEventLog(redis)
    desk = PlanningDesk(log=log, inbox=RedisInbox(redis, cache), feed=RedisFeed(redis), clock=SystemClock(), fsm=fsm())
    try:
        yield Client(desk, log)
    finally:
        await redis.aclose()
        await cache.aclose()


def part(running: RunningFleet, name: str) -> ProcessIdentity:
    """The process of Ray with this program."""
    lines = {p: Path(f"/proc/{p.pid}/cmdline").read_bytes() for p in descendants(running.supervisor.pid)}
    (found,) = [p for p, line in lines.items() if line.split(b"\0")[0].endswith(f"/{name}".encode())]
    return found


@pytest.mark.rule("GL-19", "PL-48")
@pytest.mark.parametrize("doomed", [("gcs_server",), ("gcs_server", "raylet")])
async def test_fleet_whose_ray_died_goes_on_with_every_open_story(
    home: Path, tmp_path: Path, doomed: tuple[str, ...]
) -> None:
    first = await asyncio.to_thread(up, home)
    async with client_of(first) as client:
        working = await client.create(demo_story())
        waiting = await client.create({**demo_story(), "title": "As a reader, I want a story that waits"})
        await client.start(working, await asyncio.to_thread(demo_repository, tmp_path / "one"))

        async def is_in_the_middle() -> bool:
            return any(e.type == "StepFinished" for e in await client.events(working))

        await until(is_in_the_middle, within_s=400, why="the story is worked on")
        kept = {s: await client.events(s) for s in (working, waiting)}
    belonging = [first.supervisor, *descendants(first.supervisor.pid)]
    for name in doomed:
        assert part(first, name).send(signal.SIGKILL)

    await until(lambda: not first.supervisor.is_alive, within_s=_GONE_S, why="the fleet without Ray has ended")
    assert "Start the fleet again with `fleet up`" in " ".join((home / "supervisor.log").read_text().split())
    assert find_running(home) is None

    second = await asyncio.to_thread(up, home)
    assert [p for p in belonging if p.is_alive] == [], "processes of the dead fleet live beside the new one"
    async with client_of(second) as client:
        state = await client.settled(working, within_s=200)
        assert state.closed, state.park

        async def adopted() -> bool:
            return len(owners_of(await client.events(waiting))) > len(owners_of(kept[waiting]))

        await until(adopted, within_s=400, why="the waiting story has an owner again")
        for story_id, before in kept.items():
            events = await client.events(story_id)
            assert events[: len(before)] == before
            owners = owners_of(events)
            assert len({epoch for epoch, _ in owners}) == len(owners)
            assert len(owners) >= 2
        expected = {working: await end_without_faults(tmp_path / "plain", working)}
        steps = [json.loads(e.body)["step_id"] for e in await client.events(working) if e.type == "StepFinished"]
        assert len(steps) == len(set(steps))
        await check(client.log, acknowledged=(), expected=expected, ignore=OWN_TO_A_RUN, fired={"Ray died": 1})
