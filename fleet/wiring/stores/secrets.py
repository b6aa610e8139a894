"""The providers of config/secrets.yaml, and the broker in front of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fleet.config.files import ConfigFiles
from fleet.config.secrets import (
    EnvironmentSecretsSettings,
    FileSecretsSettings,
    KubernetesSecretsSettings,
    MountedSecretsSettings,
    PluginSecretsSettings,
    ProviderSettings,
    SecretsSettings,
    VaultSecretsSettings,
)
from fleet.kernel.clock import Clock, SystemClock
from fleet.kernel.documents import WrongKey, wrong_file
from fleet.kernel.errors import ConfigError
from fleet.log.redis.connection import connect_redis
from fleet.policy.secret_grants import SecretAccess, SecretPolicy
from fleet.secrets.port import AccessTrail, ProviderParts, SecretProvider, SecretProviderPlugin
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets, RecordAccess, SecretBroker
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.plugins import Chosen, Group, choose
from fleet.wiring.sandbox.plugins import active_roles

SECRET_PROVIDERS: Group[SecretProviderPlugin[Any]] = Group(
    "swe_fleet.secret_providers", "secret provider", SecretProviderPlugin, ("environment", "file")
)
_FurtherSettings = MountedSecretsSettings | KubernetesSecretsSettings | VaultSecretsSettings | PluginSecretsSettings
_LOG = logging.getLogger("fleet.secrets")

_FILE = "secrets.yaml"


def make_secret_broker(
    endpoints: Endpoints,
    *,
    environ: Mapping[str, str],
    record: RecordAccess,
    known_secrets: KnownSecrets,
    clock: Clock | None = None,
) -> SecretBroker:
    """The one way from `secret://<name>` to a value. Nothing is read or connected before the first use.

    Args:
        endpoints: of the fleet; its config directory holds secrets.yaml.
        environ: where the environment provider looks, at each use.
        record: writes the audit lines.
        known: where values are registered for redaction.
        clock: of the machine, when none is given.

    Raises:
        ConfigError: secrets.yaml is wrong, or a grant names a role that roles.yaml does not have.
    """
    settings = endpoints.files.load(_FILE, SecretsSettings)
    policy = SecretPolicy(grants=settings.grants)
    _check_roles(endpoints.files, settings)
    ticking = clock or SystemClock()
    providers: dict[str, SecretProvider] = {}
    for entry in settings.providers:
        providers |= dict.fromkeys(entry.secrets, _provider(entry, environ, clock=ticking, ttl_s=settings.life_s))
    return SecretBroker(
        providers, policy, clock=ticking, record=record, known_secrets=known_secrets, max_life_s=settings.life_s
    )


def _check_roles(files: ConfigFiles, settings: SecretsSettings) -> None:
    known = active_roles(files).roles.keys()
    named = [(f"grants.{n}.roles.{i}", r) for n, g in enumerate(settings.grants) for i, r in enumerate(g.roles)]
    if unknown := [(path, role) for path, role in named if role not in known]:
        problems = [WrongKey(path, f"roles.yaml has no role {role!r}") for path, role in unknown]
        raise wrong_file(str(files.path(_FILE)), problems, files.document(_FILE))


def check_providers(endpoints: Endpoints) -> None:
    """Every provider is of a kind that there is, with options that it takes; ConfigError otherwise. Nothing is read."""
    settings = endpoints.files.load(_FILE, SecretsSettings)
    _check_roles(endpoints.files, settings)
    for number, entry in enumerate(settings.providers):
        if not isinstance(entry, FileSecretsSettings | EnvironmentSecretsSettings):
            _chosen(entry, endpoints.files.place(_FILE, f"providers.{number}.kind"))


def check_secret(endpoints: Endpoints, name: str, *, what: str, of: str, tool: str, ops: Sequence[str]) -> None:
    """A provider has the secret and role devops may use it so, as far as the files say. Nothing is read or asked.

    Args:
        endpoints: of the fleet; its config directory holds secrets.yaml.
        name: of the secret.
        what: it is for its user, like `a key`.
        of: who uses it, like `the blobs' store`.
        tool: that uses it.
        ops: of the tool.

    Raises:
        ConfigError: no provider has it, or no grant covers the use; says where and what to write there.
    """
    path = str(endpoints.files.path(_FILE))
    settings = endpoints.files.load(_FILE, SecretsSettings)
    if not any(name in provider.secrets for provider in settings.providers):
        raise ConfigError(
            f"{path}: no provider has secret {name!r}, {what} of {of}; name it under the provider that holds it",
            file=path,
            secret=name,
        )
    policy = SecretPolicy(grants=settings.grants)
    if missing := [op for op in ops if not policy.allows(name, role="devops", tool=tool, op=op)]:
        raise ConfigError(
            f"{path}: {of} needs secret {name!r}; grant it: "
            f"{{secret: {name}, roles: [devops], tool: {tool}, ops: [{', '.join(missing)}]}}",
            file=path,
            secret=name,
        )


def recorded_accesses(trail: AccessTrail) -> RecordAccess:
    """Write an audit line to the log of the process, as JSON. Then it goes to the trail, which has to keep it."""

    async def record(line: SecretAccess) -> None:
        _LOG.info("%s", line.model_dump_json())
        await trail.record(line)

    return record


@asynccontextmanager
async def open_access_trail(endpoints: Endpoints) -> AsyncGenerator[AccessTrail]:
    """The audit lines of secrets; the connection ends with the block."""
    redis = connect_redis(endpoints.redis_url)
    try:
        yield RedisAccessTrail(redis)
    finally:
        await redis.aclose()


def _provider(entry: ProviderSettings, environ: Mapping[str, str], *, clock: Clock, ttl_s: int) -> SecretProvider:
    from fleet.secrets.providers.environment import EnvironmentSecrets
    from fleet.secrets.providers.file import FileSecrets

    match entry:
        case FileSecretsSettings():
            return FileSecrets(entry.label, entry.path, entry.secrets, ttl_s=ttl_s)
        case EnvironmentSecretsSettings():
            return EnvironmentSecrets(entry.label, environ, prefix=entry.prefix, names=entry.secrets, ttl_s=ttl_s)
        case _:
            chosen = _chosen(entry)
            parts = ProviderParts(label=entry.label, names=frozenset(entry.secrets), ttl_s=ttl_s, clock=clock)
            return chosen.plugin.make(chosen.options, parts)


def _chosen(entry: _FurtherSettings, place: str = _FILE) -> Chosen[SecretProviderPlugin[Any]]:
    return choose(SECRET_PROVIDERS, entry.kind, entry.options, where=f"{place}: provider {entry.label}")
