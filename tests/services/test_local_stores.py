"""The embedded stores keep what they acknowledged, know their password, and end with their supervisor."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import neo4j
import neo4j.exceptions
import pytest
import redis.asyncio
import redis.exceptions

from cluster.local.arcadedb import ArcadeDb
from cluster.local.identity import ProcessIdentity
from cluster.local.valkey import StoreKind, Valkey
from fleet.kernel.errors import ConfigError, StoreUnavailable

ROOT = Path(__file__).resolve().parents[2]


async def eventually(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        await asyncio.sleep(0.02)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Valkey]:
    server = Valkey(StoreKind.LOG, tmp_path / "log")
    await server.start()
    yield server
    await server.stop()


@pytest.mark.rule("GL-20", "EV-19")
async def test_log_store_is_durable_and_never_evicts(log: Valkey) -> None:
    async with redis.asyncio.Redis.from_url(log.url) as client:
        config = await client.config_get("append*", "maxmemory-policy")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "always"
    assert config["maxmemory-policy"] == "noeviction"


async def test_cache_store_evicts_and_keeps_nothing(tmp_path: Path) -> None:
    server = Valkey(StoreKind.CACHE, tmp_path, max_memory_mb=16)
    await server.start()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        config = await client.config_get("appendonly", "maxmemory*")
    await server.stop()
    assert (config["appendonly"], config["maxmemory"]) == ("no", str(16 * 1024 * 1024))
    assert config["maxmemory-policy"] == "allkeys-lru"


async def test_log_store_refuses_a_client_without_its_password(log: Valkey) -> None:
    async with redis.asyncio.Redis.from_url(log.address) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            await client.ping()
    assert log.identity is not None
    command_line = Path(f"/proc/{log.identity.pid}/cmdline").read_text()
    password = log.url.split(":")[2].split("@")[0]
    assert len(password) >= 32
    assert password not in command_line


async def test_log_store_after_a_kill_has_the_same_address_and_data(log: Valkey) -> None:
    url, before = log.url, log.identity
    async with redis.asyncio.Redis.from_url(url) as client:
        await client.xadd("stream", {"n": "1"}, id="1-0")
    log.kill()
    await eventually(lambda: not log.is_alive)
    await log.start()
    assert log.url == url
    assert log.identity != before
    async with redis.asyncio.Redis.from_url(url) as client:
        assert await client.xlen("stream") == 1


async def test_log_store_that_stopped_left_no_process_and_keeps_its_data(tmp_path: Path) -> None:
    server = Valkey(StoreKind.LOG, tmp_path)
    await server.start()
    identity, first = server.identity, server.url
    async with redis.asyncio.Redis.from_url(first) as client:
        await client.set("k", "v")
    await server.stop()
    await server.stop()
    assert identity is not None
    assert not identity.is_alive
    again = Valkey(StoreKind.LOG, tmp_path)
    await again.start()
    async with redis.asyncio.Redis.from_url(again.url) as client:
        assert await client.get("k") == b"v"
    await again.stop()


async def test_log_store_on_a_port_in_use_does_not_take_the_other_for_its_own(log: Valkey, tmp_path: Path) -> None:
    second = Valkey(StoreKind.LOG, tmp_path / "second", port=log.port)
    with pytest.raises(ConfigError, match=rf"port {log.port} .*log store .*ports.log"):
        await second.start()
    assert second.identity is None


async def test_log_store_with_a_damaged_file_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    server = Valkey(StoreKind.LOG, tmp_path)
    await server.start()
    await server.stop()
    manifest = next((tmp_path / "appendonlydir").glob("*.manifest"))
    manifest.write_text("nonsense\n")
    with pytest.raises(StoreUnavailable, match="(?s)log store ended while it started.*manifest"):
        await server.start()
    assert not server.is_alive


async def test_log_store_with_a_long_path_starts_without_its_socket(tmp_path: Path) -> None:
    server = Valkey(StoreKind.LOG, tmp_path / ("x" * 100))
    await server.start()
    await server.stop()


async def test_log_store_dies_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, sys, time; from pathlib import Path; from cluster.local.valkey import StoreKind, Valkey\n"
        "server = Valkey(StoreKind.LOG, Path(sys.argv[1])); asyncio.run(server.start())\n"
        "print(server.identity.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        identity = ProcessIdentity.of(int(parent.stdout.readline()))
        assert identity is not None
        parent.send_signal(signal.SIGKILL)
    await eventually(lambda: not identity.is_alive)


async def _count(graph: ArcadeDb, password: str | None = None) -> int:
    auth = ("root", password or graph.password)
    async with neo4j.AsyncGraphDatabase.driver(graph.address, auth=auth) as driver:
        records, _, _ = await driver.execute_query("MATCH (n:Kept) RETURN count(n) AS n", database_="neo4j")
    return int(records[0]["n"])


async def test_graph_store_lives_a_whole_life(tmp_path: Path) -> None:
    """One server for all steps, because each start takes seconds."""
    graph = ArcadeDb(tmp_path)
    await graph.start()
    try:
        async with neo4j.AsyncGraphDatabase.driver(graph.address, auth=("root", graph.password)) as driver:
            await driver.execute_query("CREATE (:Kept {id: 'a'})", database_="neo4j")
        with pytest.raises(neo4j.exceptions.AuthError):
            await _count(graph, password="wrong-password")
        assert graph.identity is not None
        assert graph.password not in Path(f"/proc/{graph.identity.pid}/cmdline").read_text()
        assert (tmp_path / "jvm.args").stat().st_mode & 0o777 == 0o600
        port = graph.port
        graph.kill()
        await eventually(lambda: not graph.is_alive)
        await graph.start()
        assert graph.port == port
        assert await _count(graph) == 1
        identity = graph.identity
    finally:
        await graph.stop()
    assert identity is not None
    assert not identity.is_alive
    (tmp_path / "password").write_text("another-password-than-before")
    with pytest.raises(StoreUnavailable, match="refuses the password"):
        await graph.start()
    assert not graph.is_alive


async def test_graph_store_on_a_port_of_another_is_not_taken_for_ours(tmp_path: Path, log: Valkey) -> None:
    graph = ArcadeDb(tmp_path / "graph", port=log.port)
    with pytest.raises(ConfigError, match=rf"port {log.port} .*graph store .*ports.graph"):
        await graph.start()
    assert graph.identity is None
