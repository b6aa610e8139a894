"""A stand-in of an API server for any object: discovery, server-side apply with owners of fields, watches, faults.

Ray's kinds are admitted by their schemas. What an operator or a person does is done by `change` and `remove`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.crds import admit, known_schemas
from tests.support.http_stand_in import Reply, Request, serving_http
from tests.support.kubernetes_protobuf import MAGIC, secret_of

TOKEN = "planted-token"
Object = dict[str, Any]
_GROUPS: dict[str, dict[str, str]] = {
    "/api/v1": {
        "namespaces": "Namespace", "serviceaccounts": "ServiceAccount", "configmaps": "ConfigMap",
        "services": "Service", "persistentvolumeclaims": "PersistentVolumeClaim", "secrets": "Secret", "pods": "Pod",
    },
    "/apis/rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "/apis/networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy", "ingresses": "Ingress"},
    "/apis/apps/v1": {"statefulsets": "StatefulSet", "deployments": "Deployment"},
    "/apis/batch/v1": {"jobs": "Job"},
    "/apis/policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "/apis/ray.io/v1": {"rayclusters": "RayCluster", "rayservices": "RayService", "rayjobs": "RayJob"},
}  # fmt: skip


@dataclass
class ObjectServer:
    """Objects by path; `answer` serves them as the API server does."""

    has_kuberay: bool = True
    needs_token: bool = True
    """kubectl sends none over plain HTTP."""
    faults: list[tuple[str, str, Reply]] = field(default_factory=list)
    """Method, part of a path, and what is answered once instead; `WATCH` is the method of a watch."""
    before: list[tuple[str, str, Any]] = field(default_factory=list)
    """Method, part of a path, and what is called once before it is answered: somebody else was quicker."""
    lingering: set[str] = field(default_factory=set)
    """Kinds that stay until `remove` when they are deleted, because something holds them."""
    requests: list[Request] = field(default_factory=list)
    objects: dict[str, Object] = field(default_factory=dict)
    faults_met: int = 0

    def __post_init__(self) -> None:
        self._version = 100
        self._owners: dict[str, dict[str, str]] = {}
        self._history: list[tuple[int, str, str, Object]] = []
        self._grown = asyncio.Event()

    def object_at(self, kind: str, namespace: str, name: str) -> Object:
        """The object itself."""
        return self.objects[self._path(kind, namespace, name)]

    def kinds(self) -> list[str]:
        """Kind and name of everything that is there."""
        return sorted(f"{o['kind']}/{o['metadata']['name']}" for o in self.objects.values())

    def change(self, kind: str, namespace: str, name: str, *, manager: str = "operator", **parts: Any) -> None:
        """Somebody else sets these parts of an object (`status=...`, `spec=...`)."""
        path = self._path(kind, namespace, name)
        self._put(path, {**copy.deepcopy(self.objects[path]), **parts}, f"{manager}/Update")

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """The object is gone."""
        path = self._path(kind, namespace, name)
        self._version += 1
        self._tell(path, "DELETED", self.objects.pop(path))

    def answer(self, request: Request) -> Reply:
        """As the real one answers."""
        self.requests.append(request)
        method = "WATCH" if request.query.get("watch") == "true" else request.method
        if call := next((c for c in self.before if method == c[0] and c[1] in request.path), None):
            self.before.remove(call)
            call[2]()
        for fault in self.faults:
            if method == fault[0] and fault[1] in request.path:
                self.faults.remove(fault)
                self.faults_met += 1
                return fault[2]
        if self.needs_token and request.headers.get("authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized", "Unauthorized")
        return self._discovery(request.path) or self._resource(request, method)

    # Discovery: what kubectl asks before anything else.

    def _discovery(self, path: str) -> Reply | None:
        groups = {p: r for p, r in _GROUPS.items() if self.has_kuberay or "ray.io" not in p}
        if path == "/api":
            return Reply(document={"kind": "APIVersions", "versions": ["v1"]})
        if path == "/openapi/v3":
            return Reply(document={"paths": {p.lstrip("/"): {"serverRelativeURL": f"/openapi/v3{p}"} for p in groups}})
        if (group := path.removeprefix("/openapi/v3")) in groups and group != path:
            return Reply(document=_described(group, groups[group]))
        if path == "/version":
            return Reply(document={"major": "1", "minor": "32", "gitVersion": "v1.32.4"})
        if path == "/apis":
            names = [p.split("/")[2] for p in groups if p.startswith("/apis/")]
            versions = [{"groupVersion": f"{name}/v1", "version": "v1"} for name in names]
            listed = [{"name": n, "versions": [v], "preferredVersion": v} for n, v in zip(names, versions, strict=True)]
            return Reply(document={"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        if path in groups:
            version = path.removeprefix("/apis/").removeprefix("/api/")
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            listed = [
                {"name": n, "singularName": k.lower(), "namespaced": k != "Namespace", "kind": k, "verbs": verbs}
                for n, k in groups[path].items()
            ]
            found = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": listed}
            return Reply(document=found)
        return None

    def _resource(self, request: Request, method: str) -> Reply:
        prefix = next((p for p in _GROUPS if request.path.startswith(p + "/")), None)
        parts = request.path.removeprefix(prefix or "").strip("/").split("/")
        namespace = parts[1] if len(parts) > 2 and parts[0] == "namespaces" else ""
        plural, *rest = parts[2:] if namespace else parts
        kind = _GROUPS.get(prefix or "", {}).get(plural)
        if kind is None or (kind.startswith("Ray") and not self.has_kuberay):
            return status(404, "NotFound", "the server could not find the requested resource")
        if method == "WATCH":
            return Reply(stream=self._watch(request))
        if not rest:
            return self._list(request, kind)
        if method == "GET":
            found = self.objects.get(request.path)
            return Reply(document=found) if found else _missing(request.path)
        if method == "DELETE":
            return self._delete(request)
        return self._write(request, kind, namespace)

    def _list(self, request: Request, kind: str) -> Reply:
        if request.method == "POST":
            return self._create(request)
        if request.method != "GET":
            return status(405, "MethodNotAllowed", "the stand-in makes, applies and replaces alone")
        items = [o for path, o in self.objects.items() if path.rpartition("/")[0] == request.path and _has(o, request)]
        # As in a real list, the items do not say their kind.
        bare = [{k: v for k, v in o.items() if k not in ("kind", "apiVersion")} for o in items]
        return Reply(
            document={"kind": f"{kind}List", "metadata": {"resourceVersion": str(self._version)}, "items": bare}
        )

    def _create(self, request: Request) -> Reply:
        given: Object = _read(request.body)
        path = f"{request.path}/{given['metadata']['name']}"
        if path in self.objects:
            return status(409, "AlreadyExists", f"{path} already exists")
        if request.query.get("dryRun") == "All":
            return Reply(201, given)
        return Reply(201, self._put(path, given, f"{request.query.get('fieldManager', 'unknown')}/Update"))

    def _write(self, request: Request, kind: str, namespace: str) -> Reply:
        given: Object = _read(request.body)
        old = self.objects.get(request.path)
        if kind != "Namespace" and not any(p.endswith(f"/namespaces/{namespace}") for p in self.objects):
            return status(404, "NotFound", f'namespaces "{namespace}" not found')
        admitted = {key: value for key, value in given.items() if key != "status"}
        schema = known_schemas().get(kind)
        if schema is not None and (problems := admit(admitted, schema, old=old)):
            causes = [{"field": p.split(": ")[0], "message": p.split(": ", 1)[1]} for p in problems]
            return status(422, "Invalid", f"{kind} is invalid", causes)
        manager = request.query.get("fieldManager", "unknown")
        if request.method == "PUT":
            if old is None:
                return _missing(request.path)
            if given["metadata"].get("resourceVersion") not in (None, old["metadata"]["resourceVersion"]):
                return status(409, "Conflict", "the object has been modified; please apply your changes")
            # The status is a resource of its own: whoever replaces the object does not replace it.
            owner, merged = f"{manager}/Update", {**given, **({"status": old["status"]} if "status" in old else {})}
        elif "apply-patch" not in request.headers.get("content-type", ""):
            owner, merged = f"{manager}/Update", _merged(old or {}, given)
        else:
            version = given["metadata"].get("resourceVersion")
            if version is not None and (old is None or version != old["metadata"]["resourceVersion"]):
                return status(409, "Conflict", "the object has been modified; please apply your changes")
            owner, merged = f"{manager}/Apply", _merged(old or {}, given)
            if conflicts := self._conflicts(request, old, given, owner):
                return status(409, "Conflict", f"Apply failed with {len(conflicts)} conflicts", conflicts)
        if request.query.get("dryRun") == "All":
            return Reply(200 if old else 201, merged)
        return Reply(200 if old else 201, self._put(request.path, merged, owner, given=given))

    def _conflicts(self, request: Request, old: Object | None, given: Object, owner: str) -> list[Object]:
        if old is None or request.query.get("force") == "true":
            return []
        owners, there = self._owners[request.path], dict(_leaves(old))
        return [
            {"reason": "FieldManagerConflict", "field": path, "message": f"conflict with {owners[path]}"}
            for path, value in _leaves(given)
            if owners.get(path, owner) != owner and there.get(path) != value
        ]

    def _put(self, path: str, merged: Object, owner: str, *, given: Object | None = None) -> Object:
        old = self.objects.get(path)
        before = dict(_leaves(old)) if old else {}
        owners = self._owners.setdefault(path, {})
        owners |= {p: owner for p, v in _leaves(given or merged) if before.get(p) != v or p not in owners}
        place = merged["metadata"]
        place["uid"] = old["metadata"]["uid"] if old else f"uid-{self._version}"
        place["resourceVersion"] = old["metadata"]["resourceVersion"] if old else ""
        if merged != old:
            self._version += 1
            place["resourceVersion"] = str(self._version)
            self.objects[path] = merged
            self._tell(path, "MODIFIED" if old else "ADDED", merged)
        return merged

    def _delete(self, request: Request) -> Reply:
        found = self.objects.get(request.path)
        if found is None:
            return _missing(request.path)
        options = {} if request.body.startswith(MAGIC) else json.loads(request.body or b"{}")
        wanted = options.get("preconditions", {}).get("uid")
        if wanted not in (None, found["metadata"]["uid"]):
            return status(409, "Conflict", "the UID in the precondition does not match")
        if found["kind"] in self.lingering:
            found["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
            return Reply(document=found)
        self._version += 1
        self._tell(request.path, "DELETED", self.objects.pop(request.path))
        return Reply(document={"kind": "Status", "status": "Success"})

    def _tell(self, path: str, what: str, found: Object) -> None:
        self._history.append((self._version, path, what, copy.deepcopy(found)))
        self._grown.set()

    async def _watch(self, request: Request) -> AsyncIterator[bytes]:
        seen, name = int(request.query["resourceVersion"]), request.query["fieldSelector"].partition("=")[2]
        while True:
            self._grown.clear()
            for version, path, what, found in list(self._history):
                if version > seen and path == f"{request.path}/{name}":
                    seen = version
                    yield json.dumps({"type": what, "object": found}).encode() + b"\n"
            # wait_for of Python 3.11 loses a cancellation that comes together with what it waits for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await self._grown.wait()

    def _path(self, kind: str, namespace: str, name: str) -> str:
        prefix, plural = next((p, n) for p, r in _GROUPS.items() for n, k in r.items() if k == kind)
        return f"{prefix}/namespaces/{namespace}/{plural}/{name}" if namespace else f"{prefix}/{plural}/{name}"


def _read(body: bytes) -> Object:
    return secret_of(body) if body.startswith(MAGIC) else json.loads(body)


def _described(group: str, kinds: dict[str, str]) -> Object:
    """As much of the OpenAPI document as tells clients that the server checks the fields itself."""
    name, version = (group.split("/")[2] if group.startswith("/apis/") else "", group.rpartition("/")[2])
    checks = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {
        f"{group}/namespaces/{{namespace}}/{plural}/{{name}}": {
            "patch": {
                "x-kubernetes-group-version-kind": {"group": name, "version": version, "kind": kind},
                "parameters": checks,
                "responses": {"200": {"description": "OK"}},
            }
        }
        for plural, kind in kinds.items()
    }
    return {"openapi": "3.0.0", "info": {"title": "stand-in", "version": "v1"}, "paths": paths}


def status(code: int, reason: str, message: str, causes: list[Object] | None = None, **headers: str) -> Reply:
    """A refusal as the API server words it."""
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code}
    return Reply(code, {**body, "details": {"causes": causes or []}}, headers=headers)


def _missing(path: str) -> Reply:
    return status(404, "NotFound", f'"{path.rpartition("/")[2]}" not found')


def _has(found: Object, request: Request) -> bool:
    labels = found["metadata"].get("labels", {})
    wanted = dict(pair.split("=", 1) for pair in request.query.get("labelSelector", "").split(",") if pair)
    name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
    return wanted.items() <= labels.items() and name in ("", found["metadata"]["name"])


def _merged(old: Object, given: Object) -> Object:
    found = copy.deepcopy(old)
    for key, value in given.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(value, dict) and isinstance(inner, dict) else value
    return found


def _leaves(value: Object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field that has no fields of its own; a list is one field."""
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{path}.{key}")
        elif f"{path}.{key}" not in (".metadata.uid", ".metadata.resourceVersion"):
            yield f"{path}.{key}", inner


@contextlib.asynccontextmanager
async def serving_objects(server: ObjectServer) -> AsyncGenerator[str]:
    """Address of the API server inside the block."""
    async with serving_http(server.answer) as url:
        yield url


def kubeconfig_of(url: str) -> dict[str, Any]:
    """A kubeconfig for that server."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stand-in",
        "contexts": [{"name": "stand-in", "context": {"cluster": "one", "user": "me"}}],
        "clusters": [{"name": "one", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"token": TOKEN}}],
    }
