"""One bounded HTTP exchange with a store of secrets: deadline, size, TLS, and no trace of tokens in errors."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx2

from fleet.kernel.errors import ConfigError
from fleet.secrets.providers.failures import as_mapping

_MAX_BODY_BYTES = 1_048_576
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: dict[str, Any] | None
    """The JSON object; None when the body is none."""


class Unanswered(Exception):  # noqa: N818 - a finding for the provider to word, never seen outside of it
    """No answer came; the text says why."""


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
        self._url = _checked(url)
        self._timeout_s = timeout_s
        self._tls = _tls(ca_file)

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
                return Answer(response.status_code, _object(data))


def _checked(url: str) -> str:
    parsed = httpx2.URL("")
    # An address that is none shows no more of itself than a wrong one: it may hold a password.
    with suppress(httpx2.InvalidURL, ValueError):
        parsed = httpx2.URL(url)
    is_safe = parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in _LOOPBACK)
    if not is_safe or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError(
            "the address of a secret store must be https://host[:port] without user, query or fragment; plain http is "
            "for this machine alone; mend config/secrets.yaml"
        )
    return url.rstrip("/")


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    if ca_file is None:
        return httpx2.create_ssl_context(trust_env=False)
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:
        raise ConfigError(f"cannot read the certificates {ca_file}: {error}", file=str(ca_file)) from error


def _kind(error: Exception) -> str:
    causes = [error, error.__cause__, error.__context__]
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "CERTIFICATE_VERIFY" in str(error):
        return "its TLS certificate is not trusted"
    return type(error).__name__


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return as_mapping(document)
