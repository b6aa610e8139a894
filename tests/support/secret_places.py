"""One place per secret provider: where the test puts values in, takes them away, and breaks things."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Protocol

from fleet.extensions.stores.kubernetes_secrets import (
    KubernetesKey,
    KubernetesSecrets,
    MountedSecrets,
    secrets_client,
)
from fleet.extensions.stores.secrets_http import SecretHttp
from fleet.extensions.stores.vault_secrets import KubernetesLogin, TokenFile, VaultKey, VaultSecrets
from fleet.kernel.clock import MemoryClock
from fleet.kernel.errors import FleetError, PolicyDenied, StoreUnavailable
from fleet.secrets.memory import MemorySecrets
from fleet.secrets.port import SecretProvider
from fleet.secrets.providers.environment import EnvironmentSecrets, variable_of
from fleet.secrets.providers.file import FileSecrets
from tests.support.http_stand_in import Reply, serving_http
from tests.support.kubernetes_secrets import FakeApiServer, write_volume
from tests.support.vault_server import FakeVault

LABEL = "place"
TTL_S = 30
NAMES = frozenset({"deploy-token", "other", "never-stored"})
PLACES = ("memory", "folder", "document", "environment", "mount", "kubernetes", "vault-token", "vault-login")
GUARDED = tuple(place for place in PLACES if place != "environment")
"""Places that can refuse, or fail to answer."""


class SecretPlace(Protocol):
    """What the suite does to a source behind the provider's back."""

    provider: SecretProvider

    def put(self, name: str, text: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def refuse(self) -> None: ...
    def fail(self) -> None: ...


def leaks(error: BaseException, value: str) -> list[str]:
    """Where an error, or one that hangs on it, holds the value: in its text, its attributes, or what pickle takes."""
    found: list[str] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None:
            continue
        shown = f"{current!r} {current} {getattr(current, '__dict__', {})!r}"
        state = [getattr(current, name, None) for name in ("args", "doc", "object", "request", "response")]
        if value in shown or value in repr(state):
            found.append(type(current).__name__)
        if isinstance(current, FleetError) and value in repr(current.__reduce__()):
            found.append(f"pickle of {type(current).__name__}")
        waiting += [current.__cause__, current.__context__]
    return found


def secret_file(path: Path, text: str, *, mode: int = 0o600) -> Path:
    """A file that its owner alone may read, put there by a rename."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.chmod(mode)
    return fresh.rename(path)


@dataclass
class MemoryPlace:
    provider: MemorySecrets = field(default_factory=lambda: MemorySecrets(LABEL, ttl_s=TTL_S))

    def put(self, name: str, text: str) -> None:
        self.provider.put(name, text)

    def remove(self, name: str) -> None:
        self.provider.remove(name)

    def refuse(self) -> None:
        self.provider.failure = PolicyDenied("refused")

    def fail(self) -> None:
        self.provider.failure = StoreUnavailable("down")


class FolderPlace:
    def __init__(self, root: Path) -> None:
        self._folder = root / "secrets"
        self._folder.mkdir(mode=0o700)
        self.provider = FileSecrets(LABEL, self._folder, NAMES, ttl_s=TTL_S)

    def put(self, name: str, text: str) -> None:
        secret_file(self._folder / name, text)

    def remove(self, name: str) -> None:
        (self._folder / name).unlink()

    def refuse(self) -> None:
        self._folder.chmod(0o755)

    def fail(self) -> None:
        self.provider = FileSecrets(LABEL, self._folder / "deploy-token" / "x", NAMES, ttl_s=TTL_S)


class DocumentPlace:
    def __init__(self, root: Path) -> None:
        self._path = root / "secrets.json"
        self._values: dict[str, str] = {}
        self._write()
        self.provider = FileSecrets(LABEL, self._path, NAMES, ttl_s=TTL_S)

    def _write(self) -> None:
        secret_file(self._path, json.dumps(self._values))

    def put(self, name: str, text: str) -> None:
        self._values[name] = text
        self._write()

    def remove(self, name: str) -> None:
        del self._values[name]
        self._write()

    def refuse(self) -> None:
        self._path.chmod(0o640)

    def fail(self) -> None:
        secret_file(self._path, json.dumps(self._values)[:-1])


class EnvironmentPlace:
    def __init__(self) -> None:
        self._environ: dict[str, str] = {}
        self.provider = EnvironmentSecrets(LABEL, self._environ, prefix="CI_SECRET_", names=NAMES, ttl_s=TTL_S)

    def put(self, name: str, text: str) -> None:
        self._environ[variable_of(name, prefix="CI_SECRET_")] = text

    def remove(self, name: str) -> None:
        del self._environ[variable_of(name, prefix="CI_SECRET_")]

    def refuse(self) -> None:
        raise NotImplementedError

    def fail(self) -> None:
        raise NotImplementedError


class MountPlace:
    def __init__(self, root: Path) -> None:
        self._mount = root / "mount"
        self._values: dict[str, bytes] = {}
        self._numbers = count(1)
        self._write()
        self.provider = MountedSecrets(LABEL, self._mount, NAMES, ttl_s=TTL_S)

    def _write(self) -> None:
        write_volume(self._mount, self._values, version=f"2026_01_01.{next(self._numbers)}")

    def put(self, name: str, text: str) -> None:
        self._values[name] = text.encode()
        self._write()

    def remove(self, name: str) -> None:
        del self._values[name]
        self._write()

    def refuse(self) -> None:
        for path in self._mount.glob("..2026*/*"):
            path.chmod(0o666)

    def fail(self) -> None:
        self.provider = MountedSecrets(LABEL, self._mount / "deploy-token" / "x", NAMES, ttl_s=TTL_S)


class KubernetesPlace:
    def __init__(self, root: Path, api: FakeApiServer, url: str) -> None:
        token = root / "token"
        token.write_text("pod-token\n")
        api.tokens.add("pod-token")
        self.api = api
        self.provider = KubernetesSecrets(
            LABEL,
            secrets_client(url, token_file=token, ca_file=None, timeout_s=60),
            namespace="fleet",
            keys={name: KubernetesKey(name, "value") for name in NAMES},
            ttl_s=TTL_S,
        )

    def put(self, name: str, text: str) -> None:
        self.api.put(f"fleet/{name}", value=text.encode())

    def remove(self, name: str) -> None:
        del self.api.objects[f"fleet/{name}"]

    def refuse(self) -> None:
        self.api.tokens.clear()
        self.api.strangers.add("pod-token")

    def fail(self) -> None:
        self.api.fault = Reply(503, {"kind": "Status", "code": 503})


class VaultPlace:
    def __init__(self, root: Path, vault: FakeVault, url: str, *, login: bool) -> None:
        self.vault = vault
        vault.jwts["fleet"] = "pod-token"
        vault.tokens.add("hvs.given")
        token = secret_file(root / "token", "pod-token\n" if login else "hvs.given\n")
        self.clock = MemoryClock()
        self.provider = VaultSecrets(
            LABEL,
            SecretHttp(url, ca_file=None, timeout_s=60),
            mount=vault.mount,
            namespace=vault.namespace,
            auth=KubernetesLogin("fleet", "kubernetes", token) if login else TokenFile(token),
            keys={name: VaultKey(f"ci/{name}", "value") for name in NAMES},
            clock=self.clock,
            ttl_s=TTL_S,
        )

    def put(self, name: str, text: str) -> None:
        self.vault.put(f"ci/{name}", value=text)

    def remove(self, name: str) -> None:
        self.vault.versions[f"ci/{name}"].append(None)

    def refuse(self) -> None:
        self.vault.tokens.clear()
        self.vault.jwts.clear()

    def fail(self) -> None:
        self.vault.fault = Reply(503, {"errors": ["Vault is sealed"]})


@contextlib.asynccontextmanager
async def open_place(kind: str, root: Path) -> AsyncIterator[SecretPlace]:
    """An empty place of this kind; servers run inside the block."""
    match kind:
        case "memory":
            yield MemoryPlace()
        case "folder":
            yield FolderPlace(root)
        case "document":
            yield DocumentPlace(root)
        case "environment":
            yield EnvironmentPlace()
        case "mount":
            yield MountPlace(root)
        case "kubernetes":
            api = FakeApiServer()
            async with serving_http(api.answer) as url:
                yield KubernetesPlace(root, api, url)
        case _:
            vault = FakeVault(namespace="team")
            async with serving_http(vault.answer) as url:
                yield VaultPlace(root, vault, url, login=kind == "vault-login")
