"""The contract of ModelBoard, on every adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fleet.kernel.clock import SystemClock
from fleet.models.figures import ModelFigures
from fleet.models.memory import MemoryModelBoard
from fleet.models.port import ModelBoard
from fleet.models.redis import RedisModelBoard
from tests.support.stores import empty_database, eventually, own_database


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str | None:
    """Of an empty database; None is in memory."""
    return None if request.param == "memory" else own_database(request.getfixturevalue("redis_url"))


@pytest.fixture
async def board(url: str | None) -> AsyncIterator[ModelBoard]:
    if url is None:
        yield MemoryModelBoard(SystemClock())
        return
    async with empty_database(url) as client:
        yield RedisModelBoard(client)


def row(engine: str, *, waiting: int = 0) -> ModelFigures:
    return ModelFigures(source="router", engine=engine, replica=f"{engine}:0", waiting=waiting, tokens_in=7)


async def test_last_word_of_each_reporter_is_read_by_reporter(board: ModelBoard) -> None:
    assert await board.read() == []
    await board.post("role:qa:0", [row("b")], ttl_s=60)
    await board.post("role:dev:0", [row("a"), row("c")], ttl_s=60)
    await board.post("role:qa:0", [row("b", waiting=3)], ttl_s=60)
    assert await board.read() == [row("a"), row("c"), row("b", waiting=3)]


async def test_word_of_a_reporter_that_fell_silent_is_gone_after_its_time(board: ModelBoard) -> None:
    await board.post("role:qa:0", [row("b")], ttl_s=1)
    await board.post("role:dev:0", [], ttl_s=60)

    async def is_empty() -> bool:
        return await board.read() == []

    assert await eventually(is_empty, within_s=60)
