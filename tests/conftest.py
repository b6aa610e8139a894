"""Fixtures that every folder of tests shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.services import Neo4jAddress, graph_server, log_server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of one log store for the whole run; tests keep apart by key prefix or by database, or empty it first."""
    with log_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def neo4j_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jAddress]:
    """Address of one graph for the whole run; tests keep apart by ids, or empty it first."""
    with graph_server(tmp_path_factory.mktemp("graph")) as address:
        yield address
