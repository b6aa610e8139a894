"""One API server of a Kubernetes cluster, asked through the official client in threads of a bounded pool.

The client blocks and its import takes 0.6 s, so both happen in those threads: no event loop waits for them. It brings
connections, certificates and signing in. How much of an answer is taken, how long it may take, what is asked again, and
that no error holds a token is decided here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from urllib.parse import urlencode

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from fleet.web.answers import Unanswered, document_of, pauses, seconds_of

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
JSON, APPLY, MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
"""Content types of a body: an object, a server-side apply, and a change of some fields."""
RESOURCES: Mapping[str, tuple[str, str]] = {
    "Namespace": ("/api/v1", "namespaces"),
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Pod": ("/api/v1", "pods"),
    "Service": ("/api/v1", "services"),
    "PersistentVolumeClaim": ("/api/v1", "persistentvolumeclaims"),
    "Secret": ("/api/v1", "secrets"),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "Ingress": ("/apis/networking.k8s.io/v1", "ingresses"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "StatefulSet": ("/apis/apps/v1", "statefulsets"),
    "Job": ("/apis/batch/v1", "jobs"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "RayCluster": ("/apis/ray.io/v1", "rayclusters"),
    "RayService": ("/apis/ray.io/v1", "rayservices"),
    "RayJob": ("/apis/ray.io/v1", "rayjobs"),
}
"""Kind -> group with version, and the name of its objects in paths."""
_MAX_BODY_BYTES = 64 << 20
_PART_BYTES = 64 << 10
_BUSY = frozenset({429, 500, 502, 503, 504})
_EXCHANGES_AT_ONCE = 16
_EXCHANGES = ThreadPoolExecutor(_EXCHANGES_AT_ONCE, "kubernetes")
_STREAMS = ThreadPoolExecutor(64, "kubernetes-stream")
"""Logs and watches, which block while nothing happens; one beyond them waits for the end of another."""
_AGENT = "swe-fleet"
T = TypeVar("T")


def _nobody() -> None:
    return None


@dataclass(frozen=True)
class Access:
    """An API server, and who asks it; holds a token, so it has no readable form."""

    url: str
    """Without a slash at the end."""
    tls: SSLContext | None = field(default=None, repr=False)
    """None over plain HTTP."""
    token: Callable[[], str | None] = field(default=_nobody, repr=False)
    """Asked at each request, in a thread, because the kubelet renews tokens; its errors go to whoever asks."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status."""

    status: int
    data: bytes
    is_whole: bool = True
    """False when it was longer than the caller takes."""
    wait_s: float | None = None
    """Seconds that the server asks to wait, if it does."""

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object; empty when it is none."""
        return document_of(self.data) or {}

    @property
    def message(self) -> str:
        """The server's own words, at most 1,000 characters."""
        return str(self.body.get("message", "")).strip()[:1_000]

    @property
    def items(self) -> list[dict[str, Any]]:
        """The objects of a list."""
        found: Any = self.body.get("items")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True, slots=True)
class _Request:
    method: Method
    path: str
    params: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    form: str = JSON
    agent: str = _AGENT


def path_of(kind: str, namespace: str, name: str = "") -> str:
    """The path of an object, or of all objects of the kind; the namespace is empty for a namespace itself."""
    group, plural = RESOURCES[kind]
    return "/".join([group, *(("namespaces", namespace) if namespace else ()), plural, *((name,) if name else ())])


def selector(labels: Mapping[str, str]) -> dict[str, str]:
    """The parameter that asks for the objects with all these labels."""
    return {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items())}


class KubernetesClient:
    """Asks one API server. It follows no redirect and uses no proxy of the environment.

    Args:
        timeout_s: seconds for one exchange.
        quiet_s: seconds without a byte after which a stream ends.
        tries: requests for one question while the server is busy or its answer is lost; all of them may be repeated.
        pause_s: about the seconds before the second request, doubled each time.
    """

    def __init__(
        self, access: Access, *, timeout_s: float = 15, quiet_s: float = 30, tries: int = 4, pause_s: float = 0.2
    ) -> None:
        self.url = access.url
        self._access, self._timeout_s, self._quiet_s = access, timeout_s, quiet_s
        self._tries, self._pause_s = tries, pause_s
        self._made: Any = None
        self._lock = threading.Lock()

    async def ask(
        self,
        method: Method,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        form: str = JSON,
        agent: str = _AGENT,
    ) -> Answer:
        """The answer, whatever its status, once the server is not busy; the request may be sent several times.

        Raises:
            Unanswered: the server was busy, or did not answer, each time.
        """
        return await self._patiently(_Request(method, path, params, body, form, agent), _MAX_BODY_BYTES)

    async def fetch(self, path: str, *, params: Mapping[str, str] | None = None, most: int) -> Answer:
        """At most so many bytes of what is there, of whatever form. Raises as `ask`."""
        return await self._patiently(_Request("GET", path, params), most)

    async def fetch_once(
        self, path: str, *, most: int = _MAX_BODY_BYTES, agent: str = _AGENT, timeout_s: float | None = None
    ) -> Answer:
        """As `fetch`, but asked once, so that a busy server is an answer as well."""
        return await self._once(_Request("GET", path, agent=agent), most, timeout_s or self._timeout_s)

    async def _patiently(self, request: _Request, most: int) -> Answer:
        async def once() -> Answer:
            found = await self._once(request, most, self._timeout_s)
            if found.status in _BUSY:
                raise Unanswered(f"{self.url} answered {found.status} {found.message}".rstrip(), wait_s=found.wait_s)
            return found

        again = AsyncRetrying(
            stop=stop_after_attempt(self._tries),
            wait=pauses(self._pause_s),
            retry=retry_if_exception_type(Unanswered),
            reraise=True,
        )
        return await again(once)

    async def _once(self, request: _Request, most: int, within_s: float) -> Answer:
        await _in(_EXCHANGES, self._client)
        try:
            async with asyncio.timeout(within_s):
                return await _in(_EXCHANGES, partial(self._exchange, request, most, within_s))
        except TimeoutError:
            raise Unanswered(f"{self.url} did not answer in {within_s:g} s") from None

    @asynccontextmanager
    async def reading(
        self, path: str, *, params: Mapping[str, str], limit_s: float
    ) -> AsyncGenerator[AsyncGenerator[bytes] | None]:
        """Parts of a body as they come; None when the answer is not 200.

        It ends with the body, or after `limit_s`. Raises Unanswered, also while it is read.
        """
        await _in(_EXCHANGES, self._client)
        opening = _STREAMS.submit(self._opened, _Request("GET", path, params), self._quiet_s)
        try:
            response = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        stream = _Stream(response, self.url, limit_s)
        try:
            yield stream.parts() if response.status == 200 else None
        finally:
            stream.end()

    # In a thread.

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                from kubernetes.client import ApiClient, Configuration

                # Where it repeats nothing it follows no redirect either; an empty proxy is none of the environment.
                settings = Configuration(self.url, retries=False, proxy="", connection_pool_maxsize=_EXCHANGES_AT_ONCE)
                self._made = ApiClient(settings)
                if self._access.tls is not None:
                    self._made.rest_client.pool_manager.connection_pool_kw["ssl_context"] = self._access.tls
            return self._made

    def _opened(self, request: _Request, silence_s: float) -> BaseHTTPResponse:
        """The answer with its body unread. Raises Unanswered."""
        token = self._access.token()
        headers = {"Accept": JSON, "User-Agent": request.agent} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        if request.body is not None:
            headers["Content-Type"] = request.form
        url = self.url + request.path + (f"?{urlencode(request.params)}" if request.params else "")
        with _worded(self.url):
            sent = self._client().call_api(
                request.method, url, headers, request.body, _request_timeout=(self._timeout_s, silence_s)
            )
        return cast("BaseHTTPResponse", sent.response)

    def _exchange(self, request: _Request, most: int, within_s: float) -> Answer:
        until = time.monotonic() + within_s
        response = self._opened(request, within_s)
        data = bytearray()
        try:
            with _worded(self.url):
                while len(data) <= most and (part := response.read1(_PART_BYTES)):
                    data += part
                    if time.monotonic() > until:
                        raise TimeoutError
        finally:
            # What was read to its end goes back into the pool by itself.
            response.close()
        wait_s = seconds_of(response.headers.get("retry-after"))
        return Answer(response.status, bytes(data[:most]), len(data) <= most, wait_s)


async def lines_of(parts: AsyncGenerator[bytes], most: int) -> AsyncGenerator[bytes]:
    """The ended lines of a body, without what ended them. Raises Unanswered on a line of more than `most` bytes."""
    held = b""
    async for part in parts:
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            yield line
        if len(held) > most:
            raise Unanswered(f"a line is longer than {most} bytes")


class _Stream:
    """One body that is read part by part; whoever stops reading ends the read that is under way."""

    def __init__(self, response: BaseHTTPResponse, url: str, limit_s: float) -> None:
        self._response, self._url, self._until = response, url, time.monotonic() + limit_s
        self._read: Future[bytes] | None = None

    async def parts(self) -> AsyncGenerator[bytes]:
        while time.monotonic() < self._until:
            self._read = _STREAMS.submit(self._part)
            if not (part := await asyncio.wrap_future(self._read)):
                return
            yield part

    def _part(self) -> bytes:
        with _worded(self._url):
            return self._response.read1(_PART_BYTES)

    def end(self) -> None:
        if self._read is None or self._read.done():
            self._response.close()
            return
        # Its thread waits for the next byte, which is then the end; closing it meanwhile would wait for the thread.
        with suppress(Exception):
            self._response.shutdown()
        self._read.add_done_callback(lambda _: self._response.close())


def _close_opened(opening: Future[BaseHTTPResponse]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _in(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call)


@contextmanager
def _worded(url: str) -> Generator[None]:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    why = ""
    try:
        yield
    # Errors of the client hold the request, and with it the token: only their kind is kept.
    except ApiException as error:
        why = "its TLS certificate is not trusted" if "CERTIFICATE_VERIFY" in str(error) else "TLS failed"
    except (HTTPError, OSError) as error:
        why = type(error).__name__
    if why:
        raise Unanswered(f"{url} cannot be asked ({why})")
