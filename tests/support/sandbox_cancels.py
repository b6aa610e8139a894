"""Runs that are cancelled at random moments, and what is left of them on the machine.

As a program, with state root and number of runs: prints one JSON object with the health and what is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import sys
from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.policy.runs.spec import Limits, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.bubblewrap.cgroups import find_parents
from fleet.sandbox.backends.probes import processes_named
from fleet.trees.memory import MemoryBlobStore

_LIMITS = Limits(overall_s=20, idle_s=20, memory_bytes=256 << 20, pids=64, disk_bytes=64 << 20, grace_s=1)
_AT_ONCE = 4


async def cancel_at_random(backend: BubblewrapBackend, count: int, *, seed: int) -> str:
    """So many runs were ended within 0.3 s of their begin, half of them by `cancel`; the token in their commands."""
    draw, token = random.Random(seed), secrets.token_hex(8)
    for begin in range(0, count, _AT_ONCE):
        numbers = range(begin, min(begin + _AT_ONCE, count))
        await asyncio.gather(*(_cancel_one(backend, f"{token}-{n}", draw.uniform(0, 0.3), n % 2 == 0) for n in numbers))
    return token


async def _cancel_one(backend: BubblewrapBackend, name: str, after_s: float, is_gentle: bool) -> None:
    code = f"trap '' TERM; echo up; setsid sleep 300 & sleep 300 & wait # {name}"
    run = asyncio.create_task(backend.run(RunSpec(argv=("/bin/bash", "-c", code), limits=_LIMITS), run_id=f"rn-{name}"))
    await asyncio.sleep(after_s)
    if is_gentle:
        await backend.cancel(f"rn-{name}")
        assert (await run).reason == "cancelled"
    else:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run


def leftovers(root: Path, token: str) -> list[str]:
    """Processes, run folders, mounts and cgroups that are still there."""
    found = [f"process {pid}" for pid in processes_named(token)]
    found += [f"folder {path}" for path in root.glob("runs/*/*")]
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found += [f"mount {line}" for line in mounts if str(root) in line]
    folders = {parent.folder for parent in find_parents().values()}
    found += [f"cgroup {path}" for folder in folders for path in folder.glob(f"{_mark(root)}-*")]
    return found


def _mark(root: Path) -> str:
    return f"fleet-{digest_of(str(root.absolute()).encode()).hex[:12]}"


async def main(root: Path, count: int) -> None:
    backend = BubblewrapBackend(root, MemoryBlobStore())
    health = await backend.health()
    token = await cancel_at_random(backend, count, seed=200)
    print(json.dumps({"status": health.status, "left": leftovers(root, token)}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
