"""A stand-in of a Kubernetes cluster: an API server for Jobs, Secrets and pods, and a node that runs the containers.

The node builds each container with bubblewrap from the pod's own manifest: volumes at their mount paths, a read-only
image of this machine's programs, no network, a filter of system calls, and the command as PID 1.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.sandbox.backends.bubblewrap.seccomp import host_filter
from fleet.sandbox.backends.kubernetes.api import KubernetesApi, cluster_client
from fleet.sandbox.backends.kubernetes.backend import KubernetesBackend
from fleet.sandbox.backends.kubernetes.inputs import InputLimits
from fleet.sandbox.backends.kubernetes.job import PART_LABEL, KubernetesPlace
from fleet.sandbox.backends.toolchain import build_python
from fleet.sandbox.folders.stage import build_stage, find_bubblewrap
from fleet.trees.port import BlobStore
from tests.support.http_stand_in import Reply, Request, serving_http

IMAGE = f"registry.example/fleet/toolbox@sha256:{'1' * 64}"
TOKEN = "planted-token"


def deny_all_policy(namespace: str) -> dict[str, Any]:
    """The policy that an operator gives the namespace of the runs: no traffic into or out of any pod of a run."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "swe-fleet-runs", "namespace": namespace},
        "spec": {
            "podSelector": {"matchLabels": {PART_LABEL: "run"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": [],
        },
    }


@dataclass
class Script:
    """What becomes of a pod that is not run: its status, and its log."""

    status: dict[str, Any]
    log: bytes = b""


@dataclass
class FakeNode:
    """Runs containers; `image` is the part of this machine that they see."""

    root: Path

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._bwrap = find_bubblewrap()[0]
        self._stage = build_stage(self.root / "stage", is_dropped=False)
        self._toolchain = build_python(self.root / "toolchain", is_dropped=False)
        self._numbers = itertools.count()

    async def start(self, pod: dict[str, Any], secrets: dict[str, Any]) -> tuple[asyncio.subprocess.Process, Path]:
        """The pod's container runs; the folder of its volumes."""
        folder = self.root / f"pod-{next(self._numbers)}"
        folder.mkdir()
        descriptor = os.memfd_create("filter")
        try:
            os.write(descriptor, host_filter())
            os.lseek(descriptor, 0, os.SEEK_SET)
            args = self._args(pod["spec"], secrets, folder, descriptor)
            process = await asyncio.create_subprocess_exec(
                *(str(self._bwrap), *args), *pod["spec"]["containers"][0]["command"],
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                pass_fds=(descriptor,),
            )  # fmt: skip
        finally:
            os.close(descriptor)
        return process, folder

    def _args(self, spec: dict[str, Any], secrets: dict[str, Any], folder: Path, descriptor: int) -> list[str]:
        container = spec["containers"][0]
        args = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"]
        args += ["--uid", str(spec["securityContext"]["runAsUser"]), "--gid", "1000", "--cap-drop", "ALL"]
        args += ["--die-with-parent", "--new-session", "--as-pid-1", "--ro-bind", "/usr", "/usr"]
        for name in ("bin", "sbin", "lib", "lib32", "lib64"):
            path = Path("/", name)
            if path.is_symlink():
                args += ["--symlink", str(path.readlink()), str(path)]
        args += ["--ro-bind", str(self._stage.etc), "/etc", "--proc", "/proc", "--dev", "/dev"]
        args += [a for source, target in self._toolchain.binds for a in ("--ro-bind", str(source), target)]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            args += _mounted(mount, volumes[mount["name"]], secrets, folder)
        args += ["--remount-ro", "/", "--seccomp", str(descriptor), "--clearenv"]
        return [*args, "--setenv", "PATH", self._toolchain.path, "--chdir", container["workingDir"], "--"]


def _mounted(mount: dict[str, Any], volume: dict[str, Any], secrets: dict[str, Any], folder: Path) -> list[str]:
    source, target = folder / volume["name"], mount["mountPath"]
    if volume.get("emptyDir", {}).get("medium") == "Memory":
        return ["--size", volume["emptyDir"]["sizeLimit"], "--perms", "1777", "--tmpfs", target]
    source.mkdir()
    if "emptyDir" in volume:
        return ["--bind", str(source), target]
    named = [volume["secret"]["secretName"]] if "secret" in volume else _sources(volume)
    for name in named:
        for key, value in secrets[name]["data"].items():
            (source / key).write_bytes(base64.b64decode(value, validate=True))
    return ["--ro-bind", str(source), target]


def _sources(volume: dict[str, Any]) -> list[str]:
    return [source["secret"]["name"] for source in volume["projected"]["sources"]]


@dataclass
class FakeCluster:
    """Objects by name; `answer` serves them as the API server does, and the node runs the pods."""

    node: FakeNode | None
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    secrets: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: list[dict[str, Any]] = field(default_factory=lambda: [deny_all_policy("runs")])
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    """Verb and resource that our account may not."""
    lost: list[tuple[str, str]] = field(default_factory=list)
    """Method and end of a path: the next such request is done and its answer lost."""
    faults: list[tuple[str, str, Reply]] = field(default_factory=list)
    """Method, part of a path, and what is answered once instead."""
    scripts: list[Script] = field(default_factory=list)
    """What becomes of the next pods, instead of a run."""
    cut_logs: int = 0
    """How many logs end in the middle."""
    requests: list[Request] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    """Every object that was ever created."""

    def __post_init__(self) -> None:
        self._logs: dict[str, bytearray] = {}
        self._grown = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._numbers = itertools.count(1)

    async def close(self) -> None:
        """No container is left."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def answer(self, request: Request) -> Reply:
        """As the real one answers."""
        self.requests.append(request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized")
        for fault in self.faults:
            if request.method == fault[0] and fault[1] in request.path:
                self.faults.remove(fault)
                return fault[2]
        reply = self._answer(request)
        for method, end in self.lost:
            if request.method == method and request.path.endswith(end):
                self.lost.remove((method, end))
                return Reply(is_lost=True)
        return reply

    def _answer(self, request: Request) -> Reply:
        if request.path.endswith("/selfsubjectaccessreviews"):
            wanted = json.loads(request.body)["spec"]["resourceAttributes"]
            allowed = (wanted["verb"], wanted["resource"]) not in self.forbidden
            return Reply(201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": allowed}})
        head, _, rest = request.path.partition("/namespaces/runs/")
        if rest == "networkpolicies":
            return Reply(document={"items": self.policies})
        kind, _, name = rest.partition("/")
        objects = {"jobs": self.jobs, "secrets": self.secrets, "pods": self.pods}.get(kind)
        if head not in ("/api/v1", "/apis/batch/v1") or objects is None:
            return _status(404, "NotFound")
        if name.endswith("/log"):
            return self._log(name.removesuffix("/log"))
        if request.method == "POST":
            return self._create(kind, objects, json.loads(request.body))
        if not name:
            return Reply(document={"items": [o for o in objects.values() if _matches(o, request.query)]})
        if name not in objects:
            return _status(404, "NotFound")
        if request.method == "DELETE":
            self._delete(kind, name, json.loads(request.body or b"{}"))
        return Reply(document=objects.get(name, {}))

    def _create(self, kind: str, objects: dict[str, dict[str, Any]], manifest: dict[str, Any]) -> Reply:
        name = manifest["metadata"]["name"]
        if name in objects:
            return _status(409, "AlreadyExists")
        if len(json.dumps(manifest)) > 1_048_576:
            return _status(413, "RequestEntityTooLarge")
        manifest["metadata"]["uid"] = f"uid-{next(self._numbers)}"
        objects[name] = manifest
        self.made.append(manifest)
        if kind == "jobs":
            self._tasks[name] = asyncio.create_task(self._controller(manifest))
        return Reply(201, manifest)

    # Controllers: what happens without being asked.

    async def _controller(self, job: dict[str, Any]) -> None:
        """The Job gets its pod, and the pod runs to its end."""
        template = job["spec"]["template"]
        name = f"{job['metadata']['name']}-{next(self._numbers)}"
        pod = {
            "metadata": {"name": name, **template["metadata"]},
            "spec": template["spec"],
            "status": {"phase": "Pending"},
        }
        self.pods[name], self._logs[name] = pod, bytearray()
        try:
            await self._kubelet(name, pod)
        finally:
            self._grown.set()
            if job["metadata"].get("deletionTimestamp"):
                self._forget(job["metadata"]["name"], name)

    async def _kubelet(self, name: str, pod: dict[str, Any]) -> None:
        volumes = pod["spec"]["volumes"]
        wanted = [s for v in volumes if "projected" in v for s in _sources(v)]
        wanted += [v["secret"]["secretName"] for v in volumes if "secret" in v]
        while not all(secret in self.secrets for secret in wanted):
            if pod["metadata"].get("deletionTimestamp"):
                return
            await asyncio.sleep(0.005)
        if self.scripts:
            script = self.scripts.pop(0)
            self._logs[name] += script.log
            pod["status"] = script.status
            return
        assert self.node is not None
        process, folder = await self.node.start(pod, self.secrets)
        self._processes[name] = process
        try:
            pod["status"] = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}
            if (grace := pod["metadata"].get("deletionGracePeriodSeconds")) is not None:
                self._terminate(name, grace)
            assert process.stdout is not None
            while data := await process.stdout.read(1 << 16):
                self._logs[name] += data
                self._grown.set()
            code = await process.wait()
            ended = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
            phase = "Succeeded" if code == 0 else "Failed"
            pod["status"] = {"phase": phase, "containerStatuses": [{"state": {"terminated": ended}}]}
        finally:
            del self._processes[name]
            if process.returncode is None:
                process.kill()
                await process.wait()
            shutil.rmtree(folder, ignore_errors=True)

    def _delete(self, kind: str, name: str, options: dict[str, Any]) -> None:
        if kind == "pods":
            self._end_pod(name, options.get("gracePeriodSeconds"))
        elif kind == "jobs":
            job = self.jobs[name]
            job["metadata"].setdefault("deletionTimestamp", "2030-01-01T00:00:00Z")
            uid = job["metadata"]["uid"]
            for secret, found in list(self.secrets.items()):
                if any(owner["uid"] == uid for owner in found["metadata"]["ownerReferences"]):
                    del self.secrets[secret]
            mine = [pod for pod in self.pods if pod.rpartition("-")[0] == name]
            for pod in mine:
                self._end_pod(pod, None)
            if not mine or options.get("propagationPolicy") == "Background":
                self.jobs.pop(name, None)

    def _end_pod(self, name: str, grace_s: int | None) -> None:
        pod = self.pods[name]
        if grace_s is None:
            grace_s = int(pod["spec"]["terminationGracePeriodSeconds"])
        known = pod["metadata"].get("deletionGracePeriodSeconds")
        is_shorter = known is None or grace_s < known
        pod["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
        if name in self._processes and is_shorter:
            pod["metadata"]["deletionGracePeriodSeconds"] = grace_s
            self._terminate(name, grace_s)
        elif is_shorter:
            pod["metadata"]["deletionGracePeriodSeconds"] = grace_s
        task = self._tasks.get(name.rpartition("-")[0])
        if task is None or task.done():
            self._forget(name.rpartition("-")[0], name)

    def _terminate(self, name: str, grace_s: int) -> None:
        process = self._processes[name]
        with contextlib.suppress(OSError, ProcessLookupError):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
            os.kill(int(children.split()[0]), signal.SIGTERM)

        def kill() -> None:
            if process.returncode is None:
                process.kill()

        asyncio.get_running_loop().call_later(grace_s, kill)

    def _forget(self, job: str, pod: str) -> None:
        self.pods.pop(pod, None)
        if self.jobs.get(job, {}).get("metadata", {}).get("deletionTimestamp"):
            self.jobs.pop(job, None)

    def _log(self, pod: str) -> Reply:
        if pod not in self.pods:
            return _status(404, "NotFound")
        if self.pods[pod]["status"]["phase"] == "Pending":
            return _status(400, "BadRequest")
        is_cut = self.cut_logs > 0
        self.cut_logs -= is_cut
        return Reply(stream=self._following(pod, is_cut=is_cut))

    async def _following(self, pod: str, *, is_cut: bool) -> AsyncIterator[bytes]:
        log, sent = self._logs[pod], 0
        while True:
            self._grown.clear()
            is_over = self._tasks[pod.rpartition("-")[0]].done() or pod not in self.pods
            is_over = is_over or self.pods[pod]["status"]["phase"] in ("Failed", "Succeeded")
            part, sent = bytes(log[sent:]), len(log)
            if is_cut and part:
                yield part[:-3]
                return
            yield part
            if is_over:
                return
            # wait_for of Python 3.11 loses a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._grown.wait()


def _matches(found: dict[str, Any], query: Any) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    return wanted.items() <= labels.items()


def _status(code: int, reason: str) -> Reply:
    return Reply(code, {"kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code})


@contextlib.asynccontextmanager
async def serving_cluster(cluster: FakeCluster) -> AsyncGenerator[str]:
    """Address of the cluster's API server, with its node at work inside the block."""
    try:
        async with serving_http(cluster.answer) as url:
            yield url
    finally:
        await cluster.close()


def kubernetes_on(url: str, folder: Path, blobs: BlobStore, **fields: Any) -> KubernetesBackend:
    """A backend that runs in that cluster, quick to look; `folder` holds its token and state."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.write_text(f"{fields.pop('token', TOKEN)}\n", encoding="ascii")
    client = cluster_client(url, token_file=token, ca_file=None, timeout_s=60, quiet_s=20, pause_s=0.01)
    given: dict[str, Any] = {"limits": InputLimits(8 << 20, 8 << 20), "poll_s": 0.02, "start_timeout_s": 10, **fields}
    return KubernetesBackend(
        KubernetesApi(client, "runs"), KubernetesPlace("runs", IMAGE), folder / "state", blobs, **given
    )
