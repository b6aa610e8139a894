"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import gc
import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.docker_engine import docker_engine
from tests.support.sandbox_leftovers import remove_sandbox_files_of
from tests.support.services import Neo4jAddress, graph_server, is_about_a_given_server, log_server

# A process that has used gRPC would otherwise wake it in every child between fork and exec, where its files are closed.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A shell ignores SIGINT in what it runs in the background, and the processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code.
settings.register_profile("fleet", deadline=None)
settings.load_profile("fleet")


_GC_ALLOCATIONS = 20_000
"""Between two collections of the youngest objects; the 700 of Python take a large process a tenth of its time."""


def pytest_collection() -> None:
    """What is imported for the tests stays; to look for garbage in it again and again finds nothing."""
    gc.disable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make test-real` asks only what real servers answer: twins in memory and embedded stores have had their run."""
    if os.environ.get("FLEET_TEST_REAL") == "1":
        left_out = [item for item in items if not is_about_a_given_server(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_collection_finish() -> None:
    """What the tests make is looked through as ever, what was there before them is not."""
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 10, 10)
    gc.enable()


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


@pytest.fixture(scope="session")
def docker() -> Iterator[None]:
    """`docker` answers for the whole run where it can: with the engine of this machine, or with one of our own."""
    with docker_engine():
        yield


@pytest.fixture(scope="session", autouse=True)
def no_sandbox_files_are_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What sandboxes of root keep outside a closed home goes with the homes of this run, and with lost ones."""
    yield
    remove_sandbox_files_of(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a test has set up for the log of its process, as an actor does, is gone after it."""
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("fleet", "actors", "serve_apps", "cluster")]
    handlers, levels = list(root.handlers), [logger.level for logger in ours]
    yield
    for handler in [
        handler for handler in root.handlers if handler not in handlers and "Fleet" in type(handler).__name__
    ]:
        root.removeHandler(handler)
    for logger, level in zip(ours, levels, strict=True):
        logger.setLevel(level)
