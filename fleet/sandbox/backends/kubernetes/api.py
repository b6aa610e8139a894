"""What a run needs of the Kubernetes API: create and find its objects, watch its pod, read its log, delete it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import httpx2

from fleet.kernel.errors import ConfigError, SandboxUnavailable
from fleet.sandbox.backends.kubernetes.job import Pod, pod_of

Method = Literal["GET", "POST", "PATCH", "DELETE"]
_MAX_BODY_BYTES = 16 << 20
_MAX_TOKEN_BYTES = 16 << 10
_TRIES = 4
_BUSY = frozenset({429, 500, 502, 503, 504})
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: dict[str, Any]
    """The JSON object; empty when the body is none."""

    @property
    def message(self) -> str:
        """The server's own words."""
        return str(self.body.get("message", ""))[:500]


class Fetched(NamedTuple):
    """What came back, whatever it is."""

    status: int
    data: bytes
    is_whole: bool
    """False when it was longer than the caller takes."""


class Unanswered(Exception):  # noqa: N818 - a finding for the caller to word, never seen outside of the backend
    """No answer came; what was asked for may have been done or not."""


Found = TypeVar("Found", Answer, Fetched)


class KubernetesHttp:
    """Asks one API server as the account of a token file, which is read at each call: the kubelet renews it.

    Args:
        url: `https://host[:port]`; plain http only to this machine.
        token_file: None asks without one, as `kubectl proxy` wants it.
        ca_file: certificates of the cluster's authority; None are the usual ones.
        timeout_s: seconds for one exchange.
        quiet_s: seconds without a byte after which the log of a pod is asked for again.
        place: the settings that this was made of, for messages.

    Raises:
        ConfigError: the address is no such URL, or the certificates cannot be read.
    """

    def __init__(
        self, url: str, *, token_file: Path | None, ca_file: Path | None, timeout_s: float = 15, quiet_s: float = 30,
        place: str = "sandbox.backend",
    ) -> None:  # fmt: skip
        self._url, self._place = _checked(url, place), place
        self._token_file = token_file
        self._timeout_s, self._quiet_s = timeout_s, quiet_s
        self._tls = _tls(ca_file)

    @property
    def url(self) -> str:
        """Of the API server."""
        return self._url

    async def ask(
        self,
        method: Method,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: str = "application/json",
    ) -> Answer:
        """The answer, whatever its status; `form` is the content type of the body.

        Raises:
            Unanswered: there is none, or it is over 16 MiB.
            SandboxUnavailable: the token file cannot be read.
        """
        headers = {} if body is None else {"Content-Type": form}
        content = None if body is None else json.dumps(body).encode()
        found = await self._exchange(
            method, path, params, content, headers, most=_MAX_BODY_BYTES, timeout_s=self._timeout_s
        )
        if not found.is_whole:
            raise Unanswered(f"{self._url} answered with over {_MAX_BODY_BYTES} bytes")
        return Answer(found.status, _document(found.data))

    async def fetch(
        self, path: str, *, params: Mapping[str, str] | None = None, most: int, timeout_s: float | None = None
    ) -> Fetched:
        """At most so many bytes of what is there, whatever its status and form. Raises as `ask`."""
        return await self._exchange("GET", path, params, None, {}, most=most, timeout_s=timeout_s or self._timeout_s)

    async def patiently(self, exchange: Callable[[], Awaitable[Found]], *, pause_s: float) -> Found:
        """What the exchange, which may be repeated, comes to once the server is not busy.

        Raises:
            Unanswered: it was busy, or did not answer, each time.
        """
        why = ""
        for number in range(_TRIES):
            try:
                found = await exchange()
            except Unanswered as error:
                why = str(error)
            else:
                if found.status not in _BUSY:
                    return found
                said = found.message if isinstance(found, Answer) else ""
                why = f"{self.url} answered {found.status} {said}".rstrip()
            await asyncio.sleep(pause_s * 2**number)
        raise Unanswered(why)

    async def _exchange(
        self, method: Method, path: str, params: Mapping[str, str] | None, content: bytes | None,
        headers: Mapping[str, str], *, most: int, timeout_s: float,
    ) -> Fetched:  # fmt: skip
        why, sent = "", {**self._headers(), **headers}
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._client(timeout_s) as client,
                client.stream(method, self._url + path, headers=sent, params=params, content=content) as response,
            ):
                data, is_whole = await _start_of(response, most)
                return Fetched(response.status_code, data, is_whole)
        except TimeoutError:
            why = f"{self._url} did not answer in {timeout_s:g} s"
        # Errors of the client hold the request, and with it the token: only their kind is kept.
        except (httpx2.HTTPError, ssl.SSLError, OSError) as error:
            why = f"{self._url} cannot be asked ({type(error).__name__})"
        raise Unanswered(why)

    @asynccontextmanager
    async def reading(self, path: str, *, params: Mapping[str, str]) -> AsyncGenerator[AsyncGenerator[bytes] | None]:
        """Parts of a body as they come; None when the answer is not 200. Raises Unanswered, also while it is read."""
        why = ""
        try:
            async with (
                self._client(self._quiet_s) as client,
                client.stream("GET", self._url + path, headers=self._headers(), params=params) as response,
            ):
                yield _parts(response) if response.status_code == 200 else None
                return
        except (httpx2.HTTPError, ssl.SSLError, OSError) as error:
            why = f"{self._url} ended the log ({type(error).__name__})"
        raise Unanswered(why)

    def _client(self, timeout_s: float) -> httpx2.AsyncClient:
        # A client per exchange: none outlives its event loop, and the TLS context is shared.
        return httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=timeout_s)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "swe-fleet"}
        if self._token_file is None:
            return headers
        try:
            with self._token_file.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SandboxUnavailable(
                f"the token file {self._token_file} cannot be read ({type(error).__name__}): mount the service "
                f"account's token, or name another file in {self._place}.token_file",
                missing="token",
            ) from None
        return {**headers, "Authorization": f"Bearer {token}"}


async def _start_of(response: httpx2.Response, most: int) -> tuple[bytes, bool]:
    data = bytearray()
    async for chunk in response.aiter_bytes():
        data += chunk
        if len(data) > most:
            return bytes(data[:most]), False
    return bytes(data), True


def _document(data: bytes) -> dict[str, Any]:
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}  # pyright: ignore[reportUnknownVariableType]


async def _parts(response: httpx2.Response) -> AsyncGenerator[bytes]:
    async for chunk in response.aiter_bytes():
        yield chunk


def _checked(url: str, place: str) -> str:
    try:
        parsed = httpx2.URL(url)
        is_safe = parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in _LOOPBACK)
        is_plain = bool(parsed.host) and not (parsed.userinfo or parsed.query or parsed.fragment)
    except httpx2.InvalidURL:
        is_safe = is_plain = False
    if not is_safe or not is_plain:
        raise ConfigError(
            f"{place}.url must be https://host[:port] without user, query or fragment; plain http is for this "
            "machine alone (kubectl proxy)"
        )
    return url.rstrip("/")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(f"cannot read the certificates {ca_file}: {error}", file=str(ca_file)) from error


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
