"""Exchanges with HTTP servers: one deadline, a bounded answer, trusted certificates, no redirects and no proxies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from fleet.web.answers import Unanswered

_MAX_ERROR_BYTES = 64 << 10


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
        tls: whose certificates are trusted.
        timeout_s: seconds for one whole exchange, however slowly the server sends.
    """

    def __init__(self, tls: ssl.SSLContext, *, timeout_s: float) -> None:
        self._tls, self._timeout_s = tls, timeout_s
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
    ) -> HttpAnswer:
        """The answer with at most so many bytes of its body. Raises Unanswered, which holds nothing of the request."""
        sent = {**headers, "accept-encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._shared() as client,
                client.stream(method, url, headers=sent, params=params, content=content, json=json) as response,
            ):
                limit = most if response.is_success else min(most, _MAX_ERROR_BYTES)
                data, is_whole = await start_of(response.aiter_raw(), limit)
                return HttpAnswer(response.status_code, response.headers, data, is_whole)
        except TimeoutError:
            failed = Unanswered(f"it did not answer in {self._timeout_s:g} s")
        # Errors of the client hold the request, and with it what proves who asks: only their kind is kept.
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            failed = Unanswered(
                "its TLS certificate is not trusted"
                if is_distrust(error)
                else f"it cannot be asked ({type(error).__name__})",
                is_distrust=is_distrust(error),
            )
        raise failed

    @asynccontextmanager
    async def _shared(self) -> AsyncGenerator[httpx2.AsyncClient]:
        if self._client is None:
            self._client = httpx2.AsyncClient(
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


async def start_of(parts: AsyncIterable[bytes], most: int) -> tuple[bytes, bool]:
    """At most so many bytes of a body, and whether that is all of it."""
    data = bytearray()
    async for part in parts:
        data += part
        if len(data) > most:
            return bytes(data[:most]), False
    return bytes(data), True


def is_distrust(error: BaseException) -> bool:
    """Whether the certificate of the server is what failed."""
    causes = (error, error.__cause__, error.__context__)
    return any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE_VERIFY" in str(error)
