"""Servers that a fault test owns: it may kill them, fill their disk, and cut their files."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from cluster.local.arcadedb import ArcadeDb
from cluster.local.valkey import StoreKind, Valkey
from fleet.log.redis.connection import connect_redis


@asynccontextmanager
async def log_store(directory: Path) -> AsyncGenerator[Valkey]:
    """A log store of this test's own (append-only, fsync at every write, a password), gone at the end."""
    server = Valkey(StoreKind.LOG, directory)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Redis]:
    """A client as the adapters use it, closed at the end whatever happens."""
    client = connect_redis(url)
    try:
        yield client
    finally:
        await client.aclose()


async def crash(server: Valkey | ArcadeDb) -> None:
    """The server was killed with SIGKILL and is gone; `server.start()` brings it back on its data and port."""
    server.kill()
    # Nothing is left to end: this collects its exit status.
    await server.stop()


@asynccontextmanager
async def restarted_on(directory: Path, *, copied_from: Path, cut_at: int | None = None) -> AsyncGenerator[Valkey]:
    """A log store over a copy of a stopped one's directory, its append-only file ending at `cut_at` bytes."""
    shutil.copytree(copied_from, directory, ignore=shutil.ignore_patterns("s", "pid", "log*"))
    if cut_at is not None:
        with append_only_file(directory).open("rb+") as file:
            file.truncate(cut_at)
    async with log_store(directory) as server:
        yield server


def append_only_file(directory: Path) -> Path:
    """The file that a log store appends to."""
    (found,) = (directory / "appendonlydir").glob("*.incr.aof")
    return found


@contextmanager
def small_disk(mount_point: Path, *, size_mb: int) -> Generator[Path]:
    """A file system of so many MiB in memory. Skips the test where this user may not mount."""
    mount_point.mkdir(parents=True)
    options = f"size={size_mb}m,mode=0700"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount_point)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a full disk needs a small file system, and mount was refused: {done.stderr.strip()}")
    try:
        yield mount_point
    finally:
        subprocess.run(["umount", str(mount_point)], check=True)


async def ended(server: Valkey, *, within_s: float = 10.0) -> None:
    """The server's process has ended by itself."""
    async with asyncio.timeout(within_s):
        while server.is_alive:
            await asyncio.sleep(0.02)
