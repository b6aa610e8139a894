"""What a run needs of the Kubernetes API: create and find its objects, watch its pod, read its log, delete it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fleet.kernel.errors import ConfigError, SandboxUnavailable
from fleet.sandbox.backends.kubernetes.job import Pod, pod_of
from fleet.web.answers import Unanswered
from fleet.web.kubernetes import Access, Answer, KubernetesClient, path_of, selector
from fleet.web.trust import safe_address, trust_of

_MAX_TOKEN_BYTES = 16 << 10
_LONGEST_LOG_S = 24 * 3600.0
"""Far longer than any run may take; what waits for a log ends it earlier."""


def cluster_client(
    url: str, *, token_file: Path | None, ca_file: Path | None, place: str = "sandbox.backend", **limits: Any
) -> KubernetesClient:
    """Asks an API server as the account of a token file, which is read at each request: the kubelet renews it.

    Args:
        url: `https://host[:port]`; plain http only to this machine.
        token_file: None asks without one, as `kubectl proxy` wants it.
        ca_file: certificates of the cluster's authority; None are the usual ones.
        place: the settings that this was made of, for messages.
        limits: those of KubernetesClient.

    Raises:
        ConfigError: the address is no such URL, or the certificates cannot be read.
    """
    if (address := safe_address(url)) is None:
        raise ConfigError(
            f"{place}.url must be https://host[:port] without user, query or fragment; plain http is for this "
            "machine alone (kubectl proxy)"
        )
    tls = trust_of(ca_file) if address.scheme == "https" else None
    return KubernetesClient(Access(url.rstrip("/"), tls, lambda: _token(token_file, place)), **limits)


def _token(file: Path | None, place: str) -> str | None:
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SandboxUnavailable(
            f"the token file {file} cannot be read ({type(error).__name__}): mount the service account's token, or "
            f"name another file in {place}.token_file",
            missing="token",
        ) from None


ATTEMPT = "swefleet.io/attempt"
"""Annotation: which call made the Job, so that a lost answer is told from somebody else's Job of the same name."""


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


class KubernetesApi:
    """One namespace, asked as one account. An answer that is lost is asked for again: every name is known before.

    Every method raises SandboxUnavailable when the server cannot be asked, forbids it, or refuses the object.
    """

    def __init__(self, client: KubernetesClient, namespace: str) -> None:
        self._client, self._namespace = client, namespace
        self._jobs, self._pods, self._secrets = (path_of(kind, namespace) for kind in ("Job", "Pod", "Secret"))

    @property
    def url(self) -> str:
        """Of the API server."""
        return self._client.url

    async def create_job(self, manifest: Mapping[str, Any]) -> Created:
        """There is a Job of this name; this attempt's, or the one that was there before."""
        answer = await self._ask("POST", self._jobs, body=manifest, expected=(200, 201, 202, 409))
        if answer.status == 409:
            answer = await self._ask("GET", f"{self._jobs}/{manifest['metadata']['name']}", expected=(200, 404))
            if answer.status == 404:
                return Created("", is_ours=False)
        metadata = _metadata(answer.body)
        mine = manifest["metadata"]["annotations"][ATTEMPT]
        is_ours = _mapping(metadata.get("annotations")).get(ATTEMPT) == mine
        return Created(str(metadata.get("uid", "")), is_ours=is_ours)

    async def create_secret(self, manifest: Mapping[str, Any]) -> None:
        """There is a Secret of this name: this one, or the one that this attempt created when the answer was lost."""
        # Its name holds the attempt, so no other can have made it.
        await self._ask("POST", self._secrets, body=manifest, expected=(200, 201, 202, 409))

    async def jobs(self, labels: Mapping[str, str]) -> list[Mapping[str, Any]]:
        """`metadata` of the Jobs with these labels."""
        answer = await self._ask("GET", self._jobs, params=selector(labels), expected=(200,))
        return [_metadata(item) for item in answer.items]

    async def pods(self, labels: Mapping[str, str]) -> list[Pod]:
        """The pods with these labels."""
        answer = await self._ask("GET", self._pods, params=selector(labels), expected=(200,))
        return [pod_of(item) for item in answer.items]

    @asynccontextmanager
    async def log(self, pod: str) -> AsyncGenerator[AsyncGenerator[bytes] | None]:
        """The pod's log from its begin until its container ended; None when it has none yet. Raises Unanswered."""
        path = f"{self._pods}/{pod}/log"
        async with self._client.reading(path, params={"follow": "true"}, limit_s=_LONGEST_LOG_S) as parts:
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
        attributes = {
            "namespace": self._namespace, "verb": right.verb, "group": right.group, "resource": right.resource,
            "subresource": right.subresource,
        }  # fmt: skip
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._ask("POST", path, body=body, expected=(200, 201))
        return _mapping(answer.body.get("status")).get("allowed") is True

    async def policies(self) -> list[Mapping[str, Any]] | None:
        """`spec` of the network policies of the namespace; None when our account may not see them."""
        answer = await self._ask("GET", path_of("NetworkPolicy", self._namespace), expected=(200, 403, 404))
        return [_mapping(item.get("spec")) for item in answer.items] if answer.status == 200 else None

    async def _ask(
        self, method: Literal["GET", "POST", "DELETE"], path: str, *, expected: Collection[int],
        params: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None,
    ) -> Answer:  # fmt: skip
        try:
            answer = await self._client.ask(method, path, params=params, body=body)
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


def _metadata(document: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(document.get("metadata"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]
