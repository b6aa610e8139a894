"""A stand-in of Vault's HTTP API, as far as KV version 2 and Kubernetes auth go (paths, codes and bodies of 1.17)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.support.http_stand_in import Reply, Request


@dataclass
class FakeVault:
    """State of one Vault; `answer` serves it."""

    mount: str = "secret"
    namespace: str | None = None
    tokens: set[str] = field(default_factory=set)
    """Tokens that are alive."""
    jwts: dict[str, str] = field(default_factory=dict)
    """Role of Kubernetes auth -> the pod token that may log in."""
    lease_s: int = 100
    versions: dict[str, list[dict[str, Any] | None]] = field(default_factory=dict)
    """Path -> values of version 1, 2, ...; None is a deleted version."""
    fault: Reply | None = None
    """Sent instead of every answer while it is set."""
    requests: list[Request] = field(default_factory=list)
    logins: int = 0

    def put(self, path: str, **values: Any) -> None:
        """The next version of the secret at this path."""
        self.versions.setdefault(path, []).append(values)

    def answer(self, request: Request) -> Reply:
        """As the real one answers."""
        self.requests.append(request)
        if self.fault is not None:
            return self.fault
        if request.headers.get("x-vault-request") != "true":
            return _errors(412, "required header missing")
        if request.headers.get("x-vault-namespace") != self.namespace:
            return _errors(403, "permission denied")
        if request.method == "POST" and request.path == "/v1/auth/kubernetes/login":
            return self._login(json.loads(request.body))
        if request.headers.get("x-vault-token") not in self.tokens:
            return _errors(403, "permission denied")
        prefix = f"/v1/{self.mount}/data/"
        if request.method != "GET" or not request.path.startswith(prefix):
            return _errors(404, f'no handler for route "{request.path}"')
        return self._read(request.path.removeprefix(prefix), request.query.get("version"))

    def _login(self, body: dict[str, str]) -> Reply:
        self.logins += 1
        if self.jwts.get(body["role"]) != body["jwt"]:
            return _errors(403, "permission denied")
        token = f"hvs.login{self.logins}"
        self.tokens.add(token)
        return Reply(document={"auth": {"client_token": token, "lease_duration": self.lease_s, "renewable": True}})

    def _read(self, path: str, wanted: str | None) -> Reply:
        versions = self.versions.get(path, [])
        number = int(wanted) if wanted else len(versions)
        if not 1 <= number <= len(versions):
            return Reply(404, {"errors": []})
        values = versions[number - 1]
        gone = "" if values is not None else "2026-01-02T03:04:05Z"
        metadata = {
            "version": number,
            "deletion_time": gone,
            "destroyed": False,
            "created_time": "2026-01-01T00:00:00Z",
        }
        document = {"request_id": "r", "lease_duration": 0, "data": {"data": values, "metadata": metadata}}
        return Reply(200 if values is not None else 404, document)


def _errors(status: int, message: str) -> Reply:
    return Reply(status, {"errors": [message]})
