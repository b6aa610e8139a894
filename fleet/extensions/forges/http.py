"""Requests to the REST interface of a forge: token, limits, redirects and pages are seen to here, once for all."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel

from fleet.extensions.forges.http_answers import Answer, Asked, refusal
from fleet.kernel.errors import ConfigError, FleetError, InvalidInput, StoreUnavailable, ToolFailed
from fleet.web.http import start_of
from fleet.web.trust import safe_address

M = TypeVar("M", bound=BaseModel)
TokenSource = Callable[[], str | Awaitable[str]]
"""Returns the current token, at once or when awaited; asked before each request, so that a token may rotate."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_MAX_ANSWER = 16 << 20
_MAX_HOPS = 3
_MAX_PAGES = 400
_PER_PAGE = 100
# The request was never sent, so nothing can have been written.
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class ForgeHttp:
    """One forge's REST interface.

    Neither environment variables nor `.netrc` are looked at. A redirect is followed on the same scheme, host and port
    only. An answer over 16 MiB is refused.

    Args:
        url: root of the interface; https, or http on loopback or with `allow_http`.
        forge: its name in errors.
        token: see TokenSource.
        headers: what each request carries, the token included.
        timeout_s: for one request with all of its answer.
        transport: how requests leave this process (for an egress proxy), that of httpx2 when None.

    Raises:
        ConfigError: the address is of the wrong form.
    """

    def __init__(
        self,
        url: str,
        *,
        forge: str,
        token: TokenSource,
        headers: Callable[[str], Mapping[str, str]],
        timeout_s: float = 30.0,
        allow_http: bool = False,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._root = _checked_root(url, forge, allow_http=allow_http)
        self._forge, self._token, self._headers, self._timeout_s = forge, token, headers, timeout_s
        self._client = httpx2.AsyncClient(
            transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False
        )

    def __repr__(self) -> str:
        return f"ForgeHttp({self._forge} at {self._root})"

    async def close(self) -> None:
        """The connections are closed."""
        await self._client.aclose()

    async def get(self, *path: str | int, **query: str | int) -> Answer:
        """The answer to a read."""
        return await self._ask("GET", self._url(path, query), None)

    async def write(self, method: str, *path: str | int, body: Mapping[str, Any]) -> Answer:
        """The answer to a write; its body is sent as JSON."""
        return await self._ask(method, self._url(path, {}), json.dumps(body).encode())

    async def pages(self, model: type[M], *path: str | int, **query: str | int) -> list[M]:
        """All entries of a list, however many pages it has (at most 400, then ToolFailed)."""
        found: list[M] = []
        for page in range(1, _MAX_PAGES + 1):
            # `limit` is Gitea's word for it; the others ignore it.
            answer = await self.get(*path, **query, per_page=_PER_PAGE, limit=_PER_PAGE, page=page)
            found += answer.as_list(model)
            if not answer.has_next:
                return found
        raise ToolFailed(f"{self._forge} lists more than {_MAX_PAGES} pages: too many to search", forge=self._forge)

    def _url(self, path: tuple[str | int, ...], query: Mapping[str, str | int]) -> httpx2.URL:
        parts = [quote(str(part), safe="") for part in path]
        if any(part in ("", ".", "..") for part in parts):
            raise InvalidInput(f"{'/'.join(map(str, path))[:200]!r} cannot be part of an address", path=str(path)[:200])
        url = httpx2.URL(f"{self._root}/{'/'.join(parts)}")
        return url.copy_merge_params(query) if query else url

    async def _ask(self, method: str, url: httpx2.URL, content: bytes | None) -> Answer:
        token = await self._current()
        response, data, asked = await self._hops(method, url, content, token)
        if response.status_code == 401 and (fresh := await self._current()) != token:
            response, data, asked = await self._hops(method, url, content, fresh)
        if response.status_code >= 300:
            raise refusal(asked, response, data)
        return Answer(asked, data, has_next="next" in response.links)

    async def _hops(
        self, method: str, url: httpx2.URL, content: bytes | None, token: str
    ) -> tuple[httpx2.Response, bytes, Asked]:
        for _ in range(_MAX_HOPS):
            asked = Asked(self._forge, method, str(url.copy_with(query=None)), token)
            response, data = await self._once(asked, url, content)
            if not response.has_redirect_location:
                return response, data, asked
            url = _next_hop(asked, url, response)
        raise ToolFailed(f"{self._forge} at {self._root} redirects in a circle: correct its address", forge=self._forge)

    async def _once(self, asked: Asked, url: httpx2.URL, content: bytes | None) -> tuple[httpx2.Response, bytes]:
        failed: FleetError
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._exchange(asked, url, content)
        except _NOT_SENT as error:
            why = type(error).__name__
            failed = StoreUnavailable(
                f"{self._forge} at {self._root} cannot be reached ({why}): check the address and the network",
                forge=self._forge,
                url=asked.url,
                reason=why,
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            failed = asked.lost(f"did not answer ({type(error).__name__})", reason=type(error).__name__)
        # Outside of the handler: the driver's error holds the request and so the token.
        raise failed

    async def _exchange(self, asked: Asked, url: httpx2.URL, content: bytes | None) -> tuple[httpx2.Response, bytes]:
        headers = dict(self._headers(asked.token))
        if content is not None:
            headers["content-type"] = "application/json"
        async with self._client.stream(asked.method, url, headers=headers, content=content) as response:
            data, is_whole = await start_of(response.aiter_bytes(), _MAX_ANSWER)
            if not is_whole:
                raise asked.lost("answered with more than 16 MiB", reason="too large")
            return response, data

    async def _current(self) -> str:
        found = self._token()
        token = await found if inspect.isawaitable(found) else found
        if not _TOKEN.fullmatch(token):
            raise ToolFailed(
                f"the token for {self._forge} is empty or holds characters that no token has: store a valid one",
                forge=self._forge,
            )
        return token


def _checked_root(url: str, forge: str, *, allow_http: bool) -> str:
    found = safe_address(url, allow_http=allow_http)
    if found is None:
        raise ConfigError(
            f"{forge}: its address is none of a forge: give https://host/path without user, query and fragment (http "
            "only on this machine)",
            forge=forge,
        )
    return str(found).rstrip("/")


def _next_hop(asked: Asked, url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    """Where a redirect leads, when it stays at the same origin and does not turn a write into a read."""
    try:
        to = url.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError):
        to = httpx2.URL("")
    same = (to.scheme, to.host, to.port) == (url.scheme, url.host, url.port)
    if not same or not (asked.is_read or response.status_code in (307, 308)):
        raise ToolFailed(
            f"{asked.forge} redirects {asked.method} {asked.url} elsewhere, and tokens are not sent there: "
            "correct the address of the forge or the name of the repository",
            forge=asked.forge,
            url=asked.url,
            status=response.status_code,
        )
    return to
