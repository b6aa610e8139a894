"""Fixtures of the suites that run on the stores in memory and in Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.support.stores import Stores, open_stores, own_database


@pytest.fixture(params=["memory", "redis"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """None for the stores in memory, else the address of a database for one test."""
    return own_database(request.getfixturevalue("redis_url")) if request.param == "redis" else None


@pytest.fixture
async def stores(store_url: str | None) -> AsyncGenerator[Stores]:
    """The stores of one test, empty at its start."""
    async with open_stores(store_url) as opened:
        yield opened
