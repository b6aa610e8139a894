"""What deployments need of the Kubernetes API: apply, read and delete objects, read logs, ask a program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urlsplit

from fleet.deploy.kubernetes.objects import MANAGER
from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.commands.deploy_kubernetes import ClusterPlace
from fleet.sandbox.backends.kubernetes.api import cluster_client
from fleet.web.answers import Unanswered
from fleet.web.kubernetes import APPLY, JSON, MERGE, Answer, KubernetesClient, Method, path_of, selector

Kind = Literal["Deployment", "Service", "Secret", "Ingress", "Job"]
Object = dict[str, Any]
_LOG_BYTES = 4 << 20
_ANSWER_BYTES = 1 << 20
_GOOD = (200, 201, 202)


class Conflict(Exception):  # noqa: N818 - a finding for the caller, never seen outside of the adapter
    """The object changed since it was read."""


class Log(NamedTuple):
    """Lines of a container, the oldest first."""

    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class ClusterApi:
    """One namespace, asked as one account. What a lost answer left open is asked again: all of it may be repeated.

    Every method raises SandboxUnavailable when the server cannot be asked, forbids it, or refuses the object.
    """

    def __init__(self, client: KubernetesClient, namespace: str, *, poll_s: float = 0.5) -> None:
        self._client, self.namespace = client, namespace
        self.poll_s = poll_s
        """Seconds between two looks at what is waited for."""

    @classmethod
    def of(cls, place: ClusterPlace, *, what: str) -> ClusterApi:
        """That of a target, whose settings messages call so. Raises ConfigError: its certificates cannot be read."""
        token, authority = (Path(file) if file else None for file in (place.token_file, place.ca_file))
        return cls(cluster_client(place.url, token_file=token, ca_file=authority, place=what), place.namespace)

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        """The object has every field of the manifest; fields of others stay (server-side apply).

        Raises Conflict when the manifest names a version, and the object has another by now.
        """
        params = {"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"}
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        answer = await self._ask("PATCH", path, params=params, body=manifest, form=APPLY, expected=(*_GOOD, 409))
        if answer.status == 409 and "resourceVersion" in manifest["metadata"]:
            raise Conflict(answer.message)
        if answer.status == 409:
            raise self._refused("PATCH", path, answer)
        return answer.body

    async def merge(self, kind: Kind, name: str, change: Mapping[str, Any]) -> None:
        """Nothing but this is changed; nothing at all when the object is gone."""
        params = {"fieldManager": MANAGER}
        path = self._path(kind, name)
        await self._ask("PATCH", path, params=params, body=change, form=MERGE, expected=(*_GOOD, 404))

    async def get(self, kind: Kind, name: str) -> Object | None:
        """The object, or None when there is none."""
        answer = await self._ask("GET", self._path(kind, name), expected=(200, 404))
        return answer.body if answer.status == 200 else None

    async def find(self, kind: Literal["Deployment", "Pod"], labels: Mapping[str, str]) -> list[Object]:
        """The objects with all these labels."""
        return (await self._ask("GET", self._path(kind), params=selector(labels), expected=(200,))).items

    async def delete(self, kind: Kind, name: str) -> None:
        """The object ends, after all that it owns."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        await self._ask("DELETE", self._path(kind, name), body=options, expected=(*_GOOD, 404, 409))

    async def log(self, pod: str, *, container: str, tail: int, previous: bool = False, dated: bool = False) -> Log:
        """The last lines that a container printed; none while it has printed nothing."""
        params = {"container": container, "tailLines": str(tail), "limitBytes": str(_LOG_BYTES)}
        params |= {key: "true" for key, is_on in (("previous", previous), ("timestamps", dated)) if is_on}
        try:
            reply = await self._client.fetch(f"{self._path('Pod', pod)}/log", params=params, most=_LOG_BYTES)
        except Unanswered as error:
            raise _unusable(str(error)) from error
        if reply.status in (400, 404):
            return Log(())
        if reply.status != 200:
            raise self._refused("GET", f"pods/{pod}/log", Answer(reply.status, b""))
        lines = reply.data.decode(errors="replace").splitlines()
        # A line that was cut may end with the beginning of what has to be taken out of it.
        return Log(tuple(lines[:-1] if len(reply.data) >= _LOG_BYTES else lines))

    async def ask_program(self, service: str, path: str, *, timeout_s: float) -> tuple[int, str]:
        """Status and text of what the program behind a Service answers, or the API server for it (as 5xx).

        Raises Unanswered when nothing answered in time.
        """
        parts = urlsplit(path)
        place = f"{self._path('Service', f'{service}:http')}/proxy{quote(parts.path, safe='/%:@!$&()*+,;=~')}"
        if parts.query:
            place += f"?{parts.query}"
        reply = await self._client.fetch_once(place, most=_ANSWER_BYTES, timeout_s=timeout_s)
        return reply.status, reply.data.decode(errors="replace")

    def _path(self, kind: str, name: str = "") -> str:
        return path_of(kind, self.namespace, name)

    async def _ask(
        self, method: Method, path: str, *, expected: Collection[int], params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None, form: str = JSON,
    ) -> Answer:  # fmt: skip
        try:
            answer = await self._client.ask(method, path, params=params, body=body, form=form)
        except Unanswered as error:
            raise _unusable(str(error)) from error
        if answer.status not in expected:
            raise self._refused(method, path, answer)
        return answer

    def _refused(self, method: str, path: str, answer: Answer) -> SandboxUnavailable:
        what = path.rpartition(f"/namespaces/{self.namespace}/")[2] or path
        # A refusal may repeat what was sent.
        said = "no message is shown of a Secret" if what.startswith("secrets/") else answer.message or "no message"
        mend = {
            401: "renew the token of kubernetes.token_file of the target",
            403: f"give the account the rights of docs/deploy.md in {self.namespace}; a full quota says so too",
            404: f"create the namespace {self.namespace}",
            409: "somebody else is just changing it",
        }.get(answer.status, "the cluster's admission refuses it; see its message")
        return SandboxUnavailable(
            f"the API server answered {answer.status} to {method} {what}: {said}; {mend}",
            missing="kubernetes",
            status=answer.status,
        )


def _unusable(why: str) -> SandboxUnavailable:
    return SandboxUnavailable(
        f"the Kubernetes API cannot be used: {why}; see whether it is up, and kubernetes.url of the target",
        missing="kubernetes",
    )
