"""Backend: one container of podman or docker per run, without any registry. Implements SandboxBackend.

The image is a skeleton of mount points; programs come from the host's /usr and the toolchain, read-only, as they do
with bubblewrap. PID 1 inside is `enter.py`: it waits for the supervisor's word, reaps, and ends with its supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import RepoMount, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.limits import mechanisms, rlimit_argv
from fleet.sandbox.backends.bubblewrap.seccomp import host_filter
from fleet.sandbox.backends.bubblewrap.seccomp_profile import oci_profile
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.containers.engine import Engine
from fleet.sandbox.backends.containers.launch import (
    ContainerFolder,
    EngineFacts,
    EngineName,
    command_env,
    container_args,
    enter_request,
)
from fleet.sandbox.backends.containers.process import ContainerEnded, ContainerLaunch, run_container
from fleet.sandbox.backends.identity import Identity, is_alive, is_root, process_name, toolchain_root
from fleet.sandbox.backends.live_runs import KeptHealth, LiveRuns
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.probes import (
    LIMITS_PROBE_LIMITS,
    PROBE_LIMITS,
    found_limits,
    health_from,
    limits_that_failed,
    prepared_probe,
    processes_named,
)
from fleet.sandbox.backends.redaction import forms_in
from fleet.sandbox.backends.request import check_delivery, check_spec
from fleet.sandbox.backends.toolchain import Toolchain, build_python, user_environment
from fleet.sandbox.backends.waive import require_isolation
from fleet.sandbox.folders.run_folder import (
    RunFolder,
    leased_folder,
    make_passable,
    put_inputs,
    put_stdin,
    read_result,
    without_cwd,
    without_repo,
)
from fleet.sandbox.folders.stage import Stage, build_stage
from fleet.sandbox.folders.workspace import disk_usage, remove_shared_tree
from fleet.sandbox.port import LogSink, SandboxHealth
from fleet.secrets.port import SecretDelivery
from fleet.trees.port import BlobStore


def limits_probe() -> RunSpec:
    """A run that uses more processor time, then more memory than it may have; it has to end as `oom_killed`."""
    argv = ("python", "-I", "/fleet/inside/limit_probe.py", str(2 * LIMITS_PROBE_LIMITS.memory_bytes))
    return RunSpec(argv=argv, limits=LIMITS_PROBE_LIMITS)


def limits_report(facts: EngineFacts, ended: ContainerEnded | None, result: RunResult) -> dict[str, str]:
    """Check -> problem, empty when it holds. Where a cgroup is to limit memory the kernel itself must have done it."""
    report = found_limits(result)
    is_missed = "memory" in facts.controllers and not (ended and ended.is_oom_seen)
    if is_missed and not report["31"]:
        report["31"] = f"{facts.name} took the memory limit, and the kernel did not apply it"
    return report


def mechanisms_of(facts: EngineFacts) -> dict[str, str]:
    """Limit or isolation -> what enforces it."""
    return {**mechanisms(facts.controllers), **({} if "cpu" in facts.controllers else {"cpu": "rlimit"})}


def health_of(facts: EngineFacts, preflight: RunResult, limits: Mapping[str, str], *, survivors: int) -> SandboxHealth:
    """What the probes found; `limits` is that of `limits_report`."""
    if preflight.reason == "sandbox_lost":
        return no_engine(facts.name, preflight.stderr.text or "the container of the probe was lost")
    health = health_from(
        preflight.stdout.text, preflight.exit_code, preflight.stderr.text, survivors, limits, mechanisms_of(facts)
    )
    return replace(health, backend=facts.name)


def no_engine(name: EngineName, complaint: str) -> SandboxHealth:
    """The health of a machine on which the engine starts no container."""
    return SandboxHealth(
        status="down",
        backend=name,
        unmet=(f"sandbox: {complaint}",),
        mend=(f"see the message of {name}; `fleet sandbox check` runs the probes again",),
    )


_STATE_LABEL, _RUN_LABEL = "swefleet.state", "swefleet.run"


@dataclass(frozen=True, slots=True)
class _Ready:
    """What all runs share: the engine's facts, the image, staged files, filter and profile as files."""

    facts: EngineFacts
    image: str
    stage: Stage
    python: Toolchain

    @property
    def filter(self) -> Path:
        return self.stage.root / "filter"

    @property
    def profile(self) -> Path:
        return self.stage.root / "seccomp.json"


@dataclass(frozen=True, slots=True)
class _Order:
    """One call of `run`."""

    spec: RunSpec
    run_id: str
    stop: Stop
    log: LogSink | None
    secrets: SecretDelivery | None
    must_hide: bool

    def command(self) -> tuple[tuple[str, ...], Mapping[str, str], Mapping[str, str]]:
        """Arguments, variables and secret files, with every reference resolved."""
        if self.secrets is None:
            return self.spec.argv, self.spec.env, {}
        env = {**self.secrets.env, **{name: v.reveal() for name, v in self.secrets.secret_env.items()}}
        return self.secrets.argv, env, {path: v.reveal() for path, v in self.secrets.secret_files.items()}


class ContainerBackend:
    """Runs commands in containers of the engine on this machine; the results are those of `BubblewrapBackend`.

    Args:
        engine: which engine.
        state_root: folder for toolchain, staged files and run folders; as for `BubblewrapBackend`.
        max_parallel: runs at one time; more wait. Default: two per core.
        program: the engine's program. Default: the one of its name on PATH.
        waived: isolation that may be missing, by name; every result then says what is (RC-32).
        shared_root: as for `BubblewrapBackend`.
    """

    def __init__(
        self,
        engine: EngineName,
        state_root: Path,
        blobs: BlobStore,
        *,
        max_parallel: int | None = None,
        program: Path | None = None,
        waived: Collection[str] = (),
        shared_root: Path | None = None,
    ) -> None:
        self._waived = frozenset(waived)
        self._engine = Engine(engine, program=program)
        self._root = state_root.absolute()
        self._shared = (shared_root or state_root).absolute()
        self._blobs = blobs
        self._slots = asyncio.Semaphore(max_parallel or 2 * (os.cpu_count() or 1))
        self._me = process_name(os.getpid())
        self._mark = f"fleet-{digest_of(os.fsencode(self._root)).hex[:12]}"
        self._live = LiveRuns()
        self._ready: _Ready | None = None
        self._health = KeptHealth(self._probe)
        self._preparing = asyncio.Lock()  # one builder of stage, toolchain and image

    @property
    def repos(self) -> Path:
        """Where staged repositories lie, each below its 64 hex digits."""
        return self._shared / "repos"

    @property
    def mark(self) -> str:
        """Value of label `swefleet.state` of all containers of this state root."""
        return self._mark

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Run the command and say how it ended.

        Raises:
            SandboxUnavailable: nothing could hold it, a probe found that an isolation does not hold (RC-32), or it
                asks for hosts or services, which this backend cannot give.
            InvalidInput: the specification names what no run may have, or the tree cannot exist.
            ArtifactNotFound: the tree, the input or a mounted blob is not in the store.
        """
        check_spec(spec, toolchains=("python",))
        check_delivery(spec, secrets)
        self._check_reach(spec)
        waived = require_isolation(await self.health(), self._waived)
        must_hide = "kernel_files" not in self._waived
        _, result = await self._run(spec, run_id, log=log, secrets=secrets, must_hide=must_hide)
        return result.model_copy(update={"unmet": waived}) if waived else result

    def _check_reach(self, spec: RunSpec) -> None:
        for name, names in (("hosts", spec.hosts), ("services", spec.services)):
            if names:
                raise SandboxUnavailable(
                    f"the {self._engine.name} backend gives a run no {name}: run it on a node whose sandbox is "
                    "bubblewrap",
                    missing=name,
                )

    async def _run(
        self,
        spec: RunSpec,
        run_id: str,
        *,
        log: LogSink | None = None,
        secrets: SecretDelivery | None = None,
        must_hide: bool = False,
    ) -> tuple[ContainerEnded | None, RunResult]:
        return await self._live.carry_out(
            run_id, lambda stop: self._translated(_Order(spec, run_id, stop, log, secrets, must_hide))
        )

    async def cancel(self, run_id: str) -> bool:
        """The command is told to end, and killed after its grace."""
        return self._live.cancel(run_id)

    async def health(self) -> SandboxHealth:
        """The probes' findings; the first good answer is kept, a bad one is tried again the next time."""
        return await self._health.get()

    async def sweep(self) -> int:
        """Remove the containers of dead supervisors of this state root, and their folders."""
        removed = 0
        for name in await self._engine.names({_STATE_LABEL: self._mark}):
            owner = name.removeprefix(f"{self._mark}-").rpartition("-")[0]
            if not is_alive(owner):
                await self._engine.remove(name)
                removed += 1
        return removed + await asyncio.to_thread(self._remove_folders)

    def _remove_folders(self) -> int:
        folders = (*self._root.glob("containers/runs/*"), *self._root.glob("containers/stage/*"))
        return sum(remove_shared_tree(f) for f in folders if not is_alive("-".join(f.name.split("-")[:3])))

    # One run.

    async def _translated(self, order: _Order) -> tuple[ContainerEnded | None, RunResult]:
        try:
            async with self._slots:
                return await self._turn(order)
        except OSError as error:
            raise SandboxUnavailable(
                f"the sandbox's folder {self._root} cannot be used: {error}: make room or correct its rights",
                missing="state_root",
            ) from error

    async def _turn(self, order: _Order) -> tuple[ContainerEnded | None, RunResult]:
        spec = order.spec
        if order.stop.cause is not None:
            return None, RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree)
        ready = await self._prepared()
        toolchain = await self._toolchain(spec, ready)
        if (refused := without_repo(spec, self.repos)) is not None:
            return None, refused.model_copy(update={"backend": self._engine.name})
        async with leased_folder(self._root / "containers" / "runs" / self._me, spec, self._blobs) as left:
            if not left.has_folder(spec.cwd):
                return None, without_cwd(spec).model_copy(update={"backend": self._engine.name})
            output = RunOutput(spec.limits.output_bytes, forms=forms_in(order.secrets), log=order.log)
            launch = await self._launch(order, ready, toolchain, who=left.who, folder=left.folder, output=output)
            ended = await run_container(self._engine, launch, order.stop)
            result = await read_result(spec, ended, output, left, self._blobs)
        return ended, result.model_copy(
            update={
                "backend": self._engine.name,
                "image": toolchain.digest,
                "limits": {**mechanisms_of(ready.facts), **result.limits},
            }
        )

    async def _launch(
        self, order: _Order, ready: _Ready, toolchain: Toolchain, *, who: Identity, folder: RunFolder, output: RunOutput
    ) -> ContainerLaunch:
        spec = order.spec
        name = f"{self._mark}-{self._me}-{secrets.token_hex(6)}"
        paths = await self._paths(spec, ready, folder)
        args = container_args(
            ready.facts, paths, toolchain,
            limits=spec.limits, who=who, name=name, image=ready.image,
            labels={_STATE_LABEL: self._mark, _RUN_LABEL: order.run_id},
            has_secrets=bool(order.secrets and order.secrets.secret_files), must_hide=order.must_hide,
        )  # fmt: skip
        argv, env, files = order.command()
        request = enter_request(
            (*rlimit_argv(spec.limits, by_cgroup=ready.facts.controllers), *argv),
            command_env(ready.facts, toolchain, env),
            files,
            cwd=f"/workspace/{spec.cwd}",
            has_stdin=paths.stdin is not None,
            limits=spec.limits,
        )
        return ContainerLaunch(
            args=args,
            name=name,
            request=request,
            limits=spec.limits,
            pid_file=paths.pid_file,
            link=paths.link,
            disk_usage=lambda: disk_usage(folder.descriptor),
            output=output,
        )

    async def _paths(self, spec: RunSpec, ready: _Ready, folder: RunFolder) -> ContainerFolder:
        repos = [m for m in spec.mounts if isinstance(m, RepoMount)]
        return ContainerFolder(
            workspace=folder.workspace,
            etc=ready.stage.etc,
            inside=ready.stage.inside,
            filter=ready.filter,
            seccomp_profile=ready.profile,
            pid_file=folder.outer / "pid",
            link=folder.outer / "link",
            inputs=await put_inputs(spec, folder, self._blobs),
            repo=self.repos / repos[0].repo if repos else None,
            stdin=await put_stdin(spec, folder, self._blobs),
        )

    # What all runs share.

    async def _prepared(self) -> _Ready:
        async with self._preparing:
            if self._ready is None:
                facts = await self._engine.facts()
                await self.sweep()
                image = await self._engine.import_skeleton()
                stage, python = await asyncio.to_thread(self._build)
                self._ready = _Ready(facts, image, stage, python)
            return self._ready

    def _build(self) -> tuple[Stage, Toolchain]:
        ours = (self._root / name for name in (".", "containers", "containers/runs", "containers/stage"))
        for folder in (self.repos, *ours, toolchain_root(self._shared)):
            make_passable(folder)
        folder = self._root / "containers" / "stage" / f"{self._me}-{secrets.token_hex(6)}"
        # No bubblewrap is looked for: none will be started.
        stage = build_stage(folder, is_dropped=False, bwrap=self._engine.program())
        (folder / "filter").write_bytes(host_filter())
        profile = oci_profile(platform.machine(), lets_hide=self._engine.name == "docker")
        (folder / "seccomp.json").write_text(json.dumps(profile), encoding="ascii")
        return stage, build_python(toolchain_root(self._shared), is_dropped=is_root())

    async def _toolchain(self, spec: RunSpec, ready: _Ready) -> Toolchain:
        kind, _, path = spec.toolchain.partition(":")
        if kind == "python":
            return ready.python
        return await asyncio.to_thread(user_environment, path, python=ready.python, is_dropped=is_root())

    async def _probe(self) -> SandboxHealth:
        try:
            with prepared_probe() as probe:
                argv = ("python", "-I", "/fleet/inside/preflight.py", probe.argument)
                spec = RunSpec(argv=argv, limits=PROBE_LIMITS)
                _, outcome = await self._run(spec, f"preflight-{probe.token}")
                survivors = len(processes_named(probe.token))
            report = await self._probe_limits()
            if failed := limits_that_failed(report) & (await self._prepared()).facts.controllers:
                # The engine takes these limits and does not apply them: what needs no cgroup does it instead.
                self._drop(failed)
                report = await self._probe_limits()
        except (SandboxUnavailable, OSError) as error:
            return no_engine(self._engine.name, str(error))
        return health_of((await self._prepared()).facts, outcome, report, survivors=survivors)

    async def _probe_limits(self) -> dict[str, str]:
        ended, result = await self._run(limits_probe(), f"limits-{secrets.token_hex(6)}")
        return limits_report((await self._prepared()).facts, ended, result)

    def _drop(self, controllers: frozenset[str]) -> None:
        assert self._ready is not None
        facts = self._ready.facts
        self._ready = replace(self._ready, facts=replace(facts, controllers=facts.controllers - controllers))
