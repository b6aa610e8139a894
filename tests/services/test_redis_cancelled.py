"""A task that talks to Redis ends when it is cancelled, at whatever turn of the loop the cancellation comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis

from fleet.log.redis.connection import Send, call, call_together, connect_redis, repeat
from tests.support.stores import own_database

TURNS = range(8)


@pytest.fixture
async def client(redis_url: str) -> AsyncGenerator[Redis]:
    opened = connect_redis(own_database(redis_url))
    await call(opened, "PING", doing="connect")
    yield opened
    await opened.aclose()


async def cancelled_after(turns: int, task: asyncio.Task[object]) -> None:
    """The task ended by the cancellation, long before the command would have."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(0.8):
        await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("turns", TURNS)
async def test_waiting_command_is_cancelled_and_leaves_no_reply_behind(client: Redis, turns: int):
    await cancelled_after(turns, asyncio.create_task(call(client, "BLPOP", "nothing", 1, doing="wait")))
    assert await call(client, "ECHO", "mine", doing="ask") == b"mine"


@pytest.mark.parametrize("turns", TURNS)
async def test_commands_sent_together_are_cancelled_and_leave_no_reply_behind(client: Redis, turns: int):
    commands = [("ECHO", "theirs"), ("BLPOP", "nothing", 1)]
    await cancelled_after(turns, asyncio.create_task(call_together(client, commands, doing="wait")))
    assert await call(client, "ECHO", "mine", doing="ask") == b"mine"


@pytest.mark.parametrize("turns", TURNS)
async def test_repeated_command_is_cancelled_instead_of_repeated(client: Redis, turns: int):
    async def attempt(send: Send) -> object:
        return await send("BLPOP", "nothing", 1)

    await cancelled_after(turns, asyncio.create_task(repeat(client, attempt, doing="wait", margin_s=5)))
    assert await call(client, "ECHO", "mine", doing="ask") == b"mine"


async def test_first_connection_is_cancelled_too(redis_url: str):
    for turns in TURNS:
        opened = connect_redis(own_database(redis_url))
        try:
            await cancelled_after(turns, asyncio.create_task(call(opened, "BLPOP", "nothing", 1, doing="wait")))
        finally:
            await opened.aclose()
