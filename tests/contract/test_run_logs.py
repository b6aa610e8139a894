"""The contract of RunLogs, on every adapter."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest

from fleet.kernel.ids import RunKey
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.keys import run_out_key
from fleet.policy.runs.log_lines import LogLine
from fleet.sandbox.memory import MemoryRunLogs
from fleet.sandbox.port import LogPage, RunLogs
from fleet.sandbox.redis import RedisRunLogs
from tests.support.stores import Stores, empty_database, own_database


def run_key(name: str = "run") -> RunKey:
    return RunKey(sha256(name.encode()).hexdigest())


def lines(first: int, last: int, text: str = "line") -> list[LogLine]:
    return [LogLine(n=n, ts_ms=n, stream="stdout", line=f"{text} {n} \u00fc") for n in range(first, last + 1)]


KEY = run_key()


@pytest.mark.rule("RC-22")
async def test_reader_gets_the_lines_of_one_run_in_order_and_goes_on_by_number(stores: Stores) -> None:
    await stores.run_logs.append(KEY, lines(1, 3))
    await stores.run_logs.append(run_key("other"), lines(1, 9, "other"))
    await stores.run_logs.append(KEY, lines(4, 5))
    logs = stores.twin().run_logs
    assert await logs.read(KEY) == LogPage(tuple(lines(1, 5)), is_over=False)
    assert await logs.read(KEY, after=1, limit=2) == LogPage(tuple(lines(2, 3)), is_over=False)
    assert await logs.read(KEY, after=5) == LogPage((), is_over=False)


@pytest.mark.rule("RC-22")
async def test_end_is_told_with_the_last_lines_and_never_before(stores: Stores) -> None:
    await stores.run_logs.append(KEY, lines(1, 4))
    await stores.run_logs.end(KEY)
    await stores.run_logs.end(KEY)
    assert await stores.run_logs.read(KEY, limit=3) == LogPage(tuple(lines(1, 3)), is_over=False)
    assert await stores.run_logs.read(KEY, limit=4) == LogPage(tuple(lines(1, 4)), is_over=True)
    assert await stores.run_logs.read(KEY, after=4, wait_s=60) == LogPage((), is_over=True)
    assert await stores.run_logs.read(KEY, after=9, wait_s=60) == LogPage((), is_over=True)


async def test_silent_run_ends_without_a_line(stores: Stores) -> None:
    assert await stores.run_logs.read(KEY) == LogPage((), is_over=False)
    await stores.run_logs.end(KEY)
    assert await stores.run_logs.read(KEY) == LogPage((), is_over=True)


@pytest.mark.rule("RC-22")
async def test_line_that_is_there_already_is_left_out_also_after_the_end(stores: Stores) -> None:
    await stores.run_logs.append(KEY, lines(1, 3))
    await stores.run_logs.append(KEY, lines(2, 4, "again"))
    assert (await stores.run_logs.read(KEY)).lines == (*lines(1, 3), *lines(4, 4, "again"))
    await stores.run_logs.end(KEY)
    await stores.run_logs.append(KEY, lines(1, 4, "third"))
    assert await stores.run_logs.read(KEY, after=3) == LogPage(tuple(lines(4, 4, "again")), is_over=True)
    await stores.run_logs.append(KEY, lines(5, 5))
    assert await stores.run_logs.read(KEY, after=4) == LogPage(tuple(lines(5, 5)), is_over=False)


@pytest.mark.rule("RC-22")
async def test_waiting_reader_is_woken_by_the_first_line(stores: Stores) -> None:
    waiting = asyncio.create_task(stores.twin().run_logs.read(KEY, wait_s=30))
    await asyncio.sleep(0)
    await stores.run_logs.append(KEY, lines(1, 1))
    async with asyncio.timeout(60):
        assert (await waiting).lines[0].n == 1


async def test_waiting_reader_is_woken_by_the_end(stores: Stores) -> None:
    waiting = asyncio.create_task(stores.twin().run_logs.read(KEY, wait_s=30))
    await asyncio.sleep(0)
    await stores.run_logs.end(KEY)
    async with asyncio.timeout(60):
        assert await waiting == LogPage((), is_over=True)


async def test_reader_of_a_silent_run_gets_an_empty_page_when_its_time_is_over(stores: Stores) -> None:
    assert await stores.run_logs.read(KEY, wait_s=0.3) == LogPage((), is_over=False)


@pytest.mark.rule("EV-8")
async def test_old_lines_of_a_long_run_are_dropped_and_the_newest_stay(store_url: str | None) -> None:
    async def fill(logs: RunLogs) -> LogPage:
        await logs.append(KEY, lines(1, 2_000))
        return await logs.read(KEY, limit=5_000)

    if store_url is None:
        page = await fill(MemoryRunLogs(max_lines=100))
    else:
        async with empty_database(store_url) as client:
            page = await fill(RedisRunLogs(client, max_lines=100))
    assert 100 <= len(page.lines) <= 400
    assert page.lines[-1].n == 2_000


@pytest.mark.rule("EV-8")
async def test_lines_in_redis_are_kept_for_a_day_after_the_last_one(redis_url: str) -> None:
    url = own_database(redis_url)
    async with empty_database(url):
        client = connect_redis(url)
        logs = RedisRunLogs(client)
        await logs.append(KEY, lines(1, 1))
        assert 86_390 <= await client.ttl(run_out_key(KEY)) <= 86_400
        await client.persist(run_out_key(KEY))
        await logs.end(KEY)
        assert 86_390 <= await client.ttl(run_out_key(KEY)) <= 86_400
        await client.aclose()
