"""Exchanges with HTTP servers: one deadline, a bounded answer, trusted certificates, no redirects and no proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx2

from fleet.web.answers import Unanswered
from fleet.web.trust import trust_of

_MAX_ERROR_BYTES = 64 << 10
_CONNECT_S = 10.0
# Nothing of the request can have left this process.
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    """The body, or its beginning: of an error at most 64 KiB."""
    is_whole: bool

    @property
    def is_success(self) -> bool:
        """Whether the server did what it was asked for."""
        return 200 <= self.status < 300


class HttpExchanges:
    """Asks servers. Connections are shared by the requests that are under way, and none outlives its event loop.

    Args:
        tls: whose certificates are trusted; the usual authorities when None.
        timeout_s: seconds for one whole exchange, however slowly the server sends; None where the caller ends it.
        uses_proxies: takes those of the environment. Default: none, as a token must reach its server alone.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, timeout_s: float | None, uses_proxies: bool = False
    ) -> None:
        self._tls, self._timeout_s, self._uses_proxies = tls, timeout_s, uses_proxies
        self._client: httpx2.AsyncClient | None = None
        self._users = 0

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        most: int,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = None,
        at: str | None = None,
    ) -> HttpAnswer:
        """The answer with at most so many bytes of its body. Raises Unanswered, which holds nothing of the request.

        Args:
            most: 0 leaves the body unread.
            at: the numeric address to connect to; name and certificate stay those of the URL.
        """
        sent = {**headers, "accept-encoding": "identity"}
        try:
            to, extensions = httpx2.URL(url), None
            if at is not None:
                sent["host"], extensions = to.netloc.decode(), {"sni_hostname": to.host}
                to = to.copy_with(host=at)
            async with (
                asyncio.timeout(self._timeout_s),
                self.connected() as client,
                client.stream(
                    method, to, headers=sent, params=params, content=content, json=json, extensions=extensions
                ) as response,
            ):
                limit = most if response.is_success else min(most, _MAX_ERROR_BYTES)
                data, is_whole = await _start_of(response.aiter_raw(), limit) if most else (b"", False)
                return HttpAnswer(response.status_code, response.headers, data, is_whole)
        except TimeoutError as error:
            failed = Unanswered(f"it did not answer in {self._timeout_s:g} s", kind=type(error).__name__)
        # Errors of the client hold the request, and with it what proves who asks: only their kind is kept.
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            kind, is_distrusted = type(error).__name__, _is_distrust(error)
            failed = Unanswered(
                "its TLS certificate is not trusted" if is_distrusted else f"it cannot be asked ({kind})",
                is_distrust=is_distrusted,
                kind=kind,
                was_sent=not isinstance(error, _NOT_SENT),
            )
        raise failed

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[httpx2.AsyncClient]:
        """Connections are kept from one request to the next for as long as this is open."""
        if self._client is None:
            self._client = httpx2.AsyncClient(
                verify=self._tls or _usual_trust(),
                trust_env=self._uses_proxies,
                timeout=httpx2.Timeout(self._timeout_s, connect=min(_CONNECT_S, self._timeout_s or _CONNECT_S)),
                follow_redirects=False,
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


@cache
def _usual_trust() -> ssl.SSLContext:
    # Loading the authorities takes longer than most exchanges.
    return trust_of(None)


async def _start_of(parts: AsyncIterable[bytes], most: int) -> tuple[bytes, bool]:
    """At most so many bytes of a body, and whether that is all of it."""
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > most:
            return bytes(data[:most]), False
    return bytes(data), True


def _is_distrust(error: BaseException) -> bool:
    """Whether the certificate of the server is what failed."""
    causes = (error, error.__cause__, error.__context__)
    return any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE_VERIFY" in str(error)
