"""A stand-in of a Kubernetes cluster for deployed programs: its API server, its controllers, and a node.

Pods of Deployments and Jobs are processes of this machine, made from the pod's own manifest: the init container really
unpacks the Secrets, the program gets its variables, is probed, and is started again when it ends. What a pod has to
itself in a cluster is given by names alone: mount paths become folders, and PORT is a free port of the loopback.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import datetime
import itertools
import json
import os
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from fleet.deploy.kubernetes.api import ClusterApi
from fleet.deploy.kubernetes.target import KubernetesDeployments
from fleet.kernel.clock import SystemClock
from fleet.sandbox.backends.kubernetes.api import cluster_client
from fleet.sandbox.service.runs import RunSecrets
from fleet.trees.port import BlobStore
from tests.support.deployed import free_port
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.kubernetes_objects import TOKEN, Object, ObjectServer, status

IMAGE = f"registry.example/shop/runtime@sha256:{'1' * 64}"
NAMESPACE = "previews"
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_MAX_BYTES = 1_572_864
_COLLECT = "collect "
"""Begins the name of a task that takes a deleted object away."""


@dataclass
class TargetCluster(ObjectServer):
    """Objects by path, and what controllers and the node make of them."""

    root: Path = Path("/nonexistent")
    scripts: list[Object] = field(default_factory=list)
    """Status of the next pods, instead of a run."""
    lost: list[tuple[str, str]] = field(default_factory=list)
    """Method and part of a path: the next such request is done and its answer lost."""
    quota: str = ""
    """Why no pods are made."""
    is_again_at_log: bool = False
    """The kubelet starts the program again just before its log is read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._logs: dict[str, list[list[tuple[str, str]]]] = {}
        self._ports: dict[str, int] = {}
        self._numbers = itertools.count(1)
        self._is_closed = False
        self.objects[f"/api/v1/namespaces/{NAMESPACE}"] = {
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "uid": "ns", "resourceVersion": "1"},
        }

    async def close(self) -> None:
        """No program is left."""
        self._is_closed = True
        for name, task in self._tasks.items():
            # Cancelled twice, a pod would leave its program; who collects pods ends once they have.
            if not name.startswith(_COLLECT) and not task.cancelling():
                task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def names(self, kind: str) -> list[str]:
        """Of all objects of a kind."""
        return sorted(o["metadata"]["name"] for o in self.objects.values() if o["kind"] == kind)

    def running(self) -> list[str]:
        """Revisions that have pods."""
        pods = (o["metadata"] for o in self.objects.values() if o["kind"] == "Pod")
        return sorted({pod["name"].rpartition("-")[0] for pod in pods})

    def reached(self, service: str, path: str = "/") -> tuple[int, str]:
        """What people get who come by the Service."""
        reply = self._proxied(f"/api/v1/namespaces/{NAMESPACE}/services/{service}:http/proxy{path}")
        return reply.status, (reply.raw or b"").decode()

    def answer(self, request: Request) -> Reply:
        """As the real one answers."""
        reply = self._answered(request)
        for method, part in self.lost:
            if request.method == method and part in request.path:
                self.lost.remove((method, part))
                return Reply(is_lost=True)
        return reply

    def _answered(self, request: Request) -> Reply:
        is_proxy, is_log = "/proxy/" in request.path, request.path.endswith("/log")
        is_patch = request.method == "PATCH"
        if not is_proxy and not is_log and not is_patch:
            return super().answer(request)
        if is_patch and (refused := self._refused(request)) is not None:
            return refused
        known = super().answer(request)
        if is_patch or known.status != 404 or known.document is None or "requested resource" in str(known.document):
            return known
        return self._proxied(request.path) if is_proxy else self._log(request)

    def _refused(self, request: Request) -> Reply | None:
        """What the API server checks in objects of these kinds."""
        is_apply = "apply-patch" in request.headers.get("content-type", "")
        if not is_apply:
            missing = status(404, "NotFound", "not found")
            return None if request.path in self.objects else missing
        given, old = json.loads(request.body), self.objects.get(request.path)
        place = given["metadata"]
        problems = [] if _NAME.fullmatch(place["name"]) else [f"metadata.name: {place['name']} is no DNS label"]
        problems += [f"label {k}={v}" for k, v in place.get("labels", {}).items() if not _LABEL.fullmatch(v)]
        if given["kind"] == "Deployment":
            wanted, labels = given["spec"]["selector"]["matchLabels"], given["spec"]["template"]["metadata"]["labels"]
            problems += [] if wanted.items() <= labels.items() else ["selector does not match template labels"]
            if old is not None and old["spec"]["selector"] != given["spec"]["selector"]:
                problems.append("spec.selector: field is immutable")
        if len(request.body) > _MAX_BYTES:
            return status(413, "RequestEntityTooLarge", "too large")
        return status(422, "Invalid", "; ".join(problems)) if problems else None

    # Controllers: what happens without being asked.

    def _put(self, path: str, merged: Object, owner: str, *, given: Object | None = None) -> Object:
        old = self.objects.get(path)
        if merged["kind"] == "Deployment":
            is_new = old is None or old["spec"] != merged["spec"]
            merged["metadata"]["generation"] = (old or merged)["metadata"].get("generation", 0) + is_new
        found = super()._put(path, merged, owner, given=given)
        if found["kind"] == "Deployment":
            asyncio.get_running_loop().call_soon(self._sync, path)
        elif found["kind"] == "Job" and old is None:
            asyncio.get_running_loop().call_soon(self._begin, path, found["spec"]["template"])
        return found

    def _sync(self, path: str) -> None:
        """The Deployment has as many pods as it should, and says how many of them are ready."""
        found = self.objects.get(path)
        if found is None or self._is_closed:
            return
        pods = self._pods_of(path)
        wanted = 0 if found["metadata"].get("deletionTimestamp") else found["spec"]["replicas"]
        for pod in pods[wanted:]:
            if not self._tasks[pod].cancelling():
                self._tasks[pod].cancel()
        if not self.quota:
            for _ in range(wanted - len(pods)):
                self._begin(path, found["spec"]["template"])
        ready = sum(_is_ready(self.objects[pod]) for pod in self._pods_of(path)[:wanted])
        said: Object = {
            "observedGeneration": found["metadata"]["generation"],
            "updatedReplicas": min(wanted, len(self._pods_of(path))),
            "readyReplicas": ready,
        }
        if self.quota and wanted:
            failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": self.quota}
            said["conditions"] = [failure]
        if found.get("status") != said:
            super()._put(path, {**copy.deepcopy(found), "status": said}, "controller/Update")

    def _pods_of(self, path: str) -> list[str]:
        name = path.rpartition("/")[2]
        found = (p for p, o in self.objects.items() if o["kind"] == "Pod" and o["metadata"]["owner"] == name)
        return [p for p in found if not self._tasks[p].cancelling()]

    def _begin(self, path: str, template: Object) -> None:
        owner = path.rpartition("/")[2]
        if path not in self.objects:
            return
        name = f"{owner}-{next(self._numbers)}"
        pod = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"
        place = {"name": name, "namespace": NAMESPACE, "owner": owner, **template["metadata"]}
        manifest = {"kind": "Pod", "metadata": place, "spec": template["spec"], "status": {"phase": "Pending"}}
        self._logs[pod] = []
        self._tasks[pod] = asyncio.get_running_loop().create_task(self._live(pod, path))
        super()._put(pod, copy.deepcopy(manifest), "controller/Update")

    async def _live(self, pod: str, path: str) -> None:
        folder = self.root / f"pod-{next(self._numbers)}"
        try:
            await self._kubelet(pod, folder, is_job="/jobs/" in path)
        finally:
            self._ports.pop(pod, None)
            shutil.rmtree(folder, ignore_errors=True)
            if "/deployments/" in path:
                self.objects.pop(pod, None)
                self._sync(path)

    def _says(self, pod: str, **said: Any) -> None:
        if (found := self.objects.get(pod)) is None:
            return
        super()._put(pod, {**copy.deepcopy(found), "status": said}, "kubelet/Update")
        for path, one in list(self.objects.items()):
            if one["kind"] == "Deployment" and one["metadata"]["name"] == found["metadata"]["owner"]:
                self._sync(path)

    async def _kubelet(self, pod: str, folder: Path, *, is_job: bool) -> None:
        await asyncio.sleep(0)
        spec = self.objects[pod]["spec"]
        if self.scripts:
            self._says(pod, **self.scripts.pop(0))
            await asyncio.Event().wait()
        mounts = await self._mounted(spec, folder)
        first = spec["initContainers"][0]
        process = await self._started(first, mounts[0], {}, folder)
        try:
            said = (await process.communicate())[0].decode()
        finally:
            await _ended(process)
        if process.returncode != 0:
            ended = {"terminated": {"exitCode": process.returncode, "reason": "Error", "message": said}}
            self._says(pod, phase="Pending", initContainerStatuses=[{"state": ended}])
            await asyncio.Event().wait()
        container, before, pause_s = spec["containers"][0], None, 0.1
        while True:
            code = await self._run(pod, container, mounts[1], folder, before)
            ended = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}}
            if is_job:
                self._says(pod, phase="Succeeded" if code == 0 else "Failed", containerStatuses=[{"state": ended}])
                await asyncio.Event().wait()
            self._says(pod, phase="Running", containerStatuses=[{"state": ended}])
            await asyncio.sleep(pause_s)
            before, pause_s = ended, 2 * pause_s

    async def _run(
        self, pod: str, container: Object, mounts: dict[str, str], folder: Path, before: Object | None
    ) -> int:
        lines: list[tuple[str, str]] = []
        self._logs[pod].append(lines)
        port = self._ports[pod] = free_port()
        env = {entry["name"]: self._value(entry) for entry in container["env"]}
        env |= {"PORT": str(port)} if "PORT" in env else {}
        if "TARGET_URL" in env:
            service = env["TARGET_URL"].removeprefix("http://").partition(":")[0]
            env["TARGET_URL"] = f"http://127.0.0.1:{self._port_behind(service)}"
        try:
            process = await self._started(container, mounts, env, folder)
        except OSError as error:
            lines.append((_now(), str(error)))
            return 127
        state = {"state": {"running": {}}, "lastState": before or {}}
        self._says(pod, phase="Running", containerStatuses=[state])
        probing = asyncio.create_task(self._probed(pod, container, port, state))
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                lines.append((_now(), line.decode(errors="replace").rstrip("\n")))
            return await process.wait()
        finally:
            probing.cancel()
            await _ended(process)
            await asyncio.gather(probing, return_exceptions=True)

    async def _probed(self, pod: str, container: Object, port: int, state: Object) -> None:
        if "readinessProbe" not in container:
            return
        path, was_ready = container["readinessProbe"]["httpGet"]["path"], False
        async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
            while True:
                is_ready = False
                with contextlib.suppress(httpx2.HTTPError):
                    is_ready = (await client.get(f"http://127.0.0.1:{port}{path}")).status_code < 400
                if is_ready != was_ready:
                    conditions = [{"type": "Ready", "status": str(is_ready)}]
                    self._says(pod, phase="Running", containerStatuses=[state], conditions=conditions)
                was_ready = is_ready
                await asyncio.sleep(0.03)

    def _value(self, entry: Object) -> str:
        if "value" in entry:
            return entry["value"].replace("$$", "$")
        named = entry["valueFrom"]["secretKeyRef"]
        data = self.objects[f"/api/v1/namespaces/{NAMESPACE}/secrets/{named['name']}"]["data"]
        return base64.b64decode(data[named["key"]]).decode()

    async def _mounted(self, spec: Object, folder: Path) -> list[dict[str, str]]:
        """Of each container, mount path -> folder."""
        places: dict[str, str] = {}
        for volume in spec["volumes"]:
            place = folder / volume["name"]
            place.mkdir(parents=True)
            places[volume["name"]] = str(place)
            projected = [s["secret"]["name"] for s in volume.get("projected", {}).get("sources", [])]
            for name in [volume["secret"]["secretName"]] if "secret" in volume else projected:
                path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"
                while path not in self.objects:
                    await asyncio.sleep(0.01)
                for key, value in self.objects[path]["data"].items():
                    (place / key).write_bytes(base64.b64decode(value))
        containers = [spec["initContainers"][0], spec["containers"][0]]
        return [{m["mountPath"]: places[m["name"]] for m in one["volumeMounts"]} for one in containers]

    async def _started(
        self, container: Object, mounts: dict[str, str], env: dict[str, str], folder: Path
    ) -> asyncio.subprocess.Process:
        command = [argument.replace("$$", "$") for argument in container["command"]]
        for place, there in mounts.items():
            command = [re.sub(rf"^{place}(?=/|$)", there, argument) for argument in command]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return await asyncio.create_subprocess_exec(
            *command, cwd=mounts["/workspace"], env={"PATH": path, **env}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip

    # What people and the fleet ask of pods.

    def _port_behind(self, service: str) -> int | None:
        found = self.objects.get(f"/api/v1/namespaces/{NAMESPACE}/services/{service}")
        if found is None:
            return None
        for pod, one in self.objects.items():
            labels = one["metadata"].get("labels", {})
            if one["kind"] == "Pod" and _is_ready(one) and found["spec"]["selector"].items() <= labels.items():
                return self._ports.get(pod)
        return None

    def _proxied(self, path: str) -> Reply:
        service, _, rest = path.partition("/services/")[2].partition("/proxy/")
        port = self._port_behind(service.partition(":")[0])
        if port is None:
            return status(503, "ServiceUnavailable", "no endpoints available for service")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{rest}", timeout=3) as answer:  # noqa: S310
                return Reply(answer.status, raw=answer.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, raw=error.read())
        except OSError as error:
            return status(502, "BadGateway", str(error))

    def _log(self, request: Request) -> Reply:
        pod, query = request.path.removesuffix("/log"), request.query
        runs = self._logs.get(pod)
        if pod not in self.objects or runs is None:
            return status(404, "NotFound", "not found")
        if self.is_again_at_log and len(runs) == 1:
            runs.append([])
        number = -2 if query.get("previous") == "true" else -1
        if len(runs) < abs(number):
            return status(400, "BadRequest", "the container has no log yet")
        lines = runs[number][-int(query["tailLines"]) :]
        shown = [f"{at} {text}\n" if query.get("timestamps") == "true" else f"{text}\n" for at, text in lines]
        return Reply(raw="".join(shown).encode()[: int(query["limitBytes"])])

    # Ends.

    def _delete(self, request: Request) -> Reply:
        found = self.objects.get(request.path)
        if found is None or found["kind"] not in ("Deployment", "Job"):
            return super()._delete(request)
        found["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
        name = f"{_COLLECT}{request.path}"
        if name not in self._tasks or self._tasks[name].done():
            self._tasks[name] = asyncio.get_running_loop().create_task(self._collect(request.path))
        return Reply(document=found)

    async def _collect(self, path: str) -> None:
        """The object goes after its pods and all that it owns."""
        found = self.objects[path]
        mine = [p for p, o in self.objects.items() if o["metadata"].get("owner") == found["metadata"]["name"]]
        for pod in mine:
            if not self._tasks[pod].cancelling():
                self._tasks[pod].cancel()
        await asyncio.gather(*(self._tasks[pod] for pod in mine), return_exceptions=True)
        for other, one in list(self.objects.items()):
            owners = one["metadata"].get("ownerReferences", [])
            if any(owner["uid"] == found["metadata"]["uid"] for owner in owners):
                del self.objects[other]
        for one in (*mine, path):
            self.objects.pop(one, None)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """It has ended, and its pipe is closed."""
    if process.returncode is None:
        process.kill()
    await process.communicate()


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextlib.asynccontextmanager
async def serving_targets(cluster: TargetCluster) -> AsyncGenerator[str]:
    """Address of the cluster's API server, with its controllers and its node at work inside the block."""
    try:
        async with serving_http(cluster.answer) as url:
            yield url
    finally:
        await cluster.close()


def deployments_in(
    url: str, folder: Path, blobs: BlobStore, *, secrets: RunSecrets | None = None, declared: tuple[str, ...] = ()
) -> KubernetesDeployments:
    """The environments of that cluster, quick to look; `folder` holds the token."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.write_text(f"{TOKEN}\n", encoding="ascii")
    client = cluster_client(url, token_file=token, ca_file=None, timeout_s=30, pause_s=0.01, place="kubernetes")
    api = ClusterApi(client, NAMESPACE, poll_s=0.02)
    return KubernetesDeployments(lambda _: api, blobs, SystemClock(), declared=declared, secrets=secrets)
