"""Secrets as Kubernetes shows them: a stand-in of the API server, and the volume that the kubelet writes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.http_stand_in import Reply, Request


@dataclass
class FakeApiServer:
    """Objects of kind Secret; `answer` serves them."""

    tokens: set[str] = field(default_factory=set)
    """Tokens of accounts that may `get` them."""
    strangers: set[str] = field(default_factory=set)
    """Tokens of accounts that may not."""
    objects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """`namespace/name` -> data."""
    fault: Reply | None = None
    requests: list[Request] = field(default_factory=list)
    changes: int = 100

    def put(self, place: str, **data: bytes) -> None:
        """The object's data from now on."""
        self.changes += 1
        self.objects[place] = data

    def answer(self, request: Request) -> Reply:
        """As the real one answers."""
        self.requests.append(request)
        if self.fault is not None:
            return self.fault
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self.strangers:
            return _status(403, "Forbidden")
        if token not in self.tokens:
            return _status(401, "Unauthorized")
        parts = request.path.split("/")
        if parts[:4] != ["", "api", "v1", "namespaces"] or parts[5:6] != ["secrets"] or len(parts) != 7:
            return _status(404, "NotFound")
        data = self.objects.get(f"{parts[4]}/{parts[6]}")
        if data is None:
            return _status(404, "NotFound")
        metadata = {"name": parts[6], "namespace": parts[4], "resourceVersion": str(self.changes)}
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        # An object without any key comes without `data`.
        return Reply(
            document={"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "type": "Opaque"}
            | ({"data": encoded} if encoded else {})
        )


def write_volume(mount: Path, values: Mapping[str, bytes], *, version: str) -> None:
    """The content of a Secret volume, swapped in by one rename as the kubelet does it."""
    mount.mkdir(exist_ok=True)
    folder = mount / f"..{version}"
    folder.mkdir()
    for key, value in values.items():
        (folder / key).write_bytes(value)
        (folder / key).chmod(0o644)
        if not (mount / key).is_symlink():
            (mount / key).symlink_to(f"..data/{key}")
    (mount / "..data_tmp").symlink_to(folder.name)
    (mount / "..data_tmp").rename(mount / "..data")


def _status(code: int, reason: str) -> Reply:
    return Reply(code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code})
