"""`projector`: the one writer of the decision graph; beside it, who is told outside of the fleet follows the log."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.shell import Shell
    from fleet.graph.service.projector import GraphStatus
    from fleet.kernel.errors import FleetError
    from fleet.remote.meter import gauge
    from fleet.wiring.endpoints import Endpoints
    from fleet.wiring.notifications import tell_target
    from fleet.wiring.stores.projection import make_projector

_MEASURE_S = 5.0


class Shown(Protocol):
    """A figure that somebody exports."""

    def set(self, value: float) -> None:
        """The figure has this value now."""
        ...


def lag_gauges() -> dict[str, Shown]:
    """The figures by name."""
    names = ("fleet_projection_lag_events", "fleet_projection_streams_behind", "fleet_projection_streams_set_aside")
    return {name: gauge(name) for name in names}


def show_lag(gauges: Mapping[str, Shown], status: GraphStatus) -> None:
    """The gauges say what the status says."""
    gauges["fleet_projection_lag_events"].set(status.lag_total)
    gauges["fleet_projection_streams_behind"].set(status.streams_behind)
    gauges["fleet_projection_streams_set_aside"].set(len(status.set_aside))


class ProjectorShell(Shell):
    """Thin shell over Projector, and over one Notifier for each configured target."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._projector = make_projector(endpoints, consumer=f"{name}-{os.getpid()}")
        self.background(self._projector.run)
        self.background(self._measure)
        for target in endpoints.notifications.targets:
            self.background(partial(tell_target, endpoints, target, meter=self.telemetry.meter))

    async def lag(self) -> dict[str, Any]:
        """How many events each stream of the log is ahead of the graph."""
        return await self._projector.lag()

    async def health(self) -> dict[str, Any]:
        """As of every actor; with what keeps a rebuild of the graph from going on."""
        found = await super().health()
        problem = self._projector.rebuild_problem
        return {**found, "rebuild": problem} if problem else found

    async def _measure(self) -> None:
        gauges = lag_gauges()
        while True:
            # While a store is away the gauges keep what was last known; the projector itself waits for it.
            with contextlib.suppress(FleetError):
                show_lag(gauges, await self._projector.status())
            await asyncio.sleep(_MEASURE_S)
