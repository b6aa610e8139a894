"""Waiting for a service: what counts is how long the service was silent, not how long the waiting loop was blocked."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from cluster.local.process import Child, Launch, spawn
from cluster.local.service import await_ready
from fleet.kernel.errors import StoreUnavailable


def sleeper(directory: Path, code: str = "import time; time.sleep(60)") -> Child:
    argv = [sys.executable, "-I", "-S", "-c", code]
    return spawn(Launch(name="sleeper", argv=argv, cwd=directory, log=directory / "log", pid_file=directory / "pid"))


async def test_service_is_ready_although_the_loop_was_blocked_for_longer_than_the_limit(tmp_path: Path) -> None:
    child, probes = sleeper(tmp_path), 0

    async def probe() -> bool:
        nonlocal probes
        probes += 1
        if probes == 1:
            time.sleep(1.3)  # as a start of Ray in this process does, and the probe itself comes too late then
        return probes == 2

    await await_ready(child, probe, name="sleeper", within_s=1.1)
    assert (probes, child.is_alive) == (2, True)
    await child.stop(grace_s=1)


async def test_service_that_stays_silent_is_ended_and_named(tmp_path: Path) -> None:
    child = sleeper(tmp_path)

    async def probe() -> bool:
        return False

    with pytest.raises(StoreUnavailable, match="the sleeper did not answer within 0.1 s"):
        await await_ready(child, probe, name="sleeper", within_s=0.1)
    assert not child.is_alive


async def test_service_that_ended_is_reported_with_its_last_words(tmp_path: Path) -> None:
    # It stays until it is known by its identity: one that ends before that is reported by `spawn`.
    child = sleeper(
        tmp_path,
        f"import os, time\nwhile not os.path.exists({str(tmp_path / 'end')!r}): time.sleep(0.01)\n"
        "print('no room'); raise SystemExit(3)",
    )
    (tmp_path / "end").touch()
    await child.wait()

    async def probe() -> bool:
        return False

    with pytest.raises(StoreUnavailable, match=r"ended while it started \(exit status 3\); it said:\nno room"):
        await await_ready(child, probe, name="sleeper", within_s=60)
