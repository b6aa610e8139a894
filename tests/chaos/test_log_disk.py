"""F7: the disk below the log is full, and later has room again."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from cluster.local.valkey import StoreKind, Valkey
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from tests.support.chaos_servers import ended, small_disk
from tests.support.chaos_stories import StoryWriter
from tests.support.oracle import check

pytestmark = pytest.mark.timeout(600)

OUTAGES = {"StoreUnavailable", "StoreFull", "CommitUnknown"}


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.rule("EV-14", "EV-18", "EV-19")
async def test_full_disk_stores_nothing_in_part_and_every_command_once_when_space_returns(
    tmp_path: Path, rounds: int
) -> None:
    with small_disk(tmp_path / "disk", size_mb=8 * rounds) as disk:
        server = Valkey(StoreKind.LOG, disk / "log")
        await server.start()
        client = connect_redis(server.url)
        log = RedisEventLog(client, margin_s=0.2)
        writers = [StoryWriter(log, body_chars=2_000) for _ in range(4)]
        try:
            for _ in range(rounds):
                await _fill_up(server, disk, writers)
            refused = sum((writer.errors for writer in writers), start=writers[0].errors.__class__())
            assert set(refused) <= OUTAGES
            for writer in writers:
                stored = [event.command_id for event in await log.read(writer.stream)]
                assert stored == [name for name, events in writer.commands.items() for _ in range(events)]
            await check(
                log,
                acknowledged=[event for writer in writers for event in writer.seen.acknowledged],
                healed=False,
                endpoints={"append": [bool(await writer.write()) for writer in writers]},
                fired={"append refused": refused.total()},
            )
        finally:
            await client.aclose()
            await server.stop()


async def _fill_up(server: Valkey, disk: Path, writers: list[StoryWriter]) -> None:
    """Every writer wrote until the disk was full and its server gone, and ended its command once there was room."""
    for writer in writers:
        await writer.write(events=3)
    filler, left = disk / "filler", 100_000
    space = os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - left)
    is_over, before = asyncio.Event(), {writer.stream: writer.errors.total() for writer in writers}
    writing = [asyncio.create_task(_write_until(is_over, writer)) for writer in writers]
    # With `appendfsync always` a server that cannot write its file must not go on: it ends.
    await ended(server)
    assert os.statvfs(disk).f_bavail * space.f_frsize < left // 2, "the server ended for another reason"
    while any(writer.errors.total() == before[writer.stream] for writer in writers):
        await asyncio.sleep(0.01)
    filler.unlink()
    is_over.set()
    await server.stop()
    await server.start()
    await asyncio.gather(*writing)


async def _write_until(is_over: asyncio.Event, writer: StoryWriter) -> None:
    while not is_over.is_set():
        await writer.write(events=3)
