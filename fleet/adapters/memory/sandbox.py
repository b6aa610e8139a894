"""In-memory twin of the port SandboxBackend: scripted programs over trees, without an operating system."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from fleet.adapters.sandbox.ending import STATUS_OF, is_config_error, is_missing_program, natural_reason
from fleet.adapters.sandbox.output import RunOutput
from fleet.adapters.sandbox.redaction import forms_in
from fleet.adapters.sandbox.request import MAX_STDIN_BYTES, check_delivery, check_spec
from fleet.errors import InvalidInput
from fleet.ports import BlobStore, LogSink, SandboxHealth, SecretDelivery
from fleet.tools import (
    Artifact,
    BlobMount,
    FileEntry,
    OutputStream,
    RunReason,
    RunResult,
    RunSpec,
    Tree,
    decode_tree,
    encode_tree,
)

__all__ = ["MemorySandboxBackend", "Program", "ProgramEnd", "ProgramStart", "by_argv"]


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
            before = decode_tree(await self._blobs.get(spec.tree)) if spec.tree else {}
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
        if reason == "exit_nonzero" and is_config_error(exit_code, output.stderr.last_line):
            reason = "config"
        if reason == "exit_nonzero" and is_missing_program(exit_code, output):
            reason, limits["program"] = "config", "not_found"
        files = {path: data for path, data in {**start.files, **end.written}.items() if data is not None}
        tree_out = spec.tree if spec.keep_tree else None
        if spec.keep_tree and reason == "ok":
            tree_out = await self._blobs.put(encode_tree(await self._kept(spec, before, end)))
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
