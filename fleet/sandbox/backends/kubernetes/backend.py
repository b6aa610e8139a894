"""Backend: one Job of Kubernetes per run (docs/design/sandbox.md, section 10). Implements SandboxBackend.

The programs come from the image; the tree goes in as Secrets and comes back through the pod's log, so the pod needs no
network, no token and no volume that outlives it. What is lost on the way ends by the Job's own deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets as tokens
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import InvalidInput, SandboxUnavailable
from fleet.kernel.ids import Digest
from fleet.policy.runs.spec import Limits, OutputStream, RunResult, RunSpec
from fleet.sandbox.backends.bubblewrap.launch import FIXED_ENV
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.identity import Identity, is_alive, process_name
from fleet.sandbox.backends.kubernetes.api import ATTEMPT, KubernetesApi, Right, cluster_client
from fleet.sandbox.backends.kubernetes.frames import BadFrame, unpack_returned
from fleet.sandbox.backends.kubernetes.inputs import (
    InputLimits,
    Packed,
    has_folder,
    pack_inputs,
    part_names,
    secret_manifests,
)
from fleet.sandbox.backends.kubernetes.job import PART_LABEL, KubernetesPlace, job_manifest, labels_of
from fleet.sandbox.backends.kubernetes.process import JobEnded, JobLaunch, run_job
from fleet.sandbox.backends.live_runs import KeptHealth, LiveRuns
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.backends.redaction import forms_in
from fleet.sandbox.backends.request import check_delivery, check_spec
from fleet.sandbox.backends.run_end import STATUS_OF
from fleet.sandbox.backends.waive import require_isolation
from fleet.sandbox.folders.run_folder import laid_folder, make_passable, read_result, tree_of, without_repo
from fleet.sandbox.folders.workspace import remove_shared_tree
from fleet.sandbox.port import LogSink, SandboxHealth
from fleet.secrets.port import SecretDelivery
from fleet.trees.port import BlobStore
from fleet.trees.tree import FileEntry, Tree

NAME = "kubernetes"
MECHANISMS: dict[str, str] = {
    "memory": "cgroup",
    "pids": "watchdog",
    "disk": "watchdog+eviction",
    "file_size": "rlimit",
    "open_files": "rlimit",
    "core": "rlimit",
    "cpu": "cgroup",
    "wall_time": "shim+deadline",
    "idle_time": "shim",
    "output": "shim",
    "network": "network_policy",
    "processes_view": "namespace",
    "filesystem": "image",
    "syscalls": "seccomp",
}
"""Limit or isolation -> what enforces it."""


def named(right: Right) -> str:
    """The missing right, for people."""
    resource = "/".join(filter(None, (right.resource, right.subresource)))
    return f"may not {right.verb} {'.'.join(filter(None, (resource, right.group)))}"


def down(complaint: str, mend: str) -> SandboxHealth:
    """No run can be held."""
    return SandboxHealth(status="down", backend=NAME, unmet=(f"sandbox: {complaint}",), mend=(mend,))


def report_of(text: str) -> dict[str, str]:
    """What the probe inside said: item -> problem, empty for one that holds."""
    try:
        document: object = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return {"privileges": "the probe said nothing that can be read"}
    return {str(key): str(value) for key, value in document.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def health_of(report: Mapping[str, str], policies: list[Mapping[str, Any]] | None) -> SandboxHealth:
    """What the probe found; a missing policy counts even where nothing could be reached just now."""
    problems = dict(report)
    if policies is not None and not any(_denies_all(spec) for spec in policies):
        problems["egress_denied"] = "the namespace has no NetworkPolicy that denies runs all traffic"
    unmet = tuple(f"{item}: {problem}" for item, problem in problems.items() if problem)
    mend = ("apply the NetworkPolicy of docs/sandbox.md; see that the network plugin enforces it",) if unmet else ()
    enforced = {
        key: value for key, value in MECHANISMS.items() if key != "network" or not problems.get("egress_denied")
    }
    return SandboxHealth(status="degraded" if unmet else "ok", backend=NAME, enforced=enforced, unmet=unmet, mend=mend)


def _denies_all(spec: Mapping[str, Any]) -> bool:
    is_for_runs = spec.get("podSelector") in (None, {}, {"matchLabels": {PART_LABEL: "run"}})
    return is_for_runs and "Egress" in (spec.get("policyTypes") or ()) and not spec.get("egress")


SHIM = "/fleet/inside/job_shim.py"
OWNER_LABEL, NODE_LABEL = "swefleet.io/owner", "swefleet.io/node"
RUN_ANNOTATION = "swefleet.io/run-id"
_PROBE_LIMITS = Limits(overall_s=60, idle_s=60, memory_bytes=128 << 20, disk_bytes=16 << 20, cpu_millis=200, grace_s=0)


@dataclass(frozen=True, slots=True)
class _Order:
    """One call of `run`."""

    spec: RunSpec
    run_id: str
    stop: Stop
    log: LogSink | None
    secrets: SecretDelivery | None

    def command(self) -> dict[str, Any]:
        """`argv`, `env` and `files` with every reference resolved."""
        fixed = {name: value for name, value in FIXED_ENV.items() if name != "PATH"} | {"SANDBOX": NAME}
        given = self.secrets
        if given is None:
            return {"argv": list(self.spec.argv), "env": {**fixed, **self.spec.env}, "files": {}}
        secret_env = {name: value.reveal() for name, value in given.secret_env.items()}
        files = {path: value.reveal() for path, value in given.secret_files.items()}
        return {"argv": list(given.argv), "env": {**fixed, **given.env, **secret_env}, "files": files}


class KubernetesBackend:
    """Runs commands as Jobs of a cluster; the results are those of `BubblewrapBackend`.

    Args:
        api: the namespace of the Jobs, and the account that makes them.
        place: image and placement of the pods.
        state_root: folder for what runs give back, and for staged repositories below `repos`.
        limits: how much may go in and come out.
        max_parallel: Jobs at one time; more wait.
        waived: isolation that may be missing, by name; every result then says what is (RC-32).
        start_timeout_s: how long a pod may take until it runs: nodes may have to be added, images be pulled.
        poll_s: seconds between two looks at a pod that does not run yet.
    """

    def __init__(
        self,
        api: KubernetesApi,
        place: KubernetesPlace,
        state_root: Path,
        blobs: BlobStore,
        *,
        limits: InputLimits,
        max_parallel: int = 16,
        waived: Collection[str] = (),
        start_timeout_s: float = 180,
        poll_s: float = 0.5,
    ) -> None:
        self._api, self._place, self._blobs, self._limits = api, place, blobs, limits
        self._root = state_root.absolute()
        self._waived = frozenset(waived)
        self._slots = asyncio.Semaphore(max_parallel)
        self._start_timeout_s, self._poll_s = start_timeout_s, poll_s
        self._me = process_name(os.getpid())
        self._node = digest_of(socket.gethostname().encode()).hex[:20]
        self._mark = digest_of(os.fsencode(self._root)).hex[:20]
        self._live = LiveRuns()
        self._health = KeptHealth(self._probe)

    @property
    def repos(self) -> Path:
        """Where staged repositories lie, each below its 64 hex digits."""
        return self._root / "repos"

    @property
    def mark(self) -> str:
        """Value of label `swefleet.io/state` of everything that belongs to this state root."""
        return self._mark

    def job_name(self, run_id: str) -> str:
        """Name of the Job of a run: the same at each attempt, so that what was lost is found again."""
        return f"fleet-run-{digest_of(f'{self._mark} {run_id}'.encode()).hex[:24]}"

    async def run(
        self, spec: RunSpec, *, run_id: str, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        """Run the command and say how it ended.

        Raises:
            SandboxUnavailable: the cluster could not hold it, a probe found that an isolation does not hold (RC-32), or
                it asks for hosts, services or an environment of this machine, which this backend cannot give.
            InvalidInput: the specification names what no run may have, the tree cannot exist, or it is too large.
            ArtifactNotFound: the tree, the input or a mounted blob is not in the store.
        """
        check_spec(spec, toolchains=("python",))
        check_delivery(spec, secrets)
        _check_reach(spec)
        waived = require_isolation(await self.health(), self._waived)
        result = await self._run(spec, run_id, log=log, secrets=secrets)
        return result.model_copy(update={"unmet": waived}) if waived else result

    async def _run(
        self, spec: RunSpec, run_id: str, *, log: LogSink | None = None, secrets: SecretDelivery | None = None
    ) -> RunResult:
        return await self._live.carry_out(
            run_id, lambda stop: self._translated(_Order(spec, run_id, stop, log, secrets))
        )

    async def cancel(self, run_id: str) -> bool:
        """The command is told to end, and killed after its grace."""
        return self._live.cancel(run_id)

    async def health(self) -> SandboxHealth:
        """The probes' findings; the first good answer is kept, a bad one is tried again the next time."""
        return await self._health.get()

    async def sweep(self) -> int:
        """Delete the Jobs of dead supervisors of this machine and state root, and the folders of what they gave back.

        Jobs of supervisors of other machines end by their own deadline and are then removed by the cluster.
        """
        removed = 0
        with contextlib.suppress(SandboxUnavailable):
            for job in await self._api.jobs({"swefleet.io/state": self._mark, NODE_LABEL: self._node}):
                labels: Mapping[str, str] = job.get("labels") or {}
                owner = labels.get(OWNER_LABEL, "")
                is_going = job.get("deletionTimestamp") is not None
                if not is_going and not is_alive(owner):
                    removed += await self._api.delete_job(str(job["name"]), propagation="Background")
        return removed + await asyncio.to_thread(self._remove_folders)

    def _remove_folders(self) -> int:
        folders = self._root.glob("kubernetes/*")
        return sum(remove_shared_tree(f) for f in folders if not is_alive("-".join(f.name.split("-")[:3])))

    # One run.

    async def _translated(self, order: _Order) -> RunResult:
        try:
            async with self._slots:
                return await self._turn(order)
        except OSError as error:
            raise SandboxUnavailable(
                f"the sandbox's folder {self._root} cannot be used: {error}: make room or correct its rights",
                missing="state_root",
            ) from error

    async def _turn(self, order: _Order) -> RunResult:
        spec = order.spec
        if order.stop.cause is not None:
            return self._made(RunResult(status="cancelled", reason="cancelled", exit_code=None, tree_in=spec.tree))
        before = await tree_of(spec, self._blobs)
        if (refused := self._refused(spec, before)) is not None:
            return self._made(refused)
        packed = await pack_inputs(
            spec, before, self._blobs, command=order.command(), repos=self.repos, limits=self._limits
        )
        output = RunOutput(spec.limits.output_bytes, forms=forms_in(order.secrets), log=order.log)
        ended = await run_job(self._api, self._launch(order, packed, output), order.stop)
        output.finish()
        return self._made(await self._result(spec, ended, output, before))

    def _refused(self, spec: RunSpec, before: Tree) -> RunResult | None:
        if not has_folder(before, spec.cwd):
            return RunResult(
                status="error",
                reason="config",
                exit_code=None,
                stderr=OutputStream(head=f"{spec.cwd!r} is no folder of the tree; nothing was started\n"),
                tree_in=spec.tree,
                tree_out=spec.tree if spec.keep_tree else None,
                limits={"cwd": "bad_cwd"},
            )
        return without_repo(spec, self.repos)

    def _made(self, result: RunResult) -> RunResult:
        image = Digest(self._place.image.rpartition("@")[2])
        return result.model_copy(update={"backend": NAME, "image": image, "limits": {**MECHANISMS, **result.limits}})

    def _launch(self, order: _Order, packed: Packed, output: RunOutput) -> JobLaunch:
        name, attempt = self.job_name(order.run_id), tokens.token_hex(8)
        run = name.rpartition("-")[2]
        labels = {**labels_of(self._mark, run), OWNER_LABEL: self._me, NODE_LABEL: self._node}
        contents = f"{name}-{attempt}"
        job = job_manifest(
            self._place,
            name=name,
            labels=labels,
            command=("python3", "-IS", SHIM, packed.sha256),
            inputs=part_names(contents, packed),
            programs=f"{contents}-inside",
            limits=order.spec.limits,
            annotations={ATTEMPT: attempt, RUN_ANNOTATION: order.run_id},
        )
        # The pod carries the attempt as well: a pod of an earlier Job may still be on its way out.
        job["spec"]["template"]["metadata"]["labels"] = pod_labels = {**labels, ATTEMPT: attempt}
        return JobLaunch(
            job=job,
            secrets=secret_manifests(packed, name=contents, namespace=self._place.namespace, labels=labels),
            labels={key: pod_labels[key] for key in (PART_LABEL, ATTEMPT)},
            limits=order.spec.limits,
            output=output,
            max_return_bytes=self._limits.max_return_bytes,
            start_timeout_s=self._start_timeout_s,
            poll_s=self._poll_s,
        )

    async def _result(self, spec: RunSpec, ended: JobEnded, output: RunOutput, before: Tree) -> RunResult:
        """The result; what was given back is written into a folder, and read as every other sandbox's is."""
        me = Identity(os.geteuid(), os.getegid(), is_dropped=False)
        make_passable(self._root / "kubernetes")
        try:
            left = await self._left(spec, ended, before)
            async with laid_folder(self._root / "kubernetes" / self._me, me, left, self._blobs) as folder:
                result = await read_result(
                    spec,
                    ended,
                    output,
                    replace(folder, before=before, stamps={}),
                    self._blobs,
                    came_back=bool(ended.returned),
                )
        except (BadFrame, InvalidInput) as error:
            return await self._result(spec, _lost(ended, str(error)), output, before)
        if ended.is_too_large and result.reason == "ok":
            result = _over(result, spec, self._limits.max_return_bytes)
        notes = {"job": ended.note} if ended.note else {}
        if ended.left_out:
            notes["tree"] = f"{ended.left_out} entries that no tree can hold were left out"
        return result.model_copy(update={"limits": {**result.limits, **notes}})

    async def _left(self, spec: RunSpec, ended: JobEnded, before: Tree) -> Tree:
        max_bytes = max(spec.limits.disk_bytes, self._limits.max_return_bytes)
        returned = await asyncio.to_thread(unpack_returned, ended.returned, before=before, max_bytes=max_bytes)
        left = {path: before[path] for path in returned.kept}
        for path, (mode, content) in returned.files.items():
            left[path] = FileEntry(mode, await self._blobs.put(content))
        return left

    # The probes.

    async def _probe(self) -> SandboxHealth:
        try:
            if forbidden := await self._api.forbidden():
                return down("; ".join(map(named, forbidden)), "give the account these rights in the namespace")
            policies = await self._api.policies()
            result = await self._run(await self._probe_spec(), f"probe-{tokens.token_hex(6)}")
        except SandboxUnavailable as error:
            return down(str(error), "`fleet sandbox check` asks again")
        if result.reason != "ok":
            said = result.limits.get("job") or result.stderr.text or result.reason
            return down(f"the probe ended as {result.reason}: {said[:500]}", "see image and namespace of the settings")
        return health_of(report_of(result.stdout.text), policies)

    async def _probe_spec(self) -> RunSpec:
        parts = urlsplit(self._api.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        loop = asyncio.get_running_loop()
        # Resolved here: a run has no names, and one that cannot find the address proves nothing.
        try:
            addresses = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise SandboxUnavailable(f"{parts.hostname} has no address: {error}", missing="kubernetes") from error
        where = json.dumps({"host": addresses[0][4][0], "port": port})
        return RunSpec(argv=("python3", "-I", "/fleet/inside/pod_probe.py", where), limits=_PROBE_LIMITS)


def kubernetes_backend(
    state_root: Path,
    blobs: BlobStore,
    *,
    url: str,
    token_file: Path | None,
    ca_file: Path | None,
    max_input_bytes: int,
    max_return_bytes: int,
    max_parallel: int,
    start_timeout_s: float,
    waived: Collection[str] = (),
    **place: Any,
) -> KubernetesBackend:
    """The backend for one API server; `place` are the fields of KubernetesPlace. Raises ConfigError."""
    where = KubernetesPlace(**place)
    client = cluster_client(url, token_file=token_file, ca_file=ca_file)
    return KubernetesBackend(
        KubernetesApi(client, where.namespace),
        where,
        state_root,
        blobs,
        limits=InputLimits(max_input_bytes, max_return_bytes),
        max_parallel=max_parallel,
        waived=waived,
        start_timeout_s=start_timeout_s,
    )


def _check_reach(spec: RunSpec) -> None:
    own = spec.toolchain if spec.toolchain.startswith("env:") else ()
    for name, names in (("hosts", spec.hosts), ("services", spec.services), ("environment", own)):
        if names:
            raise SandboxUnavailable(
                f"the kubernetes backend gives a run no {name}: run it on a node whose sandbox is bubblewrap",
                missing=name,
            )


def _over(result: RunResult, spec: RunSpec, max_bytes: int) -> RunResult:
    left = f"the run left more than the {max_bytes} bytes that can be given back"
    return result.model_copy(
        update={
            "reason": "disk_limit",
            "status": STATUS_OF["disk_limit"],
            "tree_out": spec.tree if spec.keep_tree else None,
            "limits": {**result.limits, "tree": left},
        }
    )


def _lost(ended: JobEnded, why: str) -> JobEnded:
    return JobEnded("sandbox_lost", ended.exit_code, ended.usage, note=why)
