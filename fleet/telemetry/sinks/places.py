"""Places that take spans in the JSON encoding of OTLP: a collector over HTTP, and a file with one document a line."""

from __future__ import annotations

import http.client
import json
import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

_TIMEOUT_S = 3.0
_PATH = "/v1/traces"


class SpansRefused(Exception):
    """The place did not take the spans; `reason` is one of a few words. Never leaves this package."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Place(Protocol):
    """Takes one document at a time, from one thread."""

    def put(self, document: Mapping[str, Any]) -> None:
        """The document is there. SpansRefused when it is not."""
        ...


class HttpPlace:
    """A collector at `<endpoint>/v1/traces` (OTLP over HTTP, `http/json`).

    Args:
        endpoint: as OTEL_EXPORTER_OTLP_ENDPOINT has it, `http://host:4318`.
        headers: sent along, such as a key of the collector.
    """

    def __init__(self, endpoint: str, *, headers: Mapping[str, str], timeout_s: float = _TIMEOUT_S) -> None:
        self._url = urllib.parse.urlsplit(endpoint)
        self._headers = {**headers, "Content-Type": "application/json"}
        self._timeout_s = timeout_s

    def put(self, document: Mapping[str, Any]) -> None:
        """See `Place.put`. One connection each: spans come in batches, seconds apart."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=self._timeout_s)
        try:
            path = self._url.path.rstrip("/") + _PATH
            connection.request("POST", path, body=json.dumps(document).encode(), headers=self._headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise SpansRefused("unreachable") from error
        finally:
            connection.close()
        if status >= 300:
            raise SpansRefused("refused")


class FilePlace:
    """A file of this machine that any number of processes append to; readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, document: Mapping[str, Any]) -> None:
        """See `Place.put`. One write for each line, so that lines of several processes do not mix."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(number, json.dumps(document).encode() + b"\n")
            finally:
                os.close(number)
        except OSError as error:
            raise SpansRefused("unwritable") from error
