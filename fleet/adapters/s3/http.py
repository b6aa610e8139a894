"""One signed exchange with an S3-compatible store: TLS, deadline, size, and no trace of keys in errors."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import httpx

from fleet.adapters.s3.signing import S3Keys, signed_headers
from fleet.errors import ConfigError

__all__ = ["Answer", "S3Http", "S3Place", "TooLarge", "Unanswered"]

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_HOST = re.compile(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+")
_CODE = re.compile(rb"<Code>\s*([A-Za-z0-9.]{1,80})\s*</Code>")
_MAX_ERROR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class S3Place:
    """Where blobs lie in an S3-compatible store."""

    url: str
    """Root of the store: `https://host[:port]`."""
    bucket: str
    region: str = "us-east-1"
    """What the signature names; stores without regions take any."""
    prefix: str = ""
    """What all names of blobs begin with; empty or ending in `/`."""
    addressing: Literal["path", "host"] = "path"
    """Whether the bucket stands in the path or in front of the host."""
    allow_http: bool = False
    """Without TLS to another machine; to this one it is always allowed."""
    ca_file: Path | None = None
    """Certificates of the authorities to trust instead of the usual ones."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    data: bytes
    """The body; of an error at most its first 64 KiB."""
    code: str
    """The store's own word for the error; empty when it said none."""
    wait_s: float | None
    """How long the store asks us to wait, if it does."""
    region: str | None
    """Where the store says that the bucket is."""

    @property
    def said(self) -> str:
        """Status and code for messages."""
        return f"{self.status} {self.code}".rstrip()


class Unanswered(Exception):  # noqa: N818 - a finding for the store to word, never seen outside of it
    """No answer came; the text says why."""


class TooLarge(Unanswered):
    """The answer is larger than any blob."""


class S3Http:
    """Asks one bucket. Certificates are checked; redirects, proxies and keys of the environment are not used.

    Connections are shared by the requests that are under way at one time and closed after the last of them, so that
    none outlives its event loop.

    Args:
        place: where the bucket is.
        timeout_s: for one whole exchange, however slowly the store sends.
        max_bytes: of an answer.

    Raises:
        ConfigError: the address is no such URL, or the certificates cannot be read.
    """

    def __init__(self, place: S3Place, *, timeout_s: float, max_bytes: int) -> None:
        url = _checked(place)
        host = url.netloc.decode()
        self._is_in_path = place.addressing == "path"
        self._host = host if self._is_in_path else f"{place.bucket}.{host}"
        self._root = f"{url.scheme}://{self._host}"
        self._place, self._timeout_s, self._max_bytes = place, timeout_s, max_bytes
        self._tls = _tls(place.ca_file)
        self._client: httpx.AsyncClient | None = None
        self._users = 0

    @property
    def shown(self) -> str:
        """The bucket's address for messages."""
        return f"{self._root}/{self._place.bucket}" if self._is_in_path else self._root

    async def ask(
        self, method: str, name: str, *, body: bytes, sha256: str, headers: Mapping[str, str], keys: S3Keys, now_ms: int
    ) -> Answer:
        """The answer, whatever its status. Raises Unanswered."""
        path = f"/{self._place.bucket}/{name}" if self._is_in_path else f"/{name}"
        signed = signed_headers(
            method,
            path,
            {"host": self._host, **headers},
            payload_sha256=sha256,
            keys=keys,
            region=self._place.region,
            now_ms=now_ms,
        )
        # Not signed, since proxies rewrite it: a compressed answer would not be the bytes of the blob.
        signed["accept-encoding"] = "identity"
        why = ""
        try:
            async with asyncio.timeout(self._timeout_s), self._shared() as client:
                return await self._exchange(client, method, self._root + path, body, signed)
        except TimeoutError:
            why = f"it did not answer in {self._timeout_s:g} s"
        # Errors of the client hold the request, and with it its signature: only their kind is kept.
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            why = _kind(error)
        raise Unanswered(why)

    async def _exchange(
        self, client: httpx.AsyncClient, method: str, url: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        async with client.stream(method, url, headers=headers, content=body or None) as response:
            limit = self._max_bytes if response.is_success else _MAX_ERROR_BYTES
            data = bytearray()
            async for piece in response.aiter_raw():
                data += piece
                if len(data) > limit and response.is_success:
                    raise TooLarge(f"it answered with more than {limit} bytes")
                if len(data) > limit:
                    break
            return _answer(response, bytes(data))

    @asynccontextmanager
    async def _shared(self) -> AsyncGenerator[httpx.AsyncClient]:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._tls, trust_env=False, timeout=self._timeout_s, follow_redirects=False
            )
        client = self._client
        self._users += 1
        try:
            yield client
        finally:
            self._users -= 1
            if self._users == 0:
                self._client = None
                await client.aclose()


def _answer(response: httpx.Response, data: bytes) -> Answer:
    found = None if response.is_success else _CODE.search(data)
    wait = response.headers.get("retry-after", "")
    return Answer(
        response.status_code,
        data,
        found.group(1).decode() if found else "",
        float(wait) if re.fullmatch(r"[0-9]{1,4}", wait) else None,
        response.headers.get("x-amz-bucket-region"),
    )


def _checked(place: S3Place) -> httpx.URL:
    try:
        url = httpx.URL(place.url)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    is_safe = url.scheme == "https" or (url.scheme == "http" and (place.allow_http or url.host in _LOOPBACK))
    if not is_safe or not _HOST.fullmatch(url.host) or url.userinfo or url.query or url.fragment or url.path != "/":
        raise ConfigError(
            "blobs.url must be https://host[:port] without path, user, query or fragment; plain http is for this "
            "machine, or for others with blobs.allow_http; mend fleet.yaml",
            key="blobs.url",
        )
    return url


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(
            f"cannot read the certificates {ca_file} (blobs.ca_file): {error}", file=str(ca_file), key="blobs.ca_file"
        ) from error


def _kind(error: Exception) -> str:
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE_VERIFY" in str(error):
        return "its TLS certificate is not trusted (blobs.ca_file names the authority)"
    return f"it cannot be asked ({type(error).__name__})"
