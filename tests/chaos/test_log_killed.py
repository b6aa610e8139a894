"""F5: the log's server is killed with SIGKILL under sixteen writers, again and again. Nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from cluster.local.valkey import Valkey
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_servers import connected, crash, log_store
from tests.support.chaos_stories import StoryWriter
from tests.support.fault_proxy import FaultProxy, proxied
from tests.support.oracle import check

pytestmark = pytest.mark.timeout(600)

WRITERS = 16


@pytest.mark.parametrize("rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-14", "EV-16", "EV-18", "EV-19")
async def test_log_killed_under_sixteen_writers_keeps_every_acknowledged_event(tmp_path: Path, rounds: int) -> None:
    async with (
        log_store(tmp_path / "log") as server,
        proxied(server.url) as (proxy, url),
        connected(server.url) as client,
        connected(url) as through,
    ):
        # A short margin, so that a lost reply comes out as CommitUnknown here instead of being repeated inside.
        logs = [RedisEventLog(through, margin_s=0.1), *[RedisEventLog(client, margin_s=0.5)] * (WRITERS - 1)]
        writers = [StoryWriter(log) for log in logs]
        kills = await _write_under_kills(server, proxy, writers, rounds=rounds)

        stored = RedisEventLog(client)
        for writer in writers:
            commands = [event.command_id for event in await stored.read(writer.stream)]
            assert commands == [name for name, events in writer.commands.items() for _ in range(events)]
        endings = [ending for writer in writers for ending in writer.ambiguous.values()]
        assert set(endings) <= {"Appended", "Duplicate"}
        await check(
            stored,
            acknowledged=[event for writer in writers for event in writer.seen.acknowledged],
            healed=False,
            endpoints={"append": [bool(await writer.write()) for writer in writers[:3]]},
            fired={"kill": kills, "lost reply of what was stored": proxy.lost, "outcome unknown": len(endings)},
            sometimes={"duplicate returned": sum(writer.seen.outcomes["Duplicate"] for writer in writers)},
        )


async def _write_under_kills(server: Valkey, proxy: FaultProxy, writers: list[StoryWriter], *, rounds: int) -> int:
    """Every writer writes on while the server is killed and started again, once in each round.

    The first writer sees it through the proxy, which in each round throws one reply away and has the server killed
    next: whether that append was stored can only be learned from the server's disk.
    """
    is_over, kills = asyncio.Event(), 0
    draw = random.Random(5)

    async def write(writer: StoryWriter) -> None:
        while not is_over.is_set():
            await writer.write(events=1 + len(writer.commands) % 3)

    def acknowledged() -> int:
        return sum(len(writer.commands) for writer in writers)

    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(write(writer))
        for _ in range(rounds):
            until = acknowledged() + draw.randrange(40, 120)
            while acknowledged() < until:
                await asyncio.sleep(0.002)
            proxy.lose_reply_to(b"EVAL")
            while proxy.lost == kills:
                await asyncio.sleep(0)
            await crash(server)
            kills += 1
            assert not server.is_alive
            await server.start()
        until = acknowledged() + WRITERS
        while acknowledged() < until:
            await asyncio.sleep(0.002)
        is_over.set()
    return kills
