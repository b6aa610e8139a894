"""Objects of a Kubernetes cluster by its HTTP interface: read, server-side apply, replace, delete, watch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal, NamedTuple

import httpx2

from cluster.kuberay.identity import FIELD_MANAGER, Manifest
from cluster.kuberay.kubeconfig import Access
from fleet.kernel.errors import ConflictError, FleetError, InvalidInput, NotFound, PolicyDenied, StoreUnavailable

_RESOURCES: Mapping[str, tuple[str, str]] = {
    "Namespace": ("/api/v1", "namespaces"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Secret": ("/api/v1", "secrets"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "RayCluster": ("/apis/ray.io/v1", "rayclusters"),
    "RayService": ("/apis/ray.io/v1", "rayservices"),
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
}
_TRIES = 6
_BUSY = frozenset({429, 500, 502, 503, 504})
_MAX_PAUSE_S = 30.0
_MAX_BODY_BYTES = 64 << 20
_TIMEOUT_S = 30.0
_APPLY = {"Content-Type": "application/apply-patch+yaml"}


class Reference(NamedTuple):
    """An object by kind, namespace (empty for a namespace itself) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def path(self) -> str:
        """Of the object."""
        return f"{self.collection}/{self.name}"

    @property
    def collection(self) -> str:
        """Of all objects of its kind in its namespace."""
        prefix, plural = _RESOURCES[self.kind]
        return f"{prefix}/namespaces/{self.namespace}/{plural}" if self.namespace else f"{prefix}/{plural}"


def reference_of(manifest: Manifest) -> Reference:
    """Where the object is."""
    place = manifest["metadata"]
    return Reference(manifest["kind"], place.get("namespace", ""), place["name"])


class _Answer(NamedTuple):
    status: int
    body: Manifest
    retry_after_s: float | None


class KubeApi:
    """One API server. What a lost answer left open is asked again: every request here may be repeated.

    Every method raises PolicyDenied when the account may not, and StoreUnavailable when there is no answer after
    several tries.
    """

    def __init__(self, client: httpx2.AsyncClient, access: Access, *, pause_s: float = 0.5) -> None:
        self._client, self._access, self._pause_s = client, access, pause_s

    async def get(self, reference: Reference) -> Manifest | None:
        """The object, or None when there is none."""
        answer = await self._ask("GET", reference.path, about=reference)
        return None if answer.status == 404 else self._good(answer, reference)

    async def find(self, kind: str, namespace: str, labels: Mapping[str, str]) -> list[Manifest]:
        """All objects of a kind in a namespace that carry these labels."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        reference = Reference(kind, namespace, "*")
        answer = await self._ask("GET", reference.collection, about=reference, params={"labelSelector": selector})
        return [{"kind": kind, **item} for item in self._good(answer, reference).get("items", ())]

    async def apply(self, manifest: Manifest, *, force: bool = False, dry_run: bool = False) -> Manifest:
        """The object has every field of the manifest; fields of others stay as they are (server-side apply).

        Raises:
            ConflictError: others set some of these fields to something else; names them. `force` takes them over.
            InvalidInput: the server refuses the object; says why.
            NotFound: the server does not know the kind, or there is no such namespace.
        """
        reference = reference_of(manifest)
        params = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            params["dryRun"] = "All"
        answer = await self._ask("PATCH", reference.path, about=reference, params=params, body=manifest, headers=_APPLY)
        return self._good(answer, reference)

    async def replace(self, manifest: Manifest) -> Manifest:
        """The object is as given. Raises ConflictError when it changed since it was read."""
        reference = reference_of(manifest)
        params = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        answer = await self._ask("PUT", reference.path, about=reference, params=params, body=manifest)
        return self._good(answer, reference)

    async def delete(self, reference: Reference, *, uid: str) -> bool:
        """The object of that uid ends, after everything that it owns; False when it is gone already."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        answer = await self._ask("DELETE", reference.path, about=reference, body=body)
        # Another uid under the same name is another object: ours is gone.
        if answer.status in (404, 409):
            return False
        self._good(answer, reference)
        return True

    async def watch(self, reference: Reference) -> AsyncGenerator[Manifest | None]:
        """The object now and after each change, None while there is none; goes on over broken watches for ever."""
        params = {"fieldSelector": f"metadata.name={reference.name}"}
        while True:
            answer = await self._ask("GET", reference.collection, about=reference, params=params)
            listed = self._good(answer, reference)
            items = listed.get("items") or [None]
            yield items[0]
            version = str(listed.get("metadata", {}).get("resourceVersion", ""))
            async with aclosing(
                self._events(reference, {**params, "watch": "true", "resourceVersion": version})
            ) as found:
                async for kind, manifest in found:
                    yield None if kind == "DELETED" else manifest
            # A watch that ends at once would otherwise be asked for in a busy loop.
            await asyncio.sleep(self._pause_s)

    async def _events(self, reference: Reference, params: Mapping[str, str]) -> AsyncGenerator[tuple[str, Manifest]]:
        """Events until the watch ends, for whichever reason: the caller lists again."""
        url = self._access.url + reference.collection
        try:
            async with self._client.stream("GET", url, params=params, headers=self._headers()) as response:
                if response.status_code != 200:
                    return
                async for line in response.aiter_lines():
                    event: Any = json.loads(line) if line.strip() else {}
                    if event.get("type") == "ERROR":
                        return
                    if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                        yield event["type"], event["object"]
        except (httpx2.HTTPError, OSError, ValueError, KeyError, AttributeError):
            return

    async def _ask(
        self,
        method: Literal["GET", "PATCH", "PUT", "DELETE"],
        path: str,
        *,
        about: Reference,
        params: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> _Answer:
        why = ""
        for number in range(_TRIES):
            wanted_s: float | None = None
            try:
                answer = await self._once(method, path, params, body, headers)
                if answer.status not in _BUSY:
                    return answer
                why, wanted_s = f"answers {answer.status}: {_message(answer)}", answer.retry_after_s
            # Errors of the client hold the request, and with it the token: only their kind is kept.
            except (httpx2.HTTPError, OSError) as error:
                why = f"cannot be asked ({type(error).__name__})"
            if number < _TRIES - 1:
                await asyncio.sleep(min(wanted_s if wanted_s is not None else self._pause_s * 2**number, _MAX_PAUSE_S))
        raise StoreUnavailable(
            f"{about}: the API server {self._access.url} {why}; see that it is reached (kubectl get namespaces), then "
            "repeat the command",
            object=str(about),
        )

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Manifest | None,
        headers: Mapping[str, str] | None,
    ) -> _Answer:
        content = json.dumps(body).encode() if body is not None else None
        sent = {
            **self._headers(),
            **({"Content-Type": "application/json"} if body is not None else {}),
            **(headers or {}),
        }
        async with self._client.stream(
            method, self._access.url + path, params=params, content=content, headers=sent
        ) as response:
            data = bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > _MAX_BODY_BYTES:
                    raise httpx2.ReadError("too large")
        return _Answer(response.status_code, _document(bytes(data)), _seconds(response.headers.get("retry-after")))

    def _headers(self) -> dict[str, str]:
        return {"Accept": "application/json", "User-Agent": "swe-fleet", **self._access.headers()}

    def _good(self, answer: _Answer, about: Reference) -> Manifest:
        if answer.status in (200, 201, 202):
            return answer.body
        raise _refusal(answer, about, self._access.url)


def _refusal(answer: _Answer, about: Reference, url: str) -> FleetError:
    said = _message(answer)
    causes = [f"{c.get('field', '')}: {c.get('message', '')}" for c in answer.body.get("details", {}).get("causes", ())]
    match answer.status:
        case 401:
            return PolicyDenied(
                f"{about}: {url} does not know this user; log in to the cluster again", object=str(about)
            )
        case 403:
            return PolicyDenied(f"{about}: {said}; ask for the rights of docs/kubernetes.md", object=str(about))
        case 404:
            # The one text by which the server tells an unknown kind from an object that is not there.
            is_unknown = "could not find the requested resource" in said
            hint = "see that its namespace exists"
            if is_unknown:
                hint = f"install {'the KubeRay operator' if about.kind.startswith('Ray') else 'what brings this kind'}"
            return NotFound(f"{about}: {said}; {hint}", object=str(about), is_unknown_kind=is_unknown)
        case 409:
            fields = [str(c.get("field", "")) for c in answer.body.get("details", {}).get("causes", ())]
            mend = "somebody else set this, so change it there, or take it over with --force"
            return ConflictError(
                f"{about}: {said}; {mend if fields else 'it changed meanwhile, so repeat the command'}",
                object=str(about),
                causes=causes,
                fields=fields,
            )
        case _:
            return InvalidInput(
                f"{about}: {answer.status} {said}; {'; '.join(causes)}", object=str(about), causes=causes
            )


def _message(answer: _Answer) -> str:
    return str(answer.body.get("message", "")).strip()[:1_000] or f"status {answer.status}"


def _document(data: bytes) -> Manifest:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isdigit() else None


@asynccontextmanager
async def connect(access: Access, *, pause_s: float = 0.5) -> AsyncGenerator[KubeApi]:
    """The API server behind that access; connections are closed at the end."""
    verify = access.tls if access.tls is not None else True
    # Watches are quiet for as long as nothing happens; the server ends them after some minutes.
    timeout = httpx2.Timeout(_TIMEOUT_S, read=120)
    async with httpx2.AsyncClient(verify=verify, trust_env=False, timeout=timeout) as client:
        yield KubeApi(client, access, pause_s=pause_s)
