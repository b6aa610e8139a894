"""What a run needs of the Kubernetes API: create and find its objects, watch its pod, read its log, delete it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

from fleet.adapters.sandbox.kubernetes_pod import Pod, pod_of
from fleet.adapters.sandbox.kubernetes_transport import Answer, KubernetesHttp, Unanswered
from fleet.errors import SandboxUnavailable

__all__ = ["ATTEMPT", "Created", "KubernetesApi", "RIGHTS", "Right", "selector"]

ATTEMPT = "swefleet.io/attempt"
"""Annotation: which call made the Job, so that a lost answer is told from somebody else's Job of the same name."""
_PAUSE_S = 0.2


class Right(NamedTuple):
    """One thing that the account must be allowed to do."""

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""


RIGHTS = (
    *(Right(verb, "jobs", "batch") for verb in ("create", "get", "list", "delete")),
    Right("create", "secrets"),
    *(Right(verb, "pods") for verb in ("list", "delete")),
    Right("get", "pods", "", "log"),
)
"""What a run needs."""


class Created(NamedTuple):
    """Whether the Job is the one that this attempt made, and its uid; `is_ours` false: somebody else's is there."""

    uid: str
    is_ours: bool


def selector(labels: Mapping[str, str]) -> dict[str, str]:
    """Parameter that asks for the objects with all these labels."""
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}


class KubernetesApi:
    """One namespace, asked as one account. An answer that is lost is asked for again: every name is known before.

    Every method raises SandboxUnavailable when the server cannot be asked, forbids it, or refuses the object.
    """

    def __init__(self, http: KubernetesHttp, namespace: str, *, pause_s: float = _PAUSE_S) -> None:
        self._http, self._namespace, self._pause_s = http, namespace, pause_s

    @property
    def url(self) -> str:
        """Of the API server."""
        return self._http.url

    async def create_job(self, manifest: Mapping[str, Any]) -> Created:
        """There is a Job of this name; this attempt's, or the one that was there before."""
        answer = await self._ask("POST", self._jobs, body=manifest, expected=(200, 201, 202, 409))
        if answer.status == 409:
            answer = await self._ask("GET", f"{self._jobs}/{manifest['metadata']['name']}", expected=(200, 404))
            if answer.status == 404:
                return Created("", is_ours=False)
        found = _metadata(answer.body)
        mine = manifest["metadata"]["annotations"][ATTEMPT]
        is_ours = _mapping(found.get("annotations")).get(ATTEMPT) == mine
        return Created(str(found.get("uid", "")), is_ours=is_ours)

    async def create_secret(self, manifest: Mapping[str, Any]) -> None:
        """There is a Secret of this name: this one, or the one that this attempt created when the answer was lost."""
        # Its name holds the attempt, so no other can have made it.
        await self._ask("POST", self._secrets, body=manifest, expected=(200, 201, 202, 409))

    async def jobs(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """`metadata` of the Jobs with these labels."""
        answer = await self._ask("GET", self._jobs, params=selector(labels), expected=(200,))
        return [_metadata(item) for item in _items(answer)]

    async def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        """The pods with these labels."""
        answer = await self._ask("GET", self._pods, params=selector(labels), expected=(200,))
        return [pod_of(item) for item in _items(answer)]

    @asynccontextmanager
    async def log(self, pod: str) -> AsyncGenerator[AsyncGenerator[bytes] | None]:
        """The pod's log from its begin until its container ended; None when it has none yet. Raises Unanswered."""
        async with self._http.reading(f"{self._pods}/{pod}/log", params={"follow": "true"}) as parts:
            yield parts

    async def delete_job(self, name: str, *, propagation: Literal["Background", "Foreground"]) -> bool:
        """The Job, its pods and its Secrets are on their way out; False when there was none."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        answer = await self._ask("DELETE", f"{self._jobs}/{name}", body=options, expected=(200, 202, 404, 409))
        return answer.status != 404

    async def delete_pod(self, name: str, *, grace_s: int) -> None:
        """The pod is told to end, and killed after the grace."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": grace_s}
        await self._ask("DELETE", f"{self._pods}/{name}", body=options, expected=(200, 202, 404, 409))

    async def forbidden(self) -> list[Right]:
        """Rights of RIGHTS that our account does not have in the namespace."""
        answers = await asyncio.gather(*(self._may(right) for right in RIGHTS))
        return [right for right, may in zip(RIGHTS, answers, strict=True) if not may]

    async def _may(self, right: Right) -> bool:
        wanted = {
            "namespace": self._namespace, "verb": right.verb, "group": right.group, "resource": right.resource,
            "subresource": right.subresource,
        }  # fmt: skip
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wanted},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._ask("POST", path, body=body, expected=(200, 201))
        return _mapping(answer.body.get("status")).get("allowed") is True

    async def policies(self) -> list[Mapping[str, Any]] | None:
        """`spec` of the network policies of the namespace; None when our account may not see them."""
        path = f"/apis/networking.k8s.io/v1/namespaces/{self._namespace}/networkpolicies"
        answer = await self._ask("GET", path, expected=(200, 403, 404))
        return [_mapping(item.get("spec")) for item in _items(answer)] if answer.status == 200 else None

    @property
    def _jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self._namespace}/jobs"

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods"

    @property
    def _secrets(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/secrets"

    async def _ask(
        self, method: Literal["GET", "POST", "DELETE"], path: str, *, expected: Collection[int],
        params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        exchange = partial(self._http.ask, method, path, params=params, body=body)
        try:
            answer = await self._http.patiently(exchange, pause_s=self._pause_s)
        except Unanswered as error:
            raise SandboxUnavailable(
                f"the Kubernetes API cannot be used: {error}; see whether it is up, and sandbox.backend.url",
                missing="kubernetes",
            ) from error
        if answer.status not in expected:
            raise self._refused(method, path, answer)
        return answer

    def _refused(self, method: str, path: str, answer: Answer) -> SandboxUnavailable:
        what = path.rpartition(f"/{self._namespace}/")[2] or path
        mend = {
            401: "renew the token of sandbox.backend.token_file",
            403: f"let the account {method} it in namespace {self._namespace}; a full quota says so too",
            404: f"create the namespace {self._namespace}",
        }.get(answer.status, "the cluster's admission refuses it; see its message")
        return SandboxUnavailable(
            f"the API server answered {answer.status} to {method} {what}: {answer.message or 'no message'}; {mend}",
            missing="kubernetes",
            status=answer.status,
        )


def _items(answer: Answer) -> list[dict[str, Any]]:
    items: Any = answer.body.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []  # pyright: ignore[reportUnknownVariableType]


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(document.get("metadata"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]
