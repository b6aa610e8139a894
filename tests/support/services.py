"""Embedded stores for tests: started once for a whole run, or replaced by the servers that the environment names.

`FLEET_TEST_REDIS_URL` and `FLEET_TEST_NEO4J_URI` (with `FLEET_TEST_NEO4J_USER`, `FLEET_TEST_NEO4J_PASSWORD`) run the
same suites against real servers. With `FLEET_TEST_REAL=1` (`make test-real`) the same names without `TEST_` count too,
which name a fleet's own stores otherwise. The tests empty what they use: database 9 of the Redis, and the database
`neo4j` of the graph. They refuse a server that holds anything there, unless `FLEET_TEST_MAY_EMPTY=1` allows it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar, cast

import neo4j
import neo4j.exceptions
import pytest
import redis

from cluster.local.arcadedb import ArcadeDb
from cluster.local.valkey import StoreKind, Valkey
from tests.support.stores import own_database

T = TypeVar("T")


_MEMORY, _ROOM_BYTES = "/dev/shm", 1 << 30


class Neo4jAddress(NamedTuple):
    """Where a graph answers, as `neo4j.AsyncGraphDatabase.driver(uri, auth=(user, password))` takes it."""

    uri: str
    user: str
    password: str


_REACH = {"REDIS_URL": {"redis_url", "redis"}, "NEO4J_URI": {"neo4j_address", "bolt"}}
"""Fixtures whose value is the server, and parameters that choose it, by the variable that gives one."""


def is_about_a_given_server(item: pytest.Item) -> bool:
    """Whether the test reaches a server that the environment names; all others say nothing new about real servers."""
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    asked = {*getattr(item, "fixturenames", ()), *(one for one in parameters if isinstance(one, str))}
    return any(_given(variable) and asked & names for variable, names in _REACH.items())


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
    given = _given("REDIS_URL")
    if given:
        _require_empty_redis(given)
        try:
            yield given
        finally:
            with redis.Redis.from_url(own_database(given)) as client:
                client.flushdb()
        return
    with _quick_folder(directory) as folder:
        server = Valkey(StoreKind.LOG, folder)
        run_apart(server.start())
        try:
            yield server.url
        finally:
            run_apart(server.stop())


@contextmanager
def _quick_folder(directory: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a log that is written through at every append waits for a busy disk."""
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _ROOM_BYTES:
        yield directory
        return
    with TemporaryDirectory(prefix="fleet-log-", dir=_MEMORY) as folder:
        yield Path(folder)


@contextmanager
def graph_server(directory: Path) -> Iterator[Neo4jAddress]:
    """Address of a graph with the database `neo4j`."""
    given = _given("NEO4J_URI")
    if given:
        address = Neo4jAddress(given, _given("NEO4J_USER") or "neo4j", _given("NEO4J_PASSWORD"))
        _require_empty_graph(address)
        try:
            yield address
        finally:
            with neo4j.GraphDatabase.driver(address.uri, auth=(address.user, address.password)) as driver:
                driver.execute_query("MATCH (n) DETACH DELETE n", database_="neo4j")
        return
    server = ArcadeDb(directory)
    run_apart(server.start())
    try:
        yield Neo4jAddress(server.address, "root", server.password)
    finally:
        run_apart(server.stop())


def _given(name: str) -> str:
    """What the environment says for the tests; empty when it says nothing."""
    names = [f"FLEET_TEST_{name}", *([f"FLEET_{name}"] if os.environ.get("FLEET_TEST_REAL") == "1" else [])]
    return next((value for one in names if (value := os.environ.get(one, ""))), "")


def _require_empty_redis(url: str) -> None:
    try:
        with redis.Redis.from_url(own_database(url), socket_timeout=5, socket_connect_timeout=5) as client:
            held = cast(int, client.dbsize())
    except redis.RedisError as error:
        pytest.exit(f"the Redis that the tests were given does not answer: {error}", returncode=4)
    _require_empty(held, "database 9 of the Redis that the tests were given", "keys")


def _require_empty_graph(address: Neo4jAddress) -> None:
    try:
        with neo4j.GraphDatabase.driver(
            address.uri, auth=(address.user, address.password), connection_timeout=5, max_transaction_retry_time=5
        ) as driver:
            records, _, _ = driver.execute_query("MATCH (n) RETURN count(n) AS n", database_="neo4j")
    except (neo4j.exceptions.Neo4jError, neo4j.exceptions.DriverError) as error:
        pytest.exit(f"the graph that the tests were given does not answer: {error}", returncode=4)
    _require_empty(records[0]["n"], "the database neo4j of the graph that the tests were given", "nodes")


def _require_empty(held: int, place: str, what: str) -> None:
    """The tests would lose somebody's data: they run only where there is none, or where it was allowed."""
    if held and os.environ.get("FLEET_TEST_MAY_EMPTY") != "1":
        pytest.exit(
            f"{place} holds {held} {what}, and the tests would delete them: give them a server of their own, or set "
            "FLEET_TEST_MAY_EMPTY=1",
            returncode=4,
        )
