"""From settings and the addresses of the stores to the `Endpoints` of a fleet: one way for laptops and clusters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, cast

from fleet.config.environment import config_files, load_settings
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import FleetSettings
from fleet.kernel.digest import digest_of_json
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import Digest
from fleet.models.profiles import load_models
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.telemetry import observability_at

_BASE_POOLS: Mapping[str, int] = {
    "architect": 1,
    "developer": 1,
    "qa": 1,
    "devops": 1,
    "reviewer": 1,
    "data": 1,
    "planner": 1,
    "designer": 1,
}
"""One actor per role that a story asks; seats of councils share them (CN-11)."""


class StorePlaces(Protocol):
    """Where the stores of a fleet answer."""

    @property
    def redis_url(self) -> str:
        """Log store, with its password."""
        ...

    @property
    def cache_url(self) -> str:
        """Cache store, with its password."""
        ...

    @property
    def neo4j_uri(self) -> str:
        """Graph."""
        ...

    @property
    def neo4j_user(self) -> str:
        """User at the graph."""
        ...

    @property
    def neo4j_password(self) -> str:
        """Password of that user."""
        ...

    @property
    def neo4j_database(self) -> str:
        """Name of the database."""
        ...


@dataclass(frozen=True, slots=True, repr=False)
class _Given:
    redis_url: str
    cache_url: str
    neo4j_uri: str
    neo4j_user: str
    neo4j_password: str
    neo4j_database: str


def given_places(settings: FleetSettings) -> StorePlaces:
    """The stores that the settings name; on a cluster nothing embedded starts.

    Raises:
        ConfigError: a store is not named; lists the variable of each that is missing.
    """
    missing = [
        variable
        for is_missing, variable in (
            (settings.redis_url is None, "FLEET_REDIS_URL"),
            (settings.needs_graph, "FLEET_NEO4J_URI"),
        )
        if is_missing
    ]
    if missing:
        raise ConfigError(
            f"environment: {' and '.join(missing)} not set; on a cluster no store starts by itself, so name those that "
            "all nodes reach",
            file="environment",
            missing=missing,
        )
    assert settings.redis_url is not None
    assert settings.neo4j.uri is not None
    assert settings.neo4j.password is not None, "settings refuse an address without it"
    cache = settings.cache_url or settings.redis_url
    return _Given(
        redis_url=settings.redis_url.get_secret_value(),
        cache_url=cache.get_secret_value(),
        neo4j_uri=settings.neo4j.uri,
        neo4j_user=settings.neo4j.user,
        neo4j_password=settings.neo4j.password.get_secret_value(),
        neo4j_database=settings.neo4j.database,
    )


def cluster_endpoints(environ: Mapping[str, str]) -> Endpoints:
    """The fleet that this environment of a pod or node means (`FLEET_CONFIG`, `FLEET_*`).

    Raises:
        ConfigError: a file or variable is wrong, or a store is not named.
    """
    settings = load_settings(environ)
    return endpoints_at(settings, given_places(settings), environ=environ)


def endpoints_at(
    settings: FleetSettings,
    places: StorePlaces,
    *,
    environ: Mapping[str, str],
    record_dir: Path | None = None,
    served: Mapping[str, str] = MappingProxyType({}),
) -> Endpoints:
    """What actors and commands need to know of this fleet.

    Args:
        environ: where the variables are that engines of config/models.yaml name.
        served: variables of engines that a command started itself.
    """
    variables = _engine_variables(settings, environ) | dict(served)
    export = str(settings.audit.export) if settings.audit.export else None
    pools = {**_BASE_POOLS, **_own_pools(config_files(settings)), **settings.pools}
    return Endpoints(
        home=str(settings.home),
        config=str(settings.config) if settings.config else None,
        redis_url=places.redis_url,
        cache_url=places.cache_url,
        neo4j_uri=places.neo4j_uri,
        neo4j_user=places.neo4j_user,
        neo4j_password=places.neo4j_password,
        neo4j_database=places.neo4j_database,
        node="local",
        pools=pools,
        council_shards=settings.council_shards,
        lease_ttl_s=settings.lease.ttl_s,
        sweep_s=settings.lease.sweep_s,
        record_dir=str(record_dir) if record_dir else None,
        code_digest=_digest(settings, pools, variables),
        environ=variables,
        served=tuple(sorted(served)),
        audit_export=export,
        audit_interval_s=settings.audit.interval_s,
        blobs=settings.blobs,
        sandbox_waiting=settings.sandbox.max_waiting,
        sandbox_disk=settings.sandbox.disk,
        sandbox_waived=settings.sandbox.waived,
        sandbox_backend=settings.sandbox.backend,
        sandbox_registries=settings.sandbox.registries,
        deploy=settings.deploy,
        forge=settings.forge,
        models=settings.models,
        llama=settings.llama,
        placement=settings.placement,
        observability=observability_at(settings.observability, environ),
        notifications=settings.notifications,
    )


def _engine_variables(settings: FleetSettings, environ: Mapping[str, str]) -> dict[str, str]:
    models = load_models(config_files(settings).document("models.yaml"))
    fields = ("base_url_env", "model_env", "api_key_env", "path_env")
    named = {getattr(engine, field, None) for engine in models.engines for field in fields}
    named |= {engine.tokenizer.path_env for engine in models.engines if engine.tokenizer is not None}
    return {name: environ[name] for name in sorted(n for n in named if isinstance(n, str)) if name in environ}


def _own_pools(files: ConfigFiles) -> dict[str, int]:
    """One agent for each of the site's own roles that tasks may go to, but for those of people."""
    shipped = ConfigFiles(packaged_directory()).document("roles.yaml")["roles"]
    roles = files.document("roles.yaml").get("roles")
    if not isinstance(roles, dict) or set(cast(dict[str, object], roles)) <= set(shipped):
        return {}
    # Imported here: few fleets have such roles, and the tools of packages are looked for.
    from fleet.wiring.sandbox.plugins import active_roles

    known = active_roles(files).roles.items()
    return {name: 1 for name, role in known if name not in shipped and role.assignable and role.actor != "human"}


def _digest(settings: FleetSettings, pools: Mapping[str, int], variables: Mapping[str, str]) -> Digest:
    """Return a digest of all that an actor was told at its birth. One that was told something else is replaced."""
    # As text: canonical JSON has no form for the ratios among the settings.
    told = settings.model_dump_json(
        include={
            "home",
            "audit",
            "blobs",
            "sandbox",
            "forge",
            "models",
            "llama",
            "placement",
            "observability",
            "notifications",
        },
    )
    files = config_files(settings).digests()
    return digest_of_json({"files": files, "pools": dict(pools), "environ": dict(variables), "told": told})
