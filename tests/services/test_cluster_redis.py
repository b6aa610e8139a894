"""The Redis of a cluster as its pod starts it, with the server that the product brings instead of the image's."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError

from cluster.local.process import free_port
from cluster.local.valkey import server_binary
from tests.support.cluster_manifests import cluster_named, rendered

PASSWORD = "a1b2c3d4"


def parts_of(store: str) -> tuple[dict[str, Any], str]:
    """The container and the configuration of a store."""
    found = {(m["kind"], m["metadata"]["name"]): m for m in rendered(cluster_named("small"))}
    (container,) = found["StatefulSet", f"fleet-{store}"]["spec"]["template"]["spec"]["containers"]
    return container, found["ConfigMap", f"fleet-{store}"]["data"]["redis.conf"]


@contextlib.asynccontextmanager
async def started(store: str, folder: Path) -> AsyncIterator[Redis]:
    """The store, started by the command of its pod below this folder; a client without a password."""
    port = free_port()
    container, config = parts_of(store)
    for name in ("bin", "data", "etc", "run"):
        (folder / name).mkdir(exist_ok=True)
    if not (folder / "bin" / "redis-server").exists():
        (folder / "bin" / "redis-server").symlink_to(server_binary())

    def here(text: str) -> str:
        for there, place in (("/run/redis", "run"), ("/etc/redis", "etc"), ("dir /data", "data")):
            text = text.replace(there, f"dir {folder}/data" if place == "data" else f"{folder}/{place}")
        return text.replace("port 6379", f"port {port}\nbind 127.0.0.1")

    (folder / "etc" / "redis.conf").write_text(here(config))
    command = [here(part) for part in container["command"]]
    environ = {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", "REDIS_PASSWORD": PASSWORD}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.DEVNULL)
    client = Redis(port=port, password=PASSWORD, decode_responses=True)
    try:
        await answering(client)
        yield client
    finally:
        await client.aclose()
        process.terminate()
        await process.wait()


async def answering(client: Redis) -> None:
    """Until it answers."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(ConnectionError):
                await client.ping()
                return
            await asyncio.sleep(0.02)


async def test_log_keeps_what_it_took_over_a_restart(tmp_path: Path) -> None:
    async with started("log", tmp_path) as client:
        await client.xadd("story", {"event": "1"}, id="1-0")

    async with started("log", tmp_path) as client:
        assert await client.xlen("story") == 1


async def test_log_has_the_settings_that_the_product_asks_of_it(tmp_path: Path) -> None:
    async with started("log", tmp_path) as client:
        found = await client.config_get("append*", "maxmemory*")

    assert found["appendonly"] == "yes"
    assert found["appendfsync"] == "always"
    assert found["maxmemory-policy"] == "noeviction"


async def test_cache_writes_no_file_and_evicts(tmp_path: Path) -> None:
    async with started("cache", tmp_path) as client:
        await client.set("a", "1")
        found = await client.config_get("append*", "maxmemory*", "save")

    assert (found["appendonly"], found["save"], found["maxmemory-policy"]) == ("no", "", "allkeys-lru")
    assert list((tmp_path / "data").iterdir()) == []


async def test_store_asks_for_its_password_and_hides_it_from_lists_of_processes(tmp_path: Path) -> None:
    async with started("gcs", tmp_path) as client:
        port = client.connection_pool.connection_kwargs["port"]
        stranger = Redis(port=port)
        with pytest.raises(AuthenticationError):
            await stranger.ping()
        await stranger.aclose()
        server = (await client.info("server"))["process_id"]
        listed = Path(f"/proc/{server}/cmdline").read_text()

    assert "redis-server" in listed
    assert PASSWORD not in listed
    assert PASSWORD not in " ".join(parts_of("gcs")[0]["command"])
    assert (tmp_path / "run" / "auth.conf").stat().st_mode & 0o077 == 0
