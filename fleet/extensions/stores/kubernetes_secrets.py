"""Secrets of a Kubernetes cluster, as mounted files or through its API."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.extensions.stores.secrets_http import checked_address
from fleet.extensions.stores.tokens import projected_token
from fleet.secrets.port import ProviderParts, SecretProviderPlugin, SecretValue
from fleet.secrets.providers.failures import NamedProvider, as_mapping
from fleet.secrets.providers.private_file import PrivateBytes, Unsafe, opened, read_whole
from fleet.web.answers import Unanswered
from fleet.web.kubernetes import Access, Answer, KubernetesClient
from fleet.web.trust import trust_of

_SWAPS = 3
"""How often the kubelet may swap the volume under one read."""
_MAX_BODY_BYTES = 1 << 20


class MountedSecrets:
    """A Secret volume of the pod: one file per key. Implements the port SecretProvider.

    The kubelet swaps the whole content by the link `..data`, whose target names the version. Each value is read
    through that one target, so that no read mixes two versions.

    Args:
        label: name of this provider in config and audit.
        mount: where the volume is mounted; not with `subPath`, which never sees a new version.
        names: the secrets that are served from there, each under the key of its name.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(self, label: str, mount: Path, names: Collection[str], *, ttl_s: int) -> None:
        self._source = NamedProvider(label, ttl_s=ttl_s)
        self._mount = mount
        self._names = frozenset(names)

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._source.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value of the present content of the volume."""
        return await asyncio.to_thread(self._resolve, name)

    def _resolve(self, name: str) -> SecretValue:
        if name not in self._names:
            raise self._source.not_found(name, "config does not list it there")
        found = self._read(name)
        if found is None:
            raise self._source.not_found(name, f"{self._mount} is missing, is no Secret volume, or has no such key")
        return self._source.value(name, found.data, version=found.version)

    def _read(self, name: str) -> PrivateBytes | None:
        try:
            for _ in range(_SWAPS):
                if (found := self._attempt(name)) is not None:
                    return found
        except Unsafe as error:
            raise self._source.refused(name, str(error)) from None
        except OSError as error:
            raise self._source.broken(name, f"{self._mount}: {error.strerror}") from error
        return None

    def _attempt(self, name: str) -> PrivateBytes | None:
        """None when a part is missing: the kubelet may have removed what the link named a moment ago."""
        try:
            with opened(str(self._mount)) as mount:
                version = os.readlink("..data", dir_fd=mount)
                if "/" in version or version in {".", "..", ""}:
                    raise Unsafe(f"{self._mount}/..data leads out of the volume")
                with opened(version, dir_fd=mount) as folder, opened(name, dir_fd=folder) as handle:
                    return PrivateBytes(_plain(handle, name), version)
        except FileNotFoundError:
            return None


def _plain(handle: int, name: str) -> bytes:
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode) or mode & stat.S_IWOTH:
        raise Unsafe(f"{name} is no plain file, or everybody may write it")
    return read_whole(handle)


@dataclass(frozen=True, slots=True)
class KubernetesKey:
    """Where the cluster keeps one secret: the object of kind Secret, and the key in its `data`."""

    secret: str
    key: str


class KubernetesSecrets:
    """Secrets read one by one through the API server. Implements the port SecretProvider.

    Role, tool and operation stand in the User-Agent, which the API server's audit log keeps.

    Args:
        label: name of this provider in config and audit.
        client: asks the API server, with the pod's token.
        namespace: of all the objects.
        keys: secret -> where it is.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(
        self,
        label: str,
        client: KubernetesClient,
        *,
        namespace: str,
        keys: Mapping[str, KubernetesKey],
        ttl_s: int,
    ) -> None:
        self._source = NamedProvider(label, ttl_s=ttl_s)
        self._client = client
        self._namespace = namespace
        self._keys = dict(keys)

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._source.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that the API server holds now."""
        if name not in self._keys:
            raise self._source.not_found(name, "config does not list it there")
        where = self._keys[name]
        answer = await self._ask(name, where, agent=f"swe-fleet ({as_role} {tool}.{op})")
        self._check(name, where, answer)
        return self._value(name, where, answer.body)

    async def _ask(self, name: str, where: KubernetesKey, *, agent: str) -> Answer:
        why, refused = "", ""
        try:
            path = f"/api/v1/namespaces/{self._namespace}/secrets/{where.secret}"
            return await self._client.fetch_once(path, most=_MAX_BODY_BYTES, agent=agent)
        except Unsafe as error:
            refused = str(error)
        except Unanswered as error:
            why = str(error)
        raise self._source.refused(name, refused) if refused else self._source.broken(name, why)

    def _check(self, name: str, where: KubernetesKey, answer: Answer) -> None:
        shown = f"secret {self._namespace}/{where.secret}"
        if answer.status in (401, 403):
            raise self._source.refused(
                name, f"the API server refuses our token for {shown} ({answer.status}); let its account `get` it"
            )
        if answer.status == 404:
            raise self._source.not_found(name, f"the cluster has no {shown}")
        if answer.status != 200:
            raise self._source.broken(
                name, f"the API server answered {answer.status} for {shown}", status=answer.status
            )

    def _value(self, name: str, where: KubernetesKey, body: dict[str, Any]) -> SecretValue:
        data, metadata = as_mapping(body.get("data", {})), as_mapping(body.get("metadata"))
        version = metadata.get("resourceVersion") if metadata else None
        if body.get("kind") != "Secret" or data is None or not isinstance(version, str):
            raise self._source.broken(name, "the API server's answer is no object of kind Secret")
        if where.key not in data:
            raise self._source.not_found(name, f"secret {self._namespace}/{where.secret} has no key {where.key}")
        value = _unpacked(data[where.key])
        if value is None:
            raise self._source.broken(name, f"key {where.key} of the API server's answer is no base64")
        return self._source.value(name, value, version=version)


def _unpacked(value: object) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (binascii.Error, ValueError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class MountOptions:
    """The keys of a provider of kind kubernetes-mount in secrets.yaml."""

    mount: Path
    secrets: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """The keys of a provider of kind kubernetes in secrets.yaml."""

    url: str
    namespace: str
    token_file: Path
    ca_file: Path | None
    timeout_s: float
    secrets: Mapping[str, KubernetesKey]


def _mounted(options: MountOptions, parts: ProviderParts) -> MountedSecrets:
    return MountedSecrets(parts.label, options.mount, options.secrets, ttl_s=parts.ttl_s)


def _of_cluster(options: ClusterOptions, parts: ProviderParts) -> KubernetesSecrets:
    client = secrets_client(
        options.url, token_file=options.token_file, ca_file=options.ca_file, timeout_s=options.timeout_s
    )
    return KubernetesSecrets(parts.label, client, namespace=options.namespace, keys=options.secrets, ttl_s=parts.ttl_s)


def secrets_client(url: str, *, token_file: Path, ca_file: Path | None, timeout_s: float) -> KubernetesClient:
    """Asks that API server with the pod's token, read at each request. Raises ConfigError, and Unsafe when asked."""
    tls = trust_of(ca_file) if checked_address(url).scheme == "https" else None
    return KubernetesClient(Access(url.rstrip("/"), tls, lambda: projected_token(token_file)), timeout_s=timeout_s)


MOUNT = SecretProviderPlugin(name="kubernetes-mount", options=MountOptions, make=_mounted)
CLUSTER = SecretProviderPlugin(name="kubernetes", options=ClusterOptions, make=_of_cluster)
