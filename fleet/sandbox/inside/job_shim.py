# ruff: noqa: PTH100, PTH101, PTH103, PTH115, PTH118, PTH120, PTH123, PTH211
"""PID 1 of a Kubernetes Job: unpacks the inputs, runs the command under its limits, and prints what came of it.

The inputs are the files `part-*` of /fleet/request: one gzipped tar, whose SHA-256 is the argument. Its first member is
`request.json`: `{argv, env, cwd, limits, rlimits, artifacts, keep_tree, discard, max_return_bytes}`; further ones are
`stdin`, `workspace/...`, `inputs/...` and `repo/...`.

Everything printed is a frame on a line of its own: `#<number> <kind> <base64>`, numbered from 1. Kinds: `s` the command
starts, `o` and `e` its output and errors, `h` nothing new for some seconds, `b` the next bytes of a gzipped tar with
what is given back, `r` the result as JSON: the last frame. The command has no way to this output: it is started with
pipes, and no process of its user may open the descriptors of this one.

SIGTERM ends the command: it is told to end, and killed after its grace. Standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import tarfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from enter import become, noted, put_files, reaped  # noqa: E402  # pyright: ignore
from job_inputs import check_digest, unpack  # noqa: E402  # pyright: ignore
from job_return import Frames, Sending, disk_usage, give_back  # noqa: E402  # pyright: ignore

REQUEST = "/fleet/request"
_CHUNK = 1 << 16
_TICK_S = 0.05
_DISK_TICK_S = 0.5
_QUIET_S = 5.0
_DRAIN_S = 2.0
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 36, 38
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")
_OOM_EVENTS = "/sys/fs/cgroup/memory.events"


class Use(NamedTuple):
    """What all processes below this one use."""

    memory_bytes: int
    processes: int
    cpu_ms: int
    pids: list[int]


def protect() -> None:
    """No other process may read or trace this one, orphans become its children, and nobody gains rights."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_CHILD_SUBREAPER, 1), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option})")


def start(request: dict[str, Any], stdin: int, out: int, err: int) -> int:
    """Pid of the command."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(out, 1)
            os.dup2(err, 2)
            for name, value in request["rlimits"].items():
                number = getattr(resource, f"RLIMIT_{name.upper()}")
                hard = resource.getrlimit(number)[1]
                value = value if hard == resource.RLIM_INFINITY else min(value, hard)
                resource.setrlimit(number, (value, value))
            become({**request, "stdin": f"/proc/self/fd/{stdin}" if stdin >= 0 else None})
        except OSError as error:
            os.write(2, f"job: failed to execute {request['argv'][0]}: {error.strerror}\n".encode(errors="replace"))
        os._exit(127)
    return pid


def sample() -> Use:
    """The use of all processes below this one; private resident memory."""
    memory, count, cpu, pids = 0, 0, 0, list[int]()
    waiting = _children(os.getpid())
    while waiting:
        pid = waiting.pop()
        waiting.extend(_children(pid))
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident, shared = (int(n) for n in _read(f"/proc/{pid}/statm").split()[1:3])
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            pids.append(pid)
            memory += (resident - shared) * _PAGE
            count += int(fields[17])
            cpu += int(fields[11]) + int(fields[12])
    return Use(memory, count, cpu * 1000 // _TICKS, pids)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with contextlib.suppress(OSError, ValueError):
                children += [int(c) for c in _read(f"/proc/{pid}/task/{thread}/children").split()]
    return children


def _read(path: str) -> str:
    with open(path, encoding="latin-1") as file:
        return file.read()


def kills_seen() -> int:
    """How often the kernel killed for memory in this container; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        rows = dict(line.split() for line in _read(_OOM_EVENTS).splitlines())
        return int(rows.get("oom_kill", "0"))
    return 0


class Run:
    """The command from its start until no process of it is left."""

    def __init__(self, request: dict[str, Any], stdin: int, frames: Frames) -> None:
        self._limits, self._frames = request["limits"], frames
        self.cause: str | None = None
        self._wakeups, wake = os.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(self._wakeups, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, noted)
        self._is_told = False
        signal.signal(signal.SIGTERM, self._told)
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self._streams = {out: "o", err: "e"}
        self._kills = kills_seen()
        self.begun = self._heard = time.monotonic()
        self._disk_at, self._kill_at = self.begun + _DISK_TICK_S, self.begun + self._limits["overall_s"]
        self._printed, self.peak, self.code = 0, Use(0, 0, 0, []), None
        frames.send("s", b"")
        self._command = start(request, stdin, out_end, err_end)
        os.close(out_end)
        os.close(err_end)
        if stdin >= 0:
            os.close(stdin)

    def _told(self, number: int, frame: object) -> None:
        self._is_told = True

    def watch(self) -> None:
        """Return when the command ended or was killed, with all that it started, and what it printed is sent."""
        while self.code is None:
            self._pump(_TICK_S)
            self._check()
            if self.code is None:
                self.code = reaped(self._command)
        self._end_all()
        deadline = time.monotonic() + _DRAIN_S
        while self._streams and time.monotonic() < deadline:
            self._pump(_TICK_S)
        if self.cause is None and kills_seen() > self._kills:
            self.cause = "oom_killed"

    def _pump(self, wait_s: float) -> None:
        ready = select.select([*self._streams, self._wakeups], [], [], wait_s)[0]
        for descriptor in ready:
            if descriptor == self._wakeups:
                with contextlib.suppress(BlockingIOError):
                    os.read(descriptor, _CHUNK)
            elif data := os.read(descriptor, _CHUNK):
                self._took(descriptor, data)
            else:
                os.close(descriptor)
                del self._streams[descriptor]

    def _took(self, descriptor: int, data: bytes) -> None:
        room = self._limits["output_bytes"] + 1 - self._printed
        self._printed += len(data)
        self._heard = time.monotonic()
        if room > 0:
            self._frames.send(self._streams[descriptor], data[:room])
        if self._printed > self._limits["output_bytes"]:
            self._kill("output_limit")

    def _check(self) -> None:
        now = time.monotonic()
        if self._is_told:
            self._is_told = False
            if self.cause is None:
                self.cause = "cancelled"
                self._kill_at = min(self._kill_at, now + self._limits["grace_s"])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._command, signal.SIGTERM)
        if now >= self._kill_at:
            self._kill("timeout")
        if now - self._heard >= self._limits["idle_s"]:
            self._kill("idle_timeout")
        use = sample()
        self.peak = Use(
            max(self.peak.memory_bytes, use.memory_bytes),
            max(self.peak.processes, use.processes),
            max(self.peak.cpu_ms, use.cpu_ms),
            [],
        )
        if use.memory_bytes > self._limits["memory_bytes"]:
            self._kill("oom_killed")
        if use.processes > self._limits["pids"]:
            self._kill("pids_limit")
        if now >= self._disk_at:
            if disk_usage() > self._limits["disk_bytes"]:
                self._kill("disk_limit")
            self._disk_at = now + max(_DISK_TICK_S, 5 * (time.monotonic() - now))
        if now - self._frames.last_s > _QUIET_S:
            self._frames.send("h", b"")

    def _kill(self, cause: str) -> None:
        self.cause = self.cause or cause
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._command, signal.SIGKILL)

    def _end_all(self) -> None:
        """No process of the run is left: orphans are ours, so they are found until there are none."""
        while True:
            for pid in sample().pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0] != 0:
                    pass
                time.sleep(0.005)
                continue
            return


def result_of(run: Run, request: dict[str, Any], before: dict[str, tuple[str, str]], frames: Frames) -> dict[str, Any]:
    """The result; what the command left is sent before it."""
    wall_ms = int((time.monotonic() - run.begun) * 1000)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cause, note = run.cause, {"left_out": 0, "too_large": False}
    if cause is None and disk_usage() > request["limits"]["disk_bytes"]:
        cause = "disk_limit"
    sending = Sending(frames)
    if request["keep_tree"] or request["artifacts"]:
        note = give_back(request, before, sending)
    return {
        "exit_code": run.code,
        "cause": cause,
        "wall_ms": wall_ms,
        "cpu_ms": max(run.peak.cpu_ms, int((used.ru_utime + used.ru_stime) * 1000)),
        "max_memory_bytes": run.peak.memory_bytes,
        "max_pids": run.peak.processes,
        "returned_bytes": sending.size,
        "returned_sha256": sending.sha256.hexdigest(),
        **note,
    }


def main(arguments: Sequence[str]) -> NoReturn:
    frames = Frames()
    try:
        os.umask(0o022)
        protect()
        check_digest(REQUEST, arguments[0])
        request, stdin, before = unpack(REQUEST)
        put_files(request["files"])
        request["env"] = {"PATH": os.environ.get("PATH", os.defpath), **request["env"]}
        run = Run(request, stdin, frames)
    except (OSError, ValueError, KeyError, tarfile.TarError) as error:
        frames.send("r", json.dumps({"refused": f"{type(error).__name__}: {error}"[:2000]}).encode())
        os._exit(70)
    run.watch()
    frames.send("r", json.dumps(result_of(run, request, before, frames)).encode())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
