"""Start of a sandboxed command against bare bubblewrap with the same namespaces, alone and fifty at once."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.figures import Figure, percentile
from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import Limits, RunSpec
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.identity import is_root
from fleet.sandbox.folders.stage import build_stage
from fleet.trees.memory import MemoryBlobStore

ALONE, AT_ONCE = 60, 50
NOBODY = 65_534
COMMAND = ("/bin/echo", "started")
NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--unshare-net"),
    *("--disable-userns", "--uid", "1000", "--gid", "1000", "--hostname", "sandbox"),
    *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
)
Start = Callable[[], Awaitable[float]]


async def measure(_: Path) -> list[Figure]:
    """Time until the command's first line is read; ours includes the workspace, the filter, the limits and the log."""
    # The folder of the benchmark is closed to the user that a root supervisor drops to.
    folder = Path(tempfile.mkdtemp(prefix="fleet-bench-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        backend = BubblewrapBackend(folder / "state", MemoryBlobStore())
        health = await backend.health()
        if health.status != "ok":
            raise SandboxUnavailable("; ".join((*health.unmet, *health.mend)), missing="bubblewrap")
        stage = build_stage(folder / "bare", is_dropped=is_root())
        mechanism = f"limits by {', '.join(sorted({health.enforced[k] for k in ('memory', 'pids', 'cpu')}))}"
        return await _figures(_ours(backend), _bare(stage.bwrap), mechanism)
    finally:
        shutil.rmtree(folder)


async def _figures(ours: Start, bare: Start, mechanism: str) -> list[Figure]:
    # In turn, so that a slow minute of the machine falls on both.
    alone = [(await bare(), await ours()) for _ in range(ALONE)][5:]
    bare_ms, ours_ms = ([pair[n] * 1e3 for pair in alone] for n in (0, 1))
    bare_many = [s * 1e3 for s in await asyncio.gather(*(bare() for _ in range(AT_ONCE)))]
    ours_many = [s * 1e3 for s in await asyncio.gather(*(ours() for _ in range(AT_ONCE)))]
    yardstick = "bare bwrap"
    return [
        Figure("sandbox start, least", min(ours_ms), "ms", yardstick, min(bare_ms), mechanism),
        Figure("sandbox start, p50", percentile(ours_ms, 50), "ms", yardstick, percentile(bare_ms, 50)),
        Figure("sandbox start, p95", percentile(ours_ms, 95), "ms", yardstick, percentile(bare_ms, 95)),
        Figure(
            "50 sandboxes at once, start p50", percentile(ours_many, 50), "ms", yardstick, percentile(bare_many, 50)
        ),
        Figure(
            "50 sandboxes at once, start p95", percentile(ours_many, 95), "ms", yardstick, percentile(bare_many, 95)
        ),
        Figure("50 sandboxes at once, start max", max(ours_many), "ms", yardstick, max(bare_many)),
    ]


def _ours(backend: BubblewrapBackend) -> Start:
    numbers = iter(range(10_000))
    spec = RunSpec(argv=COMMAND, limits=Limits(overall_s=60))

    async def start() -> float:
        seen: list[float] = []

        def note(_: LogLine) -> None:
            seen.append(time.perf_counter())

        begun = time.perf_counter()
        result = await backend.run(spec, run_id=f"rn-{next(numbers)}", log=note)
        assert result.reason == "ok", result
        return seen[0] - begun

    return start


def _bare(bwrap: Path) -> Start:
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if is_root() else {}

    async def start() -> float:
        begun = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            bwrap,
            *NAMESPACES,
            "--",
            *COMMAND,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            env={},
            cwd="/",
            **who,  # pyright: ignore[reportArgumentType]
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        took = time.perf_counter() - begun
        await process.communicate()
        assert line == b"started\n", line
        return took

    return start
