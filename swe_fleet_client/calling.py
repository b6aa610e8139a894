"""How one request is sent: token, idempotency key, queued commands, and errors as they are told (AP-1..AP-7)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx2

__all__ = ["Calling", "FleetProblem"]

_POLL_S = 0.5


class FleetProblem(Exception):
    """The fleet refused a request, or could not be reached (status 0).

    Attributes:
        status: of HTTP.
        code: the stable name of the error.
        retry: `never`, `reload` or `later`.
        document: the whole problem document.
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status, self.document = status, dict(document)
        self.code, self.retry = str(document.get("code", "unknown")), str(document.get("retry", "never"))
        super().__init__(str(document.get("detail") or document.get("message") or f"status {status}"))


class Calling:
    """A connection to one fleet.

    Args:
        url: of the front, as `fleet up` prints it.
        token: the bearer token; `fleet up` prints where it lies.
        wait_s: how long a command that was queued is waited for.
        role: acts in this one of the caller's roles.
    """

    def __init__(
        self, url: str, token: str, *, wait_s: float = 60.0, role: str | None = None, timeout_s: float = 70.0
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} | ({"X-Fleet-Role": role} if role else {})
        # A redirect would take the token to whoever it names.
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout_s, follow_redirects=False)
        self._wait_s = wait_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No request can be sent any more."""
        self._http.close()

    def watch(self, story_id: str, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """Envelopes of a story from a version on as they are recorded, for ever, without gap or repeat.

        A lost line is taken up again where it was; FleetProblem when the fleet refuses the stream.
        """
        while True:
            headers = {"Last-Event-ID": f"story:{story_id}/{after}"} if after else {}
            try:
                for envelope in self._stream(story_id, headers):
                    after = int(envelope["version"])
                    yield envelope
            except httpx2.TransportError:
                time.sleep(_POLL_S)

    def _stream(self, story_id: str, headers: dict[str, str]) -> Iterator[dict[str, Any]]:
        asked = {"params": {"storyId": story_id}, "headers": headers, "timeout": httpx2.Timeout(60.0)}
        with self._http.stream("GET", "/api/events/stream", **asked) as response:  # pyright: ignore[reportArgumentType]
            if response.is_error:
                response.read()
                raise _problem(response)
            for line in response.iter_lines():
                if line == "event: overflow":
                    return  # too slow for what is being recorded: the next line goes on from the last event
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

    @staticmethod
    def _part(value: str | int) -> str:
        """A piece of a path: nothing of it can lead anywhere else. Step ids hold slashes, and stay one piece."""
        return quote(str(value), safe="")

    def _json(self, method: str, path: str, **sent: Any) -> Any:
        response = self._asked(method, path, **sent)
        if response.status_code == 204:
            return None
        answer: Any = response.json()
        is_queued = response.status_code == 202 and isinstance(answer, dict) and "status_url" in answer
        return self._outcome(answer["status_url"]) if is_queued else answer

    def _bytes(self, method: str, path: str, **sent: Any) -> bytes:
        return self._asked(method, path, **sent).content

    def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        key: str | None = None,
        if_match: str | None = None,
    ) -> httpx2.Response:
        headers = {"Idempotency-Key": key or secrets.token_hex(16)} if method != "GET" else {}
        if if_match is not None:
            headers["If-Match"] = if_match
        kept = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            response = self._http.request(method, path, params=kept, json=body, headers=headers)
        except httpx2.TransportError as error:
            said = {"code": "unreachable", "retry": "later", "detail": f"the fleet does not answer: {error}"}
            raise FleetProblem(0, said) from error
        if not response.is_success:
            raise _problem(response)
        return response

    def _outcome(self, status_url: str) -> Any:
        """The result of a queued command (AP-4); its problem is raised."""
        until = time.monotonic() + self._wait_s
        while True:
            found = self._asked("GET", status_url).json()
            if found["status"] == "done":
                return found["result"]
            if found["status"] == "refused":
                raise FleetProblem(409, found["problem"])
            if time.monotonic() >= until:
                raise FleetProblem(202, {"code": "pending", "retry": "later", "detail": f"still queued: {status_url}"})
            time.sleep(_POLL_S)


def _problem(response: httpx2.Response) -> FleetProblem:
    try:
        document: Any = response.json()
    except ValueError:
        document = None
    return FleetProblem(response.status_code, document if isinstance(document, dict) else {})  # pyright: ignore[reportUnknownArgumentType]
