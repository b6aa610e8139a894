"""The methods of `sandbox:<node>` for environments that the fleet keeps itself."""

from __future__ import annotations

from fleet.deploy.port import Deployments, Occupancy, Placed, Standing
from fleet.kernel.errors import ConfigError
from fleet.kernel.ids import RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample


class DeploymentMethods:
    """Part of the sandbox's shell. `_deployments` is None where the backend holds no interactive runs."""

    _deployments: Deployments | None

    async def deploy(self, placed: Placed) -> Standing:
        """Run a tree in its environment, once per key."""
        return await self._required_deployments().deploy(placed)

    async def deployment(self, environment: str) -> Standing:
        """Say what runs in an environment."""
        return await self._required_deployments().standing(environment)

    async def occupancy(self, environment: str) -> Occupancy:
        """Say what is in an environment, for people."""
        return await self._required_deployments().occupancy(environment)

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """Run again what ran before."""
        return await self._required_deployments().roll_back(environment, failed=failed, told=told)

    async def sample_deployment(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """Look once at what runs in an environment."""
        return await self._required_deployments().sample(environment, check)

    async def stop_deployment(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """End what runs in an environment."""
        return await self._required_deployments().stop(environment, only=only, told=told)

    def _required_deployments(self) -> Deployments:
        if self._deployments is None:
            raise ConfigError("this sandbox holds no deployments: set sandbox.backend to bubblewrap")
        return self._deployments
