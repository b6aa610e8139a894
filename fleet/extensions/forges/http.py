"""Requests to the REST interface of a forge: token, limits, redirects and pages are seen to here, once for all."""

from __future__ import annotations

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
from fleet.web.answers import Unanswered
from fleet.web.http import HttpAnswer, HttpExchanges
from fleet.web.trust import safe_address

M = TypeVar("M", bound=BaseModel)
TokenSource = Callable[[], str | Awaitable[str]]
"""Returns the current token, at once or when awaited; asked before each request, so that a token may rotate."""

_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")
_MAX_ANSWER = 16 << 20
_MAX_HOPS = 3
_MAX_PAGES = 400
_PER_PAGE = 100
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NEXT_PAGE = re.compile(r'rel="?next\b')


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
    ) -> None:
        self._root = _checked_root(url, forge, allow_http=allow_http)
        self._forge, self._token, self._headers = forge, token, headers
        self._http = HttpExchanges(timeout_s=timeout_s)

    def __repr__(self) -> str:
        return f"ForgeHttp({self._forge} at {self._root})"

    async def get(self, *path: str | int, **query: str | int) -> Answer:
        """The answer to a read."""
        return await self._ask("GET", self._url(path, query), None)

    async def write(self, method: str, *path: str | int, body: Mapping[str, Any]) -> Answer:
        """The answer to a write; its body is sent as JSON."""
        return await self._ask(method, self._url(path, {}), json.dumps(body).encode())

    async def pages(self, model: type[M], *path: str | int, **query: str | int) -> list[M]:
        """All entries of a list, however many pages it has (at most 400, then ToolFailed)."""
        entries: list[M] = []
        async with self._http.connected():
            for page in range(1, _MAX_PAGES + 1):
                # `limit` is Gitea's word for it; the others ignore it.
                answer = await self.get(*path, **query, per_page=_PER_PAGE, limit=_PER_PAGE, page=page)
                entries += answer.as_list(model)
                if not answer.has_next:
                    return entries
        raise ToolFailed(f"{self._forge} lists more than {_MAX_PAGES} pages: too many to search", forge=self._forge)

    def _url(self, path: tuple[str | int, ...], query: Mapping[str, str | int]) -> httpx2.URL:
        parts = [quote(str(part), safe="") for part in path]
        if any(part in ("", ".", "..") for part in parts):
            raise InvalidInput(f"{'/'.join(map(str, path))[:200]!r} cannot be part of an address", path=str(path)[:200])
        url = httpx2.URL(f"{self._root}/{'/'.join(parts)}")
        return url.copy_merge_params(query) if query else url

    async def _ask(self, method: str, url: httpx2.URL, content: bytes | None) -> Answer:
        token = await self._current()
        response, asked = await self._hops(method, url, content, token)
        if response.status == 401 and (fresh := await self._current()) != token:
            response, asked = await self._hops(method, url, content, fresh)
        if not response.is_success:
            raise refusal(asked, response)
        has_next = _NEXT_PAGE.search(response.headers.get("link", "")) is not None
        return Answer(asked, response.data, has_next=has_next)

    async def _hops(self, method: str, url: httpx2.URL, content: bytes | None, token: str) -> tuple[HttpAnswer, Asked]:
        for _ in range(_MAX_HOPS):
            asked = Asked(self._forge, method, str(url.copy_with(query=None)), token)
            response = await self._once(asked, url, content)
            if response.status not in _REDIRECTS or "location" not in response.headers:
                return response, asked
            url = _next_hop(asked, url, response)
        raise ToolFailed(f"{self._forge} at {self._root} redirects in a circle: correct its address", forge=self._forge)

    async def _once(self, asked: Asked, url: httpx2.URL, content: bytes | None) -> HttpAnswer:
        headers = dict(self._headers(asked.token))
        if content is not None:
            headers["content-type"] = "application/json"
        try:
            response = await self._http.ask(asked.method, str(url), headers=headers, content=content, most=_MAX_ANSWER)
        except Unanswered as error:
            raise self._unanswered(asked, error) from error
        if response.is_success and not response.is_whole:
            raise asked.lost("answered with more than 16 MiB", reason="too large")
        return response

    def _unanswered(self, asked: Asked, error: Unanswered) -> FleetError:
        if error.was_sent:
            return asked.lost(f"did not answer ({error.kind})", reason=error.kind)
        return StoreUnavailable(
            f"{self._forge} at {self._root} cannot be reached ({error.kind}): check the address and the network",
            forge=self._forge,
            url=asked.url,
            reason=error.kind,
        )

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


def _next_hop(asked: Asked, url: httpx2.URL, response: HttpAnswer) -> httpx2.URL:
    """Where a redirect leads, when it stays at the same origin and does not turn a write into a read."""
    try:
        to = url.join(response.headers["location"])
    except (httpx2.InvalidURL, ValueError):
        to = httpx2.URL("")
    same = (to.scheme, to.host, to.port) == (url.scheme, url.host, url.port)
    if not same or not (asked.is_read or response.status in (307, 308)):
        raise ToolFailed(
            f"{asked.forge} redirects {asked.method} {asked.url} elsewhere, and tokens are not sent there: "
            "correct the address of the forge or the name of the repository",
            forge=asked.forge,
            url=asked.url,
            status=response.status,
        )
    return to
