"""The environments of a fleet side by side: each is kept by what its target's kind names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from fleet.errors import ConfigError
from fleet.ids import RunKey
from fleet.ports import Deployments, Occupancy, Placed, Standing
from fleet.tools import HealthCheckSpec, Sample

__all__ = ["KeptDeployments", "RoutedDeployments"]


class KeptDeployments(Deployments, Protocol):
    """Deployments that somebody has to look after."""

    async def keep(self) -> None:
        """What has to run runs, until this is cancelled or there is nothing to look after."""
        ...


class RoutedDeployments:
    """Implements the port Deployments by handing each call on.

    Args:
        kinds: who keeps the environments of a kind of target.
        kind_of: of every declared environment; one that is declared no more is a process, as far as those are kept.
    """

    def __init__(self, kinds: Mapping[str, KeptDeployments], kind_of: Mapping[str, str]) -> None:
        self._kinds, self._kind_of = dict(kinds), dict(kind_of)

    async def keep(self) -> None:
        """All kinds are looked after, until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._kinds.values():
                group.create_task(one.keep())

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        return await self._of(placed.target.environment).deploy(placed)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        return await self._of(environment).standing(environment)

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        return await self._of(environment).occupancy(environment)

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        return await self._of(environment).roll_back(environment, failed=failed, told=told)

    async def sample(self, environment: str, check: HealthCheckSpec) -> Sample:
        """See the port."""
        return await self._of(environment).sample(environment, check)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        return await self._of(environment).stop(environment, only=only, told=told)

    def _of(self, environment: str) -> Deployments:
        kind = self._kind_of.get(environment, "process")
        found = self._kinds.get(kind)
        if found is None:
            raise ConfigError(
                f"environment {environment} is of kind {kind}, which nothing here keeps: declare it under "
                "deploy.targets, or for kind process set sandbox.backend to bubblewrap",
                environment=environment,
            )
        return found
