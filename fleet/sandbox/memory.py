"""The sandbox and its ledger in memory, for unit tests and the simulation."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.log.memory import Signal
from fleet.log.rules import key_reused, run_fenced
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import Artifact, BlobMount, OutputStream, RunReason, RunResult, RunSpec
from fleet.sandbox.backends.live_sessions import MAX_UNREAD_BYTES
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.redaction import forms_in
from fleet.sandbox.backends.request import MAX_STDIN_BYTES, check_delivery, check_spec
from fleet.sandbox.backends.run_end import (
    ENDED_BY_COMMAND,
    STATUS_OF,
    is_config_error,
    is_missing_program,
    natural_reason,
)
from fleet.sandbox.port import Claimed, Done, LogPage, LogSink, Lost, Running, SandboxHealth
from fleet.secrets.port import SecretDelivery
from fleet.trees.port import BlobStore
from fleet.trees.service import put_kept, read_tree
from fleet.trees.tree import FileEntry, Tree, encode_tree


@dataclass(frozen=True, slots=True)
class ProgramStart:
    """What a scripted program sees: its arguments, variables and input, the files of /workspace, and the others."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, bytes]
    inputs: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """Those of /inputs and /run/secrets, by absolute path."""
    cwd: str = "."
    stdin: bytes = b""


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """What a scripted program did: exit code, output, and the files it wrote (None: removed)."""

    exit_code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    written: Mapping[str, bytes | None] = field(default_factory=dict[str, bytes | None])


Program = Callable[[ProgramStart], ProgramEnd | Awaitable[ProgramEnd]]


def by_argv(table: Mapping[tuple[str, ...], ProgramEnd]) -> Program:
    """The program that looks its whole command line up in a table; any other command is not found (127)."""
    missing = ProgramEnd(exit_code=127, stderr=b"twin: failed to execute the program: it is in no table\n")
    return lambda start: table.get(start.argv, missing)


class MemorySandboxBackend:
    """Answers runs with a Python function. Implements SandboxBackend as far as that is possible without a real system.

    Held: trees in and out, artifacts, output cap, lines (once the program is over), secrets, wall time, cancellation
    (without a grace), refused requests, one result per run. Not held, and said so by `health`: memory, processes, disk
    and every isolation, since the function runs in this process. For tests of what stands above the port, never for
    code that somebody else wrote.

    Args:
        program: the function, plain or async; it gets every run.
    """

    def __init__(self, program: Program, blobs: BlobStore) -> None:
        self._program = program
        self._blobs = blobs
        self._live: dict[str, asyncio.Event] = {}
        self.runs: list[RunSpec] = []
        """Every specification that was started, in order."""

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Call the program and say how it ended; its lines come once it is over."""
        check_spec(spec)
        check_delivery(spec, secrets)
        if run_id in self._live:
            raise InvalidInput(f"run {run_id!r} is under way already", run_id=run_id)
        cancelled = self._live[run_id] = asyncio.Event()
        try:
            before = await read_tree(self._blobs, spec.tree) if spec.tree else {}
            start = await self._start(spec, before, secrets)
            if not _has_folder(start.files, spec.cwd):
                return _without_cwd(spec)
            self.runs.append(spec)
            reason, end = await self._call(start, cancelled, within_s=spec.limits.overall_s)
            output = RunOutput(spec.limits.output_bytes, forms=forms_in(secrets), log=log)
            output.feed("stdout", end.stdout)
            output.feed("stderr", end.stderr)
            output.finish()
            return await self._result(spec, before, start, reason, end, output)
        finally:
            del self._live[run_id]

    async def cancel(self, run_id: str) -> bool:
        """End the run if it is under way."""
        event = self._live.get(run_id)
        if event is not None:
            event.set()
        return event is not None

    async def health(self) -> SandboxHealth:
        """Always `degraded`: nothing is isolated."""
        return SandboxHealth(
            status="degraded",
            backend="memory",
            enforced={"wall_time": "supervisor", "output": "supervisor"},
            unmet=("isolation", "memory", "pids", "disk"),
            mend=("use the bubblewrap backend for code that somebody wrote",),
        )

    async def sweep(self) -> int:
        """Nothing is ever left."""
        return 0

    async def _start(self, spec: RunSpec, before: Tree, secrets: SecretDelivery | None) -> ProgramStart:
        files = {path: await self._blobs.get(e.blob) for path, e in before.items() if e.mode != "160000"}
        inputs = {m.target: await self._blobs.get(m.blob) for m in spec.mounts if isinstance(m, BlobMount)}
        stdin = await self._blobs.get(spec.stdin) if spec.stdin else b""
        if len(stdin) > MAX_STDIN_BYTES:
            raise InvalidInput(f"stdin of the run holds more than {MAX_STDIN_BYTES} bytes", field="stdin")
        if secrets is None:
            return ProgramStart(spec.argv, spec.env, files, inputs, spec.cwd, stdin)
        env = {**secrets.env, **{name: value.reveal() for name, value in secrets.secret_env.items()}}
        inputs |= {path: value.reveal().encode() for path, value in secrets.secret_files.items()}
        return ProgramStart(secrets.argv, env, files, inputs, spec.cwd, stdin)

    async def _call(
        self, start: ProgramStart, cancelled: asyncio.Event, *, within_s: int
    ) -> tuple[RunReason | None, ProgramEnd]:
        work = asyncio.ensure_future(_called(self._program, start))
        stop = asyncio.ensure_future(cancelled.wait())
        try:
            await asyncio.wait({work, stop}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not cancelled.is_set():
                return None, work.result()
            return ("cancelled" if cancelled.is_set() else "timeout"), ProgramEnd(exit_code=137)
        finally:
            for task in (work, stop):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _result(
        self,
        spec: RunSpec,
        before: Tree,
        start: ProgramStart,
        reason: RunReason | None,
        end: ProgramEnd,
        output: RunOutput,
    ) -> RunResult:
        limits = {"wall_time": "supervisor", "output": "supervisor"}
        exit_code = end.exit_code
        if reason is None and output.is_over:
            reason, exit_code = "output_limit", 137
        reason = reason or natural_reason(exit_code, is_full=False)
        end_reason = reason
        if reason == "exit_nonzero" and is_config_error(exit_code, output.stderr.last_line):
            reason = "config"
        if reason == "exit_nonzero" and is_missing_program(exit_code, output):
            reason, limits["program"] = "config", "not_found"
        files = {path: data for path, data in {**start.files, **end.written}.items() if data is not None}
        tree_out = spec.tree if spec.keep_tree else None
        if spec.keep_tree and end_reason in ENDED_BY_COMMAND:
            left = await self._kept(spec, before, end)
            tree_out = await put_kept(self._blobs, left, root=spec.folder and spec.folder.root)
        return RunResult(
            status=STATUS_OF[reason],
            reason=reason,
            exit_code=exit_code,
            stdout=await output.stdout.store(self._blobs),
            stderr=await output.stderr.store(self._blobs),
            log=await output.store_log(self._blobs),
            artifacts=tuple([a for path in spec.artifacts for a in await self._artifacts(path, files)]),
            tree_in=spec.tree,
            tree_out=tree_out,
            limits=limits,
            backend="memory",
        )

    async def _kept(self, spec: RunSpec, before: Tree, end: ProgramEnd) -> Tree:
        tree = dict(before)
        for path, data in end.written.items():
            if path.partition("/")[0] in spec.discard:
                continue
            if data is None:
                tree.pop(path, None)
            else:
                mode = tree[path].mode if path in tree else "100644"
                tree[path] = FileEntry(mode, await self._blobs.put(data))
        return tree

    async def _artifacts(self, path: str, files: Mapping[str, bytes]) -> list[Artifact]:
        names = [name for name in sorted(files) if name == path or name.startswith(f"{path}/")]
        if not names:
            return [Artifact(path=path)]
        return [
            Artifact(path=name, blob=await self._blobs.put(files[name]), size_bytes=len(files[name])) for name in names
        ]


def _has_folder(files: Mapping[str, bytes], cwd: str) -> bool:
    return cwd == "." or any(path.startswith(f"{cwd}/") for path in files)


def _without_cwd(spec: RunSpec) -> RunResult:
    return RunResult(
        status="error",
        reason="config",
        exit_code=None,
        stderr=OutputStream(head=f"{spec.cwd!r} is no folder of the tree; nothing was started\n"),
        tree_in=spec.tree,
        tree_out=spec.tree if spec.keep_tree else None,
        limits={"cwd": "bad_cwd"},
        backend="memory",
    )


async def _called(program: Program, start: ProgramStart) -> ProgramEnd:
    answer = program(start)
    return await answer if inspect.isawaitable(answer) else answer


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: Digest | None
    state: Running | Done


class MemoryRunLedger:
    """Runs by key, kept as long as the object. Implements the port RunLedger.

    Args:
        clock: the store's clock, which deadlines are measured by.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._entries: dict[RunKey, _Entry] = {}
        self._epochs: dict[StoryId, int] = {}

    async def claim(
        self,
        key: RunKey,
        *,
        story: StoryId,
        epoch: int,
        spec: Digest,
        supervisor: str,
        ttl_s: int,
        is_detached: bool = False,
    ) -> Claimed | Running | Done:
        """Who runs the key (RC-54)."""
        seen = self._epochs.get(story, 0)
        if epoch < seen:
            raise run_fenced(key, story=story, epoch=epoch, seen=seen)
        entry = self._entries.get(key)
        if entry is not None and entry.spec not in (None, spec):
            raise key_reused(key, spec=spec, recorded=str(entry.spec))
        self._epochs[story] = epoch
        state = await self.lookup(key)
        if isinstance(state, Running | Done):
            return state
        running = Running(supervisor=supervisor, deadline_ms=self._deadline_ms(ttl_s), is_detached=is_detached)
        self._entries[key] = _Entry(spec, running)
        return Claimed()

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Done):
            return entry.state.result
        self._entries[key] = _Entry(entry.spec if entry else None, Done(result=result))
        return result

    async def lookup(self, key: RunKey) -> Running | Lost | Done | None:
        """What the ledger knows of the key; None also for one that is not detached and whose deadline has passed."""
        entry = self._entries.get(key)
        if entry is None or isinstance(entry.state, Done):
            return entry and entry.state
        if entry.state.deadline_ms > self._clock.now_ms():
            return entry.state
        return Lost(entry.state.supervisor) if entry.state.is_detached else None

    async def renew(self, key: RunKey, *, supervisor: str, ttl_s: int) -> None:
        """This supervisor's RUNNING entry has a new deadline."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Running) and entry.state.supervisor == supervisor:
            self._entries[key] = _Entry(entry.spec, replace(entry.state, deadline_ms=self._deadline_ms(ttl_s)))

    async def request_cancel(self, key: RunKey) -> bool:
        """Whoever runs the key finds the request at its next lookup."""
        state = await self.lookup(key)
        if isinstance(state, Running):
            self._entries[key] = _Entry(self._entries[key].spec, replace(state, is_cancel_requested=True))
        return isinstance(state, Running)

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry; anything else stays."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Running) and entry.state.supervisor == supervisor:
            del self._entries[key]

    async def drop(self, key: RunKey, found: Running) -> None:
        """Drop the RUNNING entry if it still is the one that was found."""
        entry = self._entries.get(key)
        if entry is None or not isinstance(entry.state, Running):
            return
        if (entry.state.supervisor, entry.state.deadline_ms) == (found.supervisor, found.deadline_ms):
            del self._entries[key]

    def _deadline_ms(self, ttl_s: int) -> int:
        return self._clock.now_ms() + ttl_s * 1000


@dataclass(slots=True)
class _Log:
    lines: deque[LogLine]
    is_over: bool = False
    grown: Signal = field(default_factory=Signal)

    @property
    def last(self) -> int:
        return self.lines[-1].n if self.lines else 0


class MemoryRunLogs:
    """Live lines by run key, kept as long as the object. Implements the port RunLogs.

    Args:
        clock: by which readers wait.
        max_lines: how many of one run are kept.
    """

    def __init__(self, clock: Clock | None = None, *, max_lines: int = 20_000) -> None:
        self._clock = clock or SystemClock()
        self._max_lines = max_lines
        self._logs: dict[RunKey, _Log] = {}

    async def append(self, key: RunKey, lines: Sequence[LogLine]) -> None:
        """Readers see these lines; one whose number is not above the last is left out."""
        log = self._log(key)
        for line in lines:
            if line.n > log.last:
                log.lines.append(line)
                log.is_over = False
        log.grown.notify()

    async def end(self, key: RunKey) -> None:
        """Readers see that the run is over."""
        log = self._log(key)
        log.is_over = True
        log.grown.notify()

    async def read(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """At most `limit` lines with a number above `after`; waits for the first one up to `wait_s` seconds."""
        until_ms = self._clock.monotonic_ms() + int(wait_s * 1000)
        while True:
            # Looked up anew after each wait: a reader may wait for a run that has printed nothing yet.
            log = self._log(key)
            lines = [line for line in log.lines if line.n > after]
            if lines or log.is_over or not await log.grown.wait(self._clock, until_ms=until_ms):
                return LogPage(tuple(lines[:limit]), log.is_over and len(lines) <= limit)

    def _log(self, key: RunKey) -> _Log:
        return self._logs.setdefault(key, _Log(deque(maxlen=self._max_lines)))


class _Supervisor(Protocol):
    async def holds(self, key: RunKey) -> bool: ...


class MemoryPeers:
    """Supervisors of one process. Implements the port Peers; who was never added is no supervisor."""

    def __init__(self) -> None:
        self._known: dict[str, _Supervisor | None] = {}
        self._gone = set[str]()

    def add(self, name: str, supervisor: _Supervisor | None) -> None:
        """There is a supervisor of this name; None for one that does not answer now."""
        self._known[name] = supervisor
        self._gone.discard(name)

    def end(self, name: str) -> None:
        """It is gone for good."""
        self._gone.add(name)

    async def has_dropped(self, supervisor: str, key: RunKey) -> bool:
        """See the port."""
        if supervisor in self._gone:
            return True
        supervised = self._known.get(supervisor)
        return supervised is not None and not await supervised.holds(key)


@dataclass(eq=False)
class MemoryTerminal:
    """Input and output of one scripted conversation."""

    log: LogSink | None
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """What the program has at /workspace; it may change them."""
    printed: bytes = b""
    unread: bytearray = field(default_factory=bytearray)
    is_ended: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_line(self) -> bytes:
        """The next line of the input with its newline; what is left at its end, then nothing."""
        while b"\n" not in self.unread and not self.is_ended:
            self._news.clear()
            await self._news.wait()
        line, newline, rest = bytes(self.unread).partition(b"\n")
        self.unread[:] = rest
        return line + newline

    def print(self, text: str) -> None:
        """The program prints one line."""
        self.printed += f"{text}\n".encode()
        if self.log is not None:
            self.log(LogLine(n=self.printed.count(b"\n"), ts_ms=0, stream="stdout", level="info", line=text))

    def feed(self, data: bytes, *, is_last: bool) -> None:
        """The input goes on. Raises SandboxUnavailable when too much is unread."""
        if len(self.unread) + len(data) > MAX_UNREAD_BYTES:
            raise SandboxUnavailable("the program left too much unread; write again when it reads", missing="room")
        if not self.is_ended:
            self.unread += data
        self.is_ended = self.is_ended or is_last
        self._news.set()


Conversation = Callable[[ProgramStart, MemoryTerminal], Awaitable[int]]
"""Returns the exit code."""


class MemoryInteractiveBackend(MemorySandboxBackend):
    """Answers interactive runs with an async function. Any other run ends at once with 0 and prints nothing.

    What the twin of plain runs does not hold is not held here either; its lines come at once, and not redacted.
    """

    def __init__(self, conversation: Conversation, blobs: BlobStore) -> None:
        super().__init__(self._converse, blobs)
        self._conversation = conversation
        self._trees = blobs
        self._terminals: dict[str, MemoryTerminal] = {}

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Converse to the end and say how it ended."""
        if not spec.interactive:
            return await super().run(spec, run_id=run_id, log=log, secrets=secrets)
        self._terminals[run_id] = MemoryTerminal(log)
        try:
            # The parent's program sees the run by its arguments alone; this one is found by the variable.
            marked = spec.model_copy(update={"interactive": False, "env": {**spec.env, "TWIN_RUN": run_id}})
            return await super().run(marked, run_id=run_id, secrets=secrets)
        finally:
            del self._terminals[run_id]

    async def write_stdin(self, run_id: str, data: bytes, *, is_last: bool = False) -> bool:
        """The program reads `data` next."""
        terminal = self._terminals.get(run_id)
        if terminal is not None:
            terminal.feed(data, is_last=is_last)
        return terminal is not None

    async def snapshot(self, run_id: str) -> Digest | None:
        """The files that the program has now, all of mode 100644."""
        terminal = self._terminals.get(run_id)
        if terminal is None:
            return None
        entries = {path: FileEntry("100644", await self._trees.put(data)) for path, data in terminal.files.items()}
        return await self._trees.put(encode_tree(entries))

    async def _converse(self, start: ProgramStart) -> ProgramEnd:
        terminal = self._terminals.get(start.env.get("TWIN_RUN", ""))
        if terminal is None:
            return ProgramEnd()
        terminal.files.update(start.files)
        code = await self._conversation(start, terminal)
        return ProgramEnd(exit_code=code, stdout=terminal.printed, written=dict(terminal.files))
