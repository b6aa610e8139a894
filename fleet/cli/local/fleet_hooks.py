"""What runs on top of the embedded services: actors, and the HTTP front."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from cluster.local.preflight import check_rpc_port
from cluster.local.process import free_port
from cluster.local.record import Addresses
from fleet.cli.endpoints import endpoints_of
from fleet.cli.local.local_principals import ensure_principals
from fleet.config.environment import configuration_warnings
from fleet.config.settings import FleetSettings
from fleet.kernel.collector import all_alive
from fleet.telemetry.memory import NoMeter
from fleet.wiring.checks import check_configuration
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.places import StorePlaces
from fleet.wiring.telemetry import set_up_logs

_NO_PLACES = Addresses(redis_url="", cache_url="", neo4j_uri="", neo4j_user="", neo4j_password="", neo4j_database="")
"""Before the stores start nobody knows where they will answer, and no file says anything about it."""


class FleetHooks:
    """Boots the actors and, if asked for, the HTTP front; stops both again. Runs inside the supervisor process."""

    def __init__(
        self,
        settings: FleetSettings,
        *,
        progress: Callable[[str, str], None],
        with_serve: bool,
        record_dir: Path | None = None,
        served: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._served = served
        self._settings, self._progress = settings, progress
        self._with_serve, self._record_dir = with_serve, record_dir
        self._names: list[str] = []

    def check(self) -> None:
        """Every file is right, and so is the port of gRPC of the front. What has no effect is said."""
        for line in configuration_warnings(self._settings, os.environ):
            self._progress("warning", line)
        front = check_configuration(self._endpoints(_NO_PLACES))
        if self._with_serve:
            check_rpc_port(self._settings, front)

    async def boot(self, addresses: Addresses) -> str | None:
        """Every actor answers; the URL of the HTTP front when there is one."""
        # Ray reads its variables at import, so nothing of it may be imported before the supervisor has set them.
        with all_alive():
            from actors.bootstrap import boot

        endpoints = self._endpoints(addresses)
        if endpoints.observability.log_form != "auto":
            set_up_logs(endpoints.observability, "driver", meter=NoMeter())
        ensure_principals(endpoints.principals_file)
        # What the actors have of the whole start: who raises `start_timeout_s` on a slow machine raises this too.
        within_s = max(90.0, self._settings.start_timeout_s - 30.0)
        self._names = await asyncio.to_thread(boot, endpoints, progress=self._progress, timeout_s=within_s)
        if not self._with_serve:
            return None
        with all_alive():
            from serve_apps.app import start_serve

        port = self._settings.ports.gateway or free_port()
        return await asyncio.to_thread(start_serve, endpoints, port=port)

    async def stop(self, addresses: Addresses) -> None:
        """The front is closed and every actor has drained."""
        from actors.bootstrap import stop

        if self._with_serve:
            from serve_apps.app import stop_serve

            await asyncio.to_thread(stop_serve)
        await asyncio.to_thread(stop, self._names)

    def _endpoints(self, places: StorePlaces) -> Endpoints:
        return endpoints_of(self._settings, places, record_dir=self._record_dir, served=self._served)
