"""One container from start to end: the start, the watch over its limits, the kill.

Source: docs/design/sandbox.md, section 9.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import Limits, RunReason, Usage
from fleet.sandbox.backends.bubblewrap.limits import Sample, sample_processes
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.containers.engine import Engine
from fleet.sandbox.backends.containers.link import Link
from fleet.sandbox.backends.output import RunOutput, StreamName
from fleet.sandbox.backends.run_end import natural_reason

_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ContainerCounters:
    """Folders of the control groups; None where the engine made none of its own, so that nothing is counted there."""

    memory: Path | None
    pids: Path | None
    is_v1: bool

    @property
    def oom_kills(self) -> int:
        """Processes that the kernel killed because the memory limit was reached."""
        return _field(self.memory, "memory.oom_control" if self.is_v1 else "memory.events", "oom_kill")

    @property
    def refused_forks(self) -> int:
        """How often a process was not made because the process limit was reached."""
        return _field(self.pids, "pids.events", "max")

    @property
    def peak_memory(self) -> int:
        """Most bytes at one time, 0 when it is not known."""
        return _number(self.memory, "memory.max_usage_in_bytes" if self.is_v1 else "memory.peak")


def counters_of(pid: int, *, proc: Path = Path("/proc"), root: Path = _ROOT) -> ContainerCounters:
    """The control groups of a process that are not also ours; missing ones are None."""
    theirs, ours = _groups(proc / str(pid) / "cgroup"), _groups(proc / "self" / "cgroup")
    unified = theirs.get("", "")
    is_v1 = "memory" in theirs
    folders: dict[str, Path | None] = {}
    for name in ("memory", "pids"):
        group = theirs.get(name) if is_v1 else unified
        own = ours.get(name) if is_v1 else ours.get("")
        folder = root / (name if is_v1 else "") / (group or "").lstrip("/")
        folders[name] = folder if group and group != own and folder.is_dir() else None
    return ContainerCounters(folders["memory"], folders["pids"], is_v1)


def _groups(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    fields = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return {name: group for _, names, group in fields for name in names.split(",")}


def _read(folder: Path | None, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="ascii") if folder else ""
    except OSError:
        return ""


def _number(folder: Path | None, name: str) -> int:
    """The first number of the file, 0 when there is none or it says `max`."""
    word = (_read(folder, name).split() or [""])[0]
    return int(word) if word.lstrip("-").isdecimal() else 0


def _field(folder: Path | None, name: str, field: str) -> int:
    for line in _read(folder, name).splitlines():
        key, _, value = line.partition(" ")
        if key == field and value.strip().isdecimal():
            return int(value)
    return 0


_START_S = 30.0
_DRAIN_S = 2.0
_DEAD_S = 10.0
_TICK_S = 0.1
_POLL_S = 0.01
_ASK_S = 0.1
_DISK_TICK_S = 0.5
_FULL_SAMPLES = 8
_CHUNK = 1 << 16
_KILLED = 137


@dataclass(frozen=True, slots=True)
class ContainerLaunch:
    """What to start: the engine's arguments, and the line for `enter.py`, which only its standard input shows."""

    args: Sequence[str]
    name: str
    request: Mapping[str, Any]
    limits: Limits
    pid_file: Path
    link: Path
    """Where the socket for PID 1 is made."""
    disk_usage: Callable[[], int]
    """Bytes in the workspace; called in a thread."""
    output: RunOutput


@dataclass(frozen=True, slots=True)
class ContainerEnded:
    """How the command ended; its container is gone."""

    reason: RunReason
    exit_code: int | None
    usage: Usage
    is_oom_seen: bool = False
    """The kernel's own counter, not our watchdog, found the memory limit reached."""


async def run_container(engine: Engine, launch: ContainerLaunch, stop: Stop) -> ContainerEnded:
    """Run one container to its end. Never cancel it: ask `stop`, so that the container is removed.

    Raises:
        SandboxUnavailable: the engine could not start it; the command was not started.
    """
    if stop.cause is not None:
        return ContainerEnded(stop.cause, None, Usage())
    container = _Container(engine, launch, stop)
    try:
        if not await container.is_started():
            return ContainerEnded(stop.cause or "sandbox_lost", None, Usage())
        await container.watch()
        return await container.ended()
    finally:
        await container.close()


class _Container:
    """Client, pipes and clocks of one container. Invariant: once `close` returned, the container is removed."""

    def __init__(self, engine: Engine, launch: ContainerLaunch, stop: Stop) -> None:
        self._engine, self._launch, self._stop, self._limits = engine, launch, stop, launch.limits
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._client: asyncio.subprocess.Process | None = None
        self._first, self._first_fd = 0, -1
        self._counters = ContainerCounters(None, None, is_v1=False)
        self._link: Link | None = None
        self._code: int | None = None
        self._begun = self._heard = self._next_sample = self._finished = self._loop.time()
        self._peak = Sample(0, 0, 0)
        self._is_beyond = False
        self._full_samples = self._oom_kills = self._refused_forks = self._peak_memory = 0
        stop.listener = self._changed.set

    # The start: the command waits in `enter.py` until the first process is known and watched.

    async def is_started(self) -> bool:
        """True once the command may run; False when the run was stopped before."""
        self._link = Link(self._launch.link, self._hear)
        self._client = await self._engine.start(self._launch.args)
        assert self._client.stdout is not None
        assert self._client.stderr is not None
        pumps = (self._pump("stdout", self._client.stdout), self._pump("stderr", self._client.stderr))
        self._tasks = [asyncio.create_task(work) for work in (*pumps, self._note_over())]
        await self._find_first()
        if self._first_fd >= 0:
            self._link.await_peer(self._first)
            await self._until(lambda: self._is_joined or self._is_over or self._stop.cause is not None, _START_S)
        if self._stop.cause is not None:
            return False
        if not self._is_joined:
            await asyncio.wait(self._tasks[:2], timeout=_DRAIN_S)
            raise SandboxUnavailable(
                f"{self._engine.name} could not start a container: {self._complaint}",
                missing=self._engine.name,
                stderr=self._complaint,
            )
        self._counters = counters_of(self._first)
        self._begun = self._heard = self._loop.time()
        self._next_sample = self._begun + _TICK_S / 4
        self._tell(json.dumps(self._launch.request).encode() + b"\n")
        return True

    async def _find_first(self) -> None:
        assert self._client is not None
        deadline = self._loop.time() + _START_S
        # Also for a run that was stopped meanwhile: an engine that is still creating cannot be told to remove.
        while not self._is_over and self._loop.time() < deadline:
            if (pid := await self._first_pid()) > 0:
                with contextlib.suppress(OSError):
                    self._first, self._first_fd = pid, os.pidfd_open(pid)
                return
            await self._until(lambda: self._is_over, self._start_pause_s)

    @property
    def _start_pause_s(self) -> float:
        return _POLL_S if self._engine.name == "podman" else _ASK_S

    async def _first_pid(self) -> int:
        if self._engine.name != "podman":
            return await self._engine.first_pid(self._launch.name)
        try:
            text = self._launch.pid_file.read_text(encoding="ascii").strip()
        except OSError:
            return 0
        return int(text) if text.isdecimal() else 0

    @property
    def _is_joined(self) -> bool:
        return self._link is not None and self._link.is_joined

    # The watch.

    async def watch(self) -> None:
        """Return once the command ended or was killed."""
        disk = asyncio.create_task(self._watch_disk())
        self._tasks.append(disk)
        while not self._is_ended and self._stop.cause is None:
            await self._until(lambda: self._is_ended or self._stop.cause is not None, self._pause_s())
            if not self._is_ended:
                self._check_limits()
        if not self._is_ended:
            await self._end_by_force()
        await self._until(lambda: self._is_over, _DEAD_S)
        if self._code is None:
            self._hear()  # the word of a PID 1 that was not answered in time
        if self._code is None:
            self._finished = self._loop.time()
        await asyncio.wait(self._tasks[:2], timeout=_DRAIN_S)

    def _pause_s(self) -> float:
        moments = (self._next_sample, self._begun + self._limits.overall_s, self._heard + self._limits.idle_s)
        return max(0.001, min(moments) - self._loop.time())

    def _check_limits(self) -> None:
        now = self._loop.time()
        if now >= self._begun + self._limits.overall_s:
            self._end_for("timeout")
        elif now >= self._heard + self._limits.idle_s:
            self._end_for("idle_timeout")
        elif now >= self._next_sample:
            self._take_sample()
            # A container full of processes costs its watcher at most a tenth of a core.
            self._next_sample = now + max(_TICK_S, 10 * (self._loop.time() - now))

    def _take_sample(self, *, just_ended: int = 0) -> None:
        sample = sample_processes(self._first)
        sample = sample._replace(processes=sample.processes + just_ended)
        self._peak = Sample(*(max(pair) for pair in zip(self._peak, sample, strict=True)))
        self._oom_kills = max(self._oom_kills, self._counters.oom_kills)
        self._refused_forks = max(self._refused_forks, self._counters.refused_forks)
        self._peak_memory = max(self._peak_memory, self._counters.peak_memory)
        is_full = sample.processes >= self._limits.pids
        self._full_samples = self._full_samples + 1 if is_full else 0
        if self._oom_kills or sample.memory_bytes > self._limits.memory_bytes:
            self._end_for("oom_killed")
        elif self._full_samples >= _FULL_SAMPLES:
            self._end_for("pids_limit")

    async def _watch_disk(self) -> None:
        pause = _DISK_TICK_S
        while not self._is_over:
            begun = self._loop.time()
            if await asyncio.to_thread(self._launch.disk_usage) > self._limits.disk_bytes:
                self._end_for("disk_limit")
            pause = max(_DISK_TICK_S, 10 * (self._loop.time() - begun))
            await asyncio.wait([self._tasks[2]], timeout=pause)

    # The end.

    def _hear(self) -> None:
        """The command ended: the container's counters are read before its PID 1 may end, which removes them."""
        assert self._link is not None
        if self._code is None and (code := self._link.word()) is not None:
            self._code, self._finished = code, self._loop.time()
            # Where no cgroup counts, what the command left running tells whether it was refused a process.
            self._take_sample(just_ended=1)
            self._link.close()
        self._changed.set()

    @property
    def _is_ended(self) -> bool:
        return self._code is not None or self._is_over

    async def _end_by_force(self) -> None:
        """A cancelled command gets SIGTERM and its time to tidy up (RC-24); its limits hold all the while."""
        grace = self._limits.grace_s if self._stop.cause == "cancelled" and not self._stop.is_urgent else 0
        if grace:
            self._tell(b"T")
        deadline = self._loop.time() + grace
        while not self._must_die and (now := self._loop.time()) < deadline:
            await self._until(lambda: self._must_die, min(deadline, max(self._next_sample, now + 0.001)) - now)
            self._check_limits()
        self._kill()

    @property
    def _must_die(self) -> bool:
        return self._is_ended or self._stop.is_urgent or self._is_beyond

    def _end_for(self, cause: RunReason) -> None:
        self._is_beyond = True
        self._stop.request(cause)

    def _kill(self) -> None:
        if self._first_fd >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)

    def _tell(self, wish: bytes) -> None:
        assert self._client is not None
        assert self._client.stdin is not None
        with contextlib.suppress(OSError):
            self._client.stdin.write(wish)

    async def ended(self) -> ContainerEnded:
        """The result. Only a command of which PID 1 said that it ended, ended by itself (RC-19)."""
        self._launch.output.finish()
        code = _KILLED if self._code is None else self._code
        is_oom = await self._is_oom()
        cause = self._stop.cause
        if cause is None and is_oom:
            cause = "oom_killed"
        elif cause is None and self._launch.output.is_over:
            cause = "output_limit"
        if cause is None:
            is_full = self._refused_forks > 0 or self._peak.processes >= self._limits.pids
            cause = "sandbox_lost" if self._code is None else natural_reason(code, is_full=is_full)
        usage = Usage(
            wall_ms=int((self._finished - self._begun) * 1000),
            cpu_ms=self._peak.cpu_ms,
            max_memory_bytes=max(self._peak.memory_bytes, self._peak_memory),
            max_pids=self._peak.processes,
        )
        return ContainerEnded(cause, code, usage, is_oom_seen=is_oom)

    async def _is_oom(self) -> bool:
        has_counted = self._code is not None and self._counters.memory is not None
        return self._oom_kills > 0 or (not has_counted and await self._engine.is_oom_killed(self._launch.name))

    async def close(self) -> None:
        """No process of the container and no descriptor is left, however it went."""
        self._stop.listener = None
        if self._client is not None:
            self._kill()
            await self._engine.remove(self._launch.name)
            await self._until(lambda: self._is_over, _DEAD_S)
            if self._client.returncode is None:
                self._client.kill()
            assert self._client.stdin is not None
            self._client.stdin.close()
            await asyncio.wait(self._tasks, timeout=_DEAD_S)
        if self._link is not None:
            self._link.close()
        if self._first_fd >= 0:
            os.close(self._first_fd)

    # The client.

    @property
    def _is_over(self) -> bool:
        return self._client is not None and self._client.returncode is not None

    @property
    def _complaint(self) -> str:
        return self._launch.output.stderr.tail.decode(errors="replace").strip()[-1000:] or "it ended without a word"

    async def _note_over(self) -> None:
        assert self._client is not None
        await self._client.wait()
        self._changed.set()

    async def _pump(self, name: StreamName, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(_CHUNK):
            self._launch.output.feed(name, data)
            self._heard = self._loop.time()
            if self._launch.output.is_over:
                self._end_for("output_limit")

    async def _until(self, is_true: Callable[[], bool], within_s: float) -> None:
        """Return once the condition holds or the time is over."""
        deadline = self._loop.time() + within_s
        while not is_true() and (left := deadline - self._loop.time()) > 0:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
