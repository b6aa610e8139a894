"""One bounded HTTP exchange with a store of secrets: deadline, size, TLS, and no trace of tokens in errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx2

from fleet.kernel.errors import ConfigError
from fleet.web.answers import Unanswered, document_of
from fleet.web.trust import safe_address, trust_of

_MAX_BODY_BYTES = 1_048_576


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: dict[str, Any] | None
    """The JSON object; None when the body is none."""


class SecretHttp:
    """Asks one server. TLS certificates are always checked; redirects and proxies of the environment are not used.

    Args:
        url: `https://host[:port]`; plain http only to this machine.
        ca_file: certificates of the authorities to trust instead of the usual ones.
        timeout_s: seconds for one whole exchange, however slowly the server sends.

    Raises:
        ConfigError: the address is no such URL, or the certificates cannot be read.
    """

    def __init__(self, url: str, *, ca_file: Path | None, timeout_s: float) -> None:
        checked_address(url)
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._tls = trust_of(ca_file)

    async def ask(
        self,
        method: Literal["GET", "POST"],
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> Answer:
        """The answer, whatever its status. Raises Unanswered."""
        why = ""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(method, path, headers=headers, params=params, body=body)
        except TimeoutError:
            why = f"{self._url} did not answer in {self._timeout_s:g} s"
        # Errors of the client hold the request, and with it the token: only their kind is kept.
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            why = f"{self._url} cannot be asked ({_kind(error)})"
        raise Unanswered(why)

    async def _exchange(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        body: Mapping[str, str] | None,
    ) -> Answer:
        # A client per exchange: values are kept for a while, so exchanges are rare, and none outlives its event loop.
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=self._timeout_s) as client:
            sent = {**headers, "Accept": "application/json"}
            async with client.stream(method, self._url + path, headers=sent, params=params, json=body) as response:
                data = b""
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > _MAX_BODY_BYTES:
                        return Answer(response.status_code, None)
                return Answer(response.status_code, document_of(data))


def checked_address(url: str) -> httpx2.URL:
    """The address of a store of secrets. Raises ConfigError, which shows nothing of it: it may hold a password."""
    if (found := safe_address(url)) is None:
        raise ConfigError(
            "the address of a secret store must be https://host[:port] without user, query or fragment; plain http is "
            "for this machine alone; mend config/secrets.yaml"
        )
    return found


def _kind(error: Exception) -> str:
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE_VERIFY" in str(error):
        return "its TLS certificate is not trusted"
    return type(error).__name__
