"""One bounded HTTP exchange with a store of secrets: deadline, size, TLS, and no trace of tokens in errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx2

from fleet.kernel.errors import ConfigError
from fleet.web.answers import Unanswered, document_of
from fleet.web.http import HttpExchanges
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
        self._http = HttpExchanges(trust_of(ca_file), timeout_s=timeout_s)

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
        sent = {**headers, "Accept": "application/json"}
        try:
            found = await self._http.ask(
                method, self._url + path, headers=sent, params=params, json=body, most=_MAX_BODY_BYTES
            )
        except Unanswered as error:
            raise Unanswered(f"{self._url}: {error}") from None
        return Answer(found.status, document_of(found.data) if found.is_whole else None)


def checked_address(url: str) -> httpx2.URL:
    """The address of a store of secrets. Raises ConfigError, which shows nothing of it: it may hold a password."""
    if (found := safe_address(url)) is None:
        raise ConfigError(
            "the address of a secret store must be https://host[:port] without user, query or fragment; plain http is "
            "for this machine alone; mend config/secrets.yaml"
        )
    return found
