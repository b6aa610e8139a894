"""Secrets of HashiCorp Vault, key-value engine version 2 (also OpenBao)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fleet.extensions.stores.secrets_http import Answer, SecretHttp
from fleet.extensions.stores.tokens import private_token, projected_token
from fleet.kernel.clock import Clock
from fleet.secrets.port import ProviderParts, SecretProviderPlugin, SecretValue
from fleet.secrets.providers.failures import NamedProvider, as_mapping
from fleet.secrets.providers.private_file import Unsafe
from fleet.web.answers import Unanswered


@dataclass(frozen=True, slots=True)
class VaultKey:
    """Where Vault keeps one secret: the path below the engine, the key there, and a version (None: the newest)."""

    path: str
    key: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class TokenFile:
    """A Vault token in a file of mode 0600; read at each call, so that an agent may renew it."""

    token_file: Path
    kind: Literal["token"] = "token"


@dataclass(frozen=True, slots=True)
class KubernetesLogin:
    """Vault's Kubernetes auth: the pod's own token is exchanged for a Vault token, which is used while it lives."""

    role: str
    mount: str
    token_file: Path
    kind: Literal["kubernetes"] = "kubernetes"


class _Session(NamedTuple):
    token: str
    ends_ms: int


class VaultSecrets:
    """Secrets read one by one over HTTP. Implements the port SecretProvider.

    Role, tool and operation go along as header `X-Fleet-Use`, which Vault's audit device can keep.

    Args:
        label: name of this provider in config and audit.
        http: how to reach Vault.
        mount: where the key-value engine is mounted.
        namespace: of Vault Enterprise or OpenBao; None is the root.
        auth: how this process shows who it is.
        keys: secret -> where it is.
        clock: tells when a login has ended.
        ttl_s: seconds for which a value may be used.
    """

    def __init__(
        self,
        label: str,
        http: SecretHttp,
        *,
        mount: str,
        namespace: str | None,
        auth: TokenFile | KubernetesLogin,
        keys: Mapping[str, VaultKey],
        clock: Clock,
        ttl_s: int,
    ) -> None:
        self._source = NamedProvider(label, ttl_s=ttl_s)
        self._http = http
        self._mount = mount
        self._namespace = namespace
        self._auth = auth
        self._keys = dict(keys)
        self._clock = clock
        self._session: _Session | None = None

    @property
    def label(self) -> str:
        """Name of this provider in config and audit."""
        return self._source.label

    async def resolve(self, name: str, *, as_role: str, tool: str, op: str) -> SecretValue:
        """The value that Vault holds now."""
        if name not in self._keys:
            raise self._source.not_found(name, "config does not list it there")
        where = self._keys[name]
        answer = await self._read(name, where, use=f"{as_role} {tool}.{op}")
        if answer.status == 403 and isinstance(self._auth, KubernetesLogin):
            # The login may have been revoked before its time; a fresh one decides whether the policy refuses us.
            self._session = None
            answer = await self._read(name, where, use=f"{as_role} {tool}.{op}")
        self._check(name, where, answer)
        return self._value(name, where, answer.body or {})

    async def _read(self, name: str, where: VaultKey, *, use: str) -> Answer:
        headers = {**self._headers(), "X-Vault-Token": await self._token(name), "X-Fleet-Use": use}
        params = {} if where.version is None else {"version": str(where.version)}
        try:
            return await self._http.ask("GET", f"/v1/{self._mount}/data/{where.path}", headers=headers, params=params)
        except Unanswered as error:
            why = str(error)
        raise self._source.broken(name, why)

    def _headers(self) -> dict[str, str]:
        return {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": self._namespace} if self._namespace else {})

    async def _token(self, name: str) -> str:
        try:
            match self._auth:
                case TokenFile(path):
                    return await asyncio.to_thread(private_token, path)
                case KubernetesLogin():
                    return await self._logged_in(name, self._auth)
        except Unsafe as error:
            why = str(error)
        raise self._source.refused(name, why)

    async def _logged_in(self, name: str, login: KubernetesLogin) -> str:
        now = self._clock.monotonic_ms()
        if self._session is None or self._session.ends_ms <= now:
            jwt = await asyncio.to_thread(projected_token, login.token_file)
            self._session = await self._login(name, login, jwt=jwt, now_ms=now)
        return self._session.token

    async def _login(self, name: str, login: KubernetesLogin, *, jwt: str, now_ms: int) -> _Session:
        why, answer = "", Answer(0, None)
        try:
            body = {"role": login.role, "jwt": jwt}
            answer = await self._http.ask("POST", f"/v1/auth/{login.mount}/login", headers=self._headers(), body=body)
        except Unanswered as error:
            why = str(error)
        if why:
            raise self._source.broken(name, why)
        if answer.status in (400, 401, 403):
            raise self._source.refused(
                name, f"Vault refuses the login of role {login.role} at auth/{login.mount} ({answer.status})"
            )
        auth = as_mapping((answer.body or {}).get("auth")) or {}
        token, lease_s = auth.get("client_token"), auth.get("lease_duration")
        if answer.status != 200 or not isinstance(token, str) or not token or not isinstance(lease_s, int):
            raise self._source.broken(name, f"Vault answered the login with {answer.status}", status=answer.status)
        # A fifth before its end, so that no request is under way with a token that just ended.
        return _Session(token, now_ms + lease_s * 800)

    def _check(self, name: str, where: VaultKey, answer: Answer) -> None:
        shown = f"{self._mount}/{where.path}"
        if answer.status in (401, 403):
            raise self._source.refused(
                name, f"Vault refuses our token for {shown} ({answer.status}); its policy needs `read` on {shown}"
            )
        if answer.status == 404:
            raise self._source.not_found(name, f"Vault has nothing at {shown}, or that version was deleted")
        if answer.status != 200:
            raise self._source.broken(name, f"Vault answered {answer.status} for {shown}", status=answer.status)

    def _value(self, name: str, where: VaultKey, body: dict[str, Any]) -> SecretValue:
        outer = as_mapping(body.get("data")) or {}
        values, metadata = as_mapping(outer.get("data")), as_mapping(outer.get("metadata"))
        version = metadata.get("version") if metadata else None
        if values is None or not isinstance(version, int) or (where.version or version) != version:
            raise self._source.broken(name, "Vault's answer is none of the key-value engine version 2")
        if where.key not in values:
            raise self._source.not_found(name, f"{self._mount}/{where.path} has no key {where.key}")
        value = values[where.key]
        if not isinstance(value, str):
            raise self._source.broken(name, f"key {where.key} of {self._mount}/{where.path} holds no text")
        return self._source.value(name, value.encode("utf-8", "surrogatepass"), version=str(version))


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultOptions:
    """The keys of a provider of kind vault in secrets.yaml."""

    url: str
    mount: str
    namespace: str | None
    auth: TokenFile | KubernetesLogin
    ca_file: Path | None
    timeout_s: float
    secrets: Mapping[str, VaultKey]


def _vault(options: VaultOptions, parts: ProviderParts) -> VaultSecrets:
    return VaultSecrets(
        parts.label,
        SecretHttp(options.url, ca_file=options.ca_file, timeout_s=options.timeout_s),
        mount=options.mount,
        namespace=options.namespace,
        auth=options.auth,
        keys=options.secrets,
        clock=parts.clock,
        ttl_s=parts.ttl_s,
    )


PLUGIN = SecretProviderPlugin(name="vault", options=VaultOptions, make=_vault)
