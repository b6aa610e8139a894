"""Embedded stores for tests: started once for a whole run, or replaced by the servers that the environment names.

`FLEET_TEST_REDIS_URL` and `FLEET_TEST_NEO4J_URI` (with `FLEET_TEST_NEO4J_USER`, `FLEET_TEST_NEO4J_PASSWORD`) run the
same suites against real servers, which the tests may empty.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cluster.local import ArcadeDb, StoreKind, Valkey

T = TypeVar("T")

__all__ = ["Neo4jAddress", "graph_server", "log_server", "run_apart"]


class Neo4jAddress(NamedTuple):
    """Where a graph answers, as `neo4j.AsyncGraphDatabase.driver(uri, auth=(user, password))` takes it."""

    uri: str
    user: str
    password: str


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, run on a loop of its own that never becomes the current one of the tests."""
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


@contextmanager
def log_server(directory: Path) -> Iterator[str]:
    """URL of a log store (append-only, fsync at every write)."""
    given = os.environ.get("FLEET_TEST_REDIS_URL")
    if given:
        yield given
        return
    server = Valkey(StoreKind.LOG, directory)
    run_apart(server.start())
    try:
        yield server.url
    finally:
        run_apart(server.stop())


@contextmanager
def graph_server(directory: Path) -> Iterator[Neo4jAddress]:
    """Address of a graph with the database `neo4j`."""
    given = os.environ.get("FLEET_TEST_NEO4J_URI")
    if given:
        env = os.environ
        yield Neo4jAddress(given, env.get("FLEET_TEST_NEO4J_USER", "neo4j"), env.get("FLEET_TEST_NEO4J_PASSWORD", ""))
        return
    server = ArcadeDb(directory)
    run_apart(server.start())
    try:
        yield Neo4jAddress(server.address, "root", server.password)
    finally:
        run_apart(server.stop())
