"""Objects of a Kubernetes cluster by its HTTP interface: read, server-side apply, replace, delete, watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import NamedTuple

from cluster.kuberay.identity import FIELD_MANAGER, Manifest
from fleet.kernel.errors import ConflictError, FleetError, InvalidInput, NotFound, PolicyDenied, StoreUnavailable
from fleet.web.answers import Unanswered, document_of
from fleet.web.kubernetes import (
    APPLY,
    JSON,
    Access,
    Answer,
    KubernetesClient,
    Method,
    lines_of,
    path_of,
    selector,
)

_TRIES = 6
_TIMEOUT_S = 30.0
_QUIET_S = 120.0
_WATCH_S = 240
"""The server ends a watch after so many seconds, and this side a little later."""
_MAX_EVENT_BYTES = 8 << 20


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
        return path_of(self.kind, self.namespace, self.name)

    @property
    def collection(self) -> str:
        """Of all objects of its kind in its namespace."""
        return path_of(self.kind, self.namespace)


def reference_of(manifest: Manifest) -> Reference:
    """Where the object is."""
    place = manifest["metadata"]
    return Reference(manifest["kind"], place.get("namespace", ""), place["name"])


class KubeApi:
    """One API server. What a lost answer left open is asked again: every request here may be repeated.

    Every method raises PolicyDenied when the account may not, and StoreUnavailable when there is no answer after
    several tries.
    """

    def __init__(self, access: Access, *, pause_s: float = 0.5) -> None:
        self._client = KubernetesClient(access, timeout_s=_TIMEOUT_S, quiet_s=_QUIET_S, tries=_TRIES, pause_s=pause_s)
        self._pause_s = pause_s

    async def get(self, reference: Reference) -> Manifest | None:
        """The object, or None when there is none."""
        answer = await self._ask("GET", reference.path, about=reference)
        return None if answer.status == 404 else self._good(answer, reference)

    async def find(self, kind: str, namespace: str, labels: Mapping[str, str]) -> list[Manifest]:
        """All objects of a kind in a namespace that carry these labels."""
        reference = Reference(kind, namespace, "*")
        answer = await self._ask("GET", reference.collection, about=reference, params=selector(labels))
        self._good(answer, reference)
        return [{"kind": kind, **item} for item in answer.items]

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
        answer = await self._ask("PATCH", reference.path, about=reference, params=params, body=manifest, form=APPLY)
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
            yield next(iter(answer.items), None)
            version = str(listed.get("metadata", {}).get("resourceVersion", ""))
            watched = {**params, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_S)}
            async with aclosing(self._events(reference, watched)) as found:
                async for kind, manifest in found:
                    yield None if kind == "DELETED" else manifest
            # A watch that ends at once would otherwise be asked for in a busy loop.
            await asyncio.sleep(self._pause_s)

    async def _events(self, reference: Reference, params: Mapping[str, str]) -> AsyncGenerator[tuple[str, Manifest]]:
        """Events until the watch ends, for whichever reason: the caller lists again."""
        with suppress(Unanswered, KeyError):
            async with self._client.reading(reference.collection, params=params, limit_s=_WATCH_S + 30) as parts:
                if parts is None:
                    return
                async for line in lines_of(parts, _MAX_EVENT_BYTES):
                    event = document_of(line) or {}
                    if event.get("type") not in ("ADDED", "MODIFIED", "DELETED"):
                        return
                    yield event["type"], event["object"]

    async def _ask(
        self,
        method: Method,
        path: str,
        *,
        about: Reference,
        params: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        form: str = JSON,
    ) -> Answer:
        try:
            return await self._client.ask(method, path, params=params, body=body, form=form)
        except Unanswered as error:
            raise StoreUnavailable(
                f"{about}: the API server {error}; see that it is reached (kubectl get namespaces), then repeat the "
                "command",
                object=str(about),
            ) from None

    def _good(self, answer: Answer, about: Reference) -> Manifest:
        if answer.status in (200, 201, 202):
            return answer.body
        raise _refusal(answer, about, self._client.url)


def _refusal(answer: Answer, about: Reference, url: str) -> FleetError:
    said = answer.message or f"status {answer.status}"
    blamed = answer.body.get("details", {}).get("causes", ())
    causes = [f"{c.get('field', '')}: {c.get('message', '')}" for c in blamed]
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
            fields = [str(c.get("field", "")) for c in blamed]
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
