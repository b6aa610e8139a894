"""One sandbox from start to end: the start protocol, the watch over its limits, the kill protocol.

Everything is started from the thread of the event loop: `--die-with-parent` follows the thread that started it.

Source: docs/design/sandbox.md, section 5.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import re
import signal
import subprocess
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.policy.runs.spec import Limits, RunReason, Usage
from fleet.sandbox.backends.bubblewrap.cgroups import Cgroup
from fleet.sandbox.backends.bubblewrap.launch import Launch, secret_options, stdin_of
from fleet.sandbox.backends.bubblewrap.limits import Sample, rlimit_argv, sample_processes
from fleet.sandbox.backends.bubblewrap.memory_files import memory_file
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.command import terminate_command
from fleet.sandbox.backends.output import RunOutput, StreamBuffer, StreamName
from fleet.sandbox.backends.run_end import natural_reason

_ENV = "/usr/bin/env"
_RESTORED_BY_POPEN = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_STATUS = Path("/proc/self/status")


def ignored_signals(status: str) -> frozenset[int]:
    """The signals that a process ignores, by its /proc/<pid>/status; those that subprocess resets are left out."""
    match = re.search(r"^SigIgn:\s*([0-9a-f]+)$", status, re.MULTILINE)
    mask = int(match.group(1), 16) if match else 0
    return frozenset(n for n in range(1, 65) if mask >> (n - 1) & 1) - _RESTORED_BY_POPEN


def default_signals_argv() -> tuple[str, ...]:
    """What has to run before a command so that it ignores nothing; empty, and free, where nothing is ignored.

    An ignored signal stays ignored over exec, and only the process itself can change that.
    """
    if not ignored_signals(_STATUS.read_text(encoding="latin-1")):
        return ()
    return (_ENV, "--default-signal") if _can_reset() else ()


@contextlib.contextmanager
def nothing_blocked() -> Generator[None]:
    """What this thread starts within the block has no signal blocked."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.cache
def _can_reset() -> bool:
    """True where `env` knows the option: GNU coreutils since 8.31 (2019)."""
    with contextlib.suppress(OSError):
        return subprocess.run((_ENV, "--default-signal", "true"), capture_output=True, check=False).returncode == 0
    return False


_FULL_SAMPLES = 8


class UseWatch:
    """Peaks of all samples; the cgroup's own counters too where there is one.

    Args:
        cgroup: of this run; None where none can be made.
    """

    def __init__(self, limits: Limits, cgroup: Cgroup | None) -> None:
        self._limits, self._cgroup = limits, cgroup
        self._peak = Sample(0, 0, 0)
        self._full_samples = 0

    def sample(self, first: int) -> RunReason | None:
        """Look at the processes below `first` now; the limit that they are over, or None.

        Being full for a moment is no offence: only so many full samples in a row end a run as `pids_limit`.
        """
        sample = sample_processes(first)
        self._peak = Sample(*(max(pair) for pair in zip(self._peak, sample, strict=True)))
        self._full_samples = self._full_samples + 1 if sample.processes >= self._limits.pids else 0
        if sample.memory_bytes > self._limits.memory_bytes or self.was_oom_killed:
            return "oom_killed"
        return "pids_limit" if self._full_samples >= _FULL_SAMPLES else None

    @property
    def was_oom_killed(self) -> bool:
        """The kernel killed a process for the memory limit of the run's cgroup."""
        return self._cgroup is not None and self._cgroup.oom_kills() > 0

    @property
    def was_full(self) -> bool:
        """The run had as many processes as it may have."""
        refused = self._cgroup.refused_forks() if self._cgroup is not None else 0
        return self._peak.processes >= self._limits.pids or refused > 0

    def usage(self, *, wall_ms: int) -> Usage:
        """What the run used, as its result says it."""
        charged = self._cgroup.peak_memory() if self._cgroup is not None else 0
        return Usage(
            wall_ms=wall_ms,
            cpu_ms=self._peak.cpu_ms,
            max_memory_bytes=max(self._peak.memory_bytes, charged),
            max_pids=self._peak.processes,
        )


_START_S = 20.0
_DRAIN_S = 2.0
_DEAD_S = 10.0
_TICK_S = 0.1
_DISK_TICK_S = 0.5
_NICENESS = 5
_CHUNK = 1 << 15


@dataclass(frozen=True, slots=True)
class Ended:
    """How the command ended; every process of its sandbox is dead."""

    reason: RunReason
    exit_code: int | None
    output: RunOutput
    usage: Usage


async def run_process(launch: Launch, stop: Stop) -> Ended:
    """Run one sandbox to its end. Never cancel it: ask `stop`, so that the kill protocol is followed.

    Raises:
        SandboxUnavailable: bubblewrap could not build the sandbox; the command was not started.
        InvalidInput: the kernel does not take this command line.
    """
    if stop.cause is not None:
        return Ended(stop.cause, None, RunOutput(0), Usage())
    sandbox = _Sandbox(launch, stop)
    try:
        sandbox.start()
        if not await sandbox.is_built():
            raise SandboxUnavailable(
                f"bubblewrap could not build a sandbox: {sandbox.complaint}",
                missing="bubblewrap",
                stderr=sandbox.complaint,
            )
        await sandbox.watch()
        return sandbox.ended()
    finally:
        await sandbox.close()


class _Sandbox:
    """Descriptors, buffers and clocks of one sandbox. Invariant: once `close` returned, none of its processes lives."""

    def __init__(self, launch: Launch, stop: Stop) -> None:
        self._launch, self._stop, self._limits = launch, stop, launch.limits
        self._loop = asyncio.get_running_loop()
        self._output = RunOutput(launch.limits.output_bytes, forms=launch.forms, log=launch.log)
        self._info, self._status = StreamBuffer(0), StreamBuffer(0)
        self._changed = asyncio.Event()
        self._owned = contextlib.ExitStack()
        self._reading: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._first: int | None = None
        self._first_fd = self._block = -1
        self._over = asyncio.Event()
        self._is_killed = self._is_dead = self._is_beyond = False
        self._begun = self._heard = self._next_sample = self._loop.time()
        self._finished = self._begun
        self._use = UseWatch(launch.limits, launch.cgroup)
        self._disk_watch: asyncio.Task[None] | None = None
        stop.listener = self._changed.set

    # The start: the command waits at the block descriptor until its PID 1 is known, so that a kill never misses it.

    def start(self) -> None:
        """bubblewrap runs, and what it says is read; its command has not started."""
        with contextlib.ExitStack() as theirs:
            filter_fd = memory_file(theirs, self._launch.seccomp)
            info, info_w = self._pipe(theirs)
            status, status_w = self._pipe(theirs)
            block_r, self._block = _pipe_to(self._owned, theirs)
            placed, secret_fds = secret_options(theirs, self._launch)
            options = [*self._launch.options, *placed, "--seccomp", str(filter_fd), "--info-fd", str(info_w)]
            options += ["--json-status-fd", str(status_w), "--block-fd", str(block_r)]
            args_fd = memory_file(theirs, b"".join(_bytes(o) + b"\0" for o in options))
            theirs_alone = (args_fd, filter_fd, info_w, status_w, block_r, *secret_fds)
            self._process = self._spawn(
                args_fd, (*theirs_alone, *self._launch.inherited), stdin_of(theirs, self._launch)
            )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._read_from(info, self._take_note(self._info))
        self._read_from(status, self._take_note(self._status))
        self._read_from(self._process.stdout.fileno(), self._take_output("stdout"))
        self._read_from(self._process.stderr.fileno(), self._take_output("stderr"))
        over = self._own(os.pidfd_open(self._process.pid))
        self._loop.add_reader(over, self._note_over, over)

    def _spawn(self, args_fd: int, inherited: Sequence[int], stdin: int) -> subprocess.Popen[bytes]:
        by_cgroup = self._launch.cgroup.controllers if self._launch.cgroup else ()
        rlimits = rlimit_argv(self._limits, by_cgroup=by_cgroup)
        inside = (*default_signals_argv(), *rlimits, *self._launch.prefix, *self._launch.argv)
        command = [self._launch.name, "--args", str(args_fd), "--", *inside]
        who = self._launch.identity
        try:
            with nothing_blocked():
                return subprocess.Popen(
                    [_bytes(part) for part in command],
                    executable=self._launch.bwrap,
                    env={},
                    cwd="/",
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    bufsize=0,
                    pass_fds=inherited,
                    start_new_session=True,
                    user=who.uid if who.is_dropped else None,
                    group=who.gid if who.is_dropped else None,
                    extra_groups=[*self._launch.groups] if who.is_dropped else None,
                )
        except OSError as error:
            if error.errno == errno.E2BIG:
                raise InvalidInput("argv of the run is too long for the kernel", field="argv") from error
            raise SandboxUnavailable(f"bubblewrap cannot be started: {error}", missing="bubblewrap") from error

    async def is_built(self) -> bool:
        """True once the sandbox's PID 1 is known and its command may start; False when bubblewrap gave up."""
        await self._until(lambda: self._child_pid() is not None or self._over.is_set(), _START_S)
        self._first = self._child_pid()
        if self._first is None:
            return False
        try:
            self._first_fd = self._own(os.pidfd_open(self._first))
            os.setpriority(os.PRIO_PROCESS, self._first, _NICENESS)
        except OSError:
            await self._until(self._over.is_set, _DRAIN_S)
            return False
        self._loop.add_reader(self._first_fd, self._note_dead)
        if self._launch.cgroup is not None and not await self._attach(self._launch.cgroup, self._first):
            return False
        self._begun = self._heard = self._loop.time()
        self._next_sample = self._begun + _TICK_S / 4
        if self._stop.cause is None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._block, b"1")
        return True

    async def _attach(self, cgroup: Cgroup, pid: int) -> bool:
        """True once the sandbox is limited; in a thread, because the kernel may take its time to move a process."""
        try:
            await asyncio.to_thread(cgroup.attach, pid)
        except ProcessLookupError:
            return False
        except OSError as error:
            raise SandboxUnavailable(f"the run cannot be put into its cgroup: {error}", missing="cgroup") from error
        return True

    def _child_pid(self) -> int | None:
        match = re.search(rb'"child-pid":\s*(\d+)\D', self._info.tail)
        return int(match.group(1)) if match else None

    # The watch.

    async def watch(self) -> None:
        """Return once the command ended or was killed, and every process of the sandbox is dead."""
        self._disk_watch = asyncio.create_task(self._watch_disk())
        while not self._over.is_set():
            if self._stop.cause is not None:
                await self._ask_to_end()
                self._kill()
                await self._until(self._over.is_set, _DEAD_S)
                break
            await self._until(lambda: self._over.is_set() or self._stop.cause is not None, self._pause_s())
            if not self._over.is_set():
                self._check_limits()
        self._finished = self._loop.time()
        await self._end()
        if b'"exit-code"' not in self._status.tail and self._stop.cause is None and self.complaint.startswith("bwrap:"):
            raise SandboxUnavailable(
                f"bubblewrap could not build a sandbox: {self.complaint}", missing="bubblewrap", stderr=self.complaint
            )

    def _pause_s(self) -> float:
        now, limits = self._loop.time(), self._limits
        moments = (self._next_sample, self._begun + limits.overall_s, self._heard + limits.idle_s)
        return max(0.001, min(moments) - now)

    async def _ask_to_end(self) -> None:
        """A cancelled command gets SIGTERM and its time to tidy up (RC-24); its limits hold all the while."""
        grace = self._limits.grace_s if self._stop.cause == "cancelled" else 0
        if self._stop.is_urgent or not grace or self._first is None or not terminate_command(self._first):
            return
        deadline = self._loop.time() + grace
        while not (self._over.is_set() or self._stop.is_urgent or self._is_beyond):
            now = self._loop.time()
            if now >= deadline:
                return
            pause = min(deadline, max(self._next_sample, now + 0.001)) - now
            await self._until(lambda: self._over.is_set() or self._stop.is_urgent or self._is_beyond, pause)
            self._check_limits()

    def _end_for(self, cause: RunReason) -> None:
        self._is_beyond = True
        self._stop.request(cause)

    def _check_limits(self) -> None:
        now = self._loop.time()
        if now >= self._begun + self._limits.overall_s:
            self._end_for("timeout")
        elif now >= self._heard + self._limits.idle_s:
            self._end_for("idle_timeout")
        elif now >= self._next_sample:
            self._take_sample()
            # A sandbox full of processes costs its watcher at most a tenth of a core.
            self._next_sample = now + max(_TICK_S, 10 * (self._loop.time() - now))

    def _take_sample(self) -> None:
        assert self._first is not None
        if (cause := self._use.sample(self._first)) is not None:
            self._end_for(cause)

    async def _watch_disk(self) -> None:
        pause = _DISK_TICK_S
        while not await _happens(self._over, within_s=pause):
            begun = self._loop.time()
            if await asyncio.to_thread(self._launch.disk_usage) > self._limits.disk_bytes:
                self._end_for("disk_limit")
            pause = max(_DISK_TICK_S, 10 * (self._loop.time() - begun))

    # The end.

    def _kill(self) -> None:
        """PID 1 of the sandbox first, then bubblewrap: the other order leaves the sandbox alive (bubblewrap#633)."""
        if self._is_killed:
            return
        self._is_killed = True
        if self._first_fd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._first_fd, signal.SIGKILL)
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def _end(self) -> None:
        self._kill()
        outputs = {p.fileno() for p in (self._process and (self._process.stdout, self._process.stderr)) or () if p}
        await self._until(lambda: self._is_dead or self._first_fd < 0, _DEAD_S)
        await self._until(lambda: self._reading.isdisjoint(outputs), _DRAIN_S)
        if self._disk_watch is not None:
            await asyncio.wait([self._disk_watch])

    @property
    def complaint(self) -> str:
        """What bubblewrap said about its own failure, at most 2,000 characters."""
        return self._output.stderr.tail.decode(errors="replace").strip()[:2000] or "it ended without a word"

    def ended(self) -> Ended:
        """The result; the status document of bubblewrap names the exit code, else it did not end by itself."""
        self._output.finish()
        cause = self._stop.cause
        match = re.search(rb'"exit-code":\s*(\d+)', self._status.tail)
        code = int(match.group(1)) if match else 137
        if cause is None and self._use.was_oom_killed:
            cause = "oom_killed"
        elif cause is None and self._output.is_over:
            cause = "output_limit"
        elif cause is None:
            cause = natural_reason(code, is_full=self._use.was_full) if match else "sandbox_lost"
        usage = self._use.usage(wall_ms=int((self._finished - self._begun) * 1000))
        return Ended(cause, code, self._output, usage)

    async def close(self) -> None:
        """No process and no descriptor of the sandbox is left, however it went."""
        self._stop.listener = None
        if self._process is None:
            self._over.set()
        if not self._over.is_set() and self._first is None and (pid := self._child_pid()) is not None:
            self._first = pid
            with contextlib.suppress(OSError):
                self._first_fd = self._own(os.pidfd_open(pid))
                self._loop.add_reader(self._first_fd, self._note_dead)
        self._kill()
        await self._until(self._over.is_set, _DEAD_S)
        await self._end()
        for descriptor in (*self._reading, self._first_fd):
            if descriptor >= 0:
                self._loop.remove_reader(descriptor)
        if self._process is not None:
            self._process.poll()
            for pipe in (self._process.stdout, self._process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._first is not None:
            # PID 1 becomes our child when this process is a subreaper, and has to be reaped then.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._first, os.WNOHANG)
        self._owned.close()

    # Descriptors.

    async def _until(self, is_true: Callable[[], bool], within_s: float) -> None:
        """Return once the condition holds or the time is over."""
        deadline = self._loop.time() + within_s
        while not is_true() and (left := deadline - self._loop.time()) > 0:
            self._changed.clear()
            await _happens(self._changed, within_s=left)

    def _own(self, descriptor: int) -> int:
        self._owned.callback(os.close, descriptor)
        return descriptor

    def _pipe(self, theirs: contextlib.ExitStack) -> tuple[int, int]:
        read, write = os.pipe()
        theirs.callback(os.close, write)
        return self._own(read), write

    def _read_from(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        os.set_blocking(descriptor, False)
        self._reading.add(descriptor)
        self._loop.add_reader(descriptor, self._read, descriptor, take)

    def _read(self, descriptor: int, take: Callable[[bytes], None]) -> None:
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(descriptor)
            self._reading.discard(descriptor)
            self._changed.set()
        take(data)

    def _take_note(self, buffer: StreamBuffer) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            buffer.feed(data)
            self._changed.set()

        return take

    def _take_output(self, stream: StreamName) -> Callable[[bytes], None]:
        def take(data: bytes) -> None:
            self._output.feed(stream, data)
            self._heard = self._loop.time()
            if self._output.is_over:
                self._end_for("output_limit")

        return take

    def _note_over(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._over.set()
        self._changed.set()

    def _note_dead(self) -> None:
        self._loop.remove_reader(self._first_fd)
        self._is_dead = True
        self._changed.set()


async def _happens(event: asyncio.Event, *, within_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), within_s)
    except TimeoutError:
        return False
    return True


def _pipe_to(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe()
    theirs.callback(os.close, read)
    ours.callback(os.close, write)
    return read, write


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
