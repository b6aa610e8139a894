"""What runs on top of the embedded services: actors, and the HTTP front."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.local import Addresses, free_port
from fleet.cli.local_principals import ensure_principals
from fleet.config import FleetSettings, config_files
from fleet.digest import digest_of_json
from fleet.models import load_models
from fleet.wiring import Endpoints

__all__ = ["FleetHooks", "endpoints_of"]

_BASE_POOLS: Mapping[str, int] = {
    "architect": 1,
    "developer": 3,
    "qa": 1,
    "devops": 1,
    "reviewer": 1,
    "data": 1,
    "planner": 1,
    "designer": 1,
}
"""One actor per role that a story asks; seats of councils share them (CN-11)."""


def endpoints_of(settings: FleetSettings, addresses: Addresses, *, record_dir: Path | None = None) -> Endpoints:
    """What actors and commands need to know of this fleet."""
    files = config_files(settings)
    models = load_models(files.document("models.yaml"))
    names = {n for e in models.engines for n in _variables(e)}
    known = {"home": str(settings.home), "config": str(settings.config) if settings.config else None}
    pools = {**_BASE_POOLS, **settings.pools}
    environ = {n: os.environ[n] for n in sorted(names) if n in os.environ}
    export = str(settings.audit.export) if settings.audit.export else None
    audit = {"export": export, "interval_s": settings.audit.interval_s}
    known_to_actors = {
        "home": known["home"],
        "pools": pools,
        "environ": environ,
        "audit": audit,
        "blobs": settings.blobs,
    }
    digest = digest_of_json({"files": files.digests(), **known_to_actors})
    return Endpoints(
        home=str(settings.home),
        config=known["config"],
        redis_url=addresses.redis_url,
        cache_url=addresses.cache_url,
        neo4j_uri=addresses.neo4j_uri,
        neo4j_user=addresses.neo4j_user,
        neo4j_password=addresses.neo4j_password,
        neo4j_database=addresses.neo4j_database,
        node="local",
        pools=pools,
        council_shards=settings.council_shards,
        lease_ttl_s=settings.lease.ttl_s,
        sweep_s=settings.lease.sweep_s,
        record_dir=str(record_dir) if record_dir else None,
        code_digest=digest,
        environ=environ,
        audit_export=export,
        audit_interval_s=settings.audit.interval_s,
        blobs=settings.blobs,
    )


def _variables(engine: object) -> list[str]:
    fields = ("base_url_env", "model_env", "api_key_env")
    return [name for f in fields if isinstance(name := getattr(engine, f, None), str)]


class FleetHooks:
    """Boots the actors and, if asked for, the HTTP front; stops both again. Runs inside the supervisor process."""

    def __init__(
        self,
        settings: FleetSettings,
        *,
        progress: Callable[[str, str], None],
        with_serve: bool,
        record_dir: Path | None = None,
    ) -> None:
        self._settings, self._progress = settings, progress
        self._with_serve, self._record_dir = with_serve, record_dir
        self._names: list[str] = []

    async def boot(self, addresses: Addresses) -> str | None:
        """Every actor answers; the URL of the HTTP front when there is one."""
        # Ray reads its variables at import, so nothing of it may be imported before the supervisor has set them.
        from actors import boot

        endpoints = endpoints_of(self._settings, addresses, record_dir=self._record_dir)
        ensure_principals(endpoints.principals_file)
        self._names = await asyncio.to_thread(boot, endpoints, progress=self._progress)
        if not self._with_serve:
            return None
        from serve_apps import start_serve

        port = self._settings.ports.gateway or free_port()
        return await asyncio.to_thread(start_serve, endpoints, port=port)

    async def stop(self, addresses: Addresses) -> None:
        """The front is closed and every actor has drained."""
        from actors import stop

        if self._with_serve:
            from serve_apps import stop_serve

            await asyncio.to_thread(stop_serve)
        await asyncio.to_thread(stop, self._names)
