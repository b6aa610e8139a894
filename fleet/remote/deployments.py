"""The ports Deployments and Environments over the actor `sandbox:<node>`."""

from __future__ import annotations

from fleet.deploy.port import Occupancy, Placed, Standing
from fleet.kernel.ids import Digest, RunKey
from fleet.policy.deploy import HealthCheckSpec, HealthSample
from fleet.remote.patience import PatientCalls
from fleet.remote.resolver import ActorResolver
from fleet.workspace.project import LayerNeeds
from fleet.workspace.service.repository_environment import MAKING_S, MadeEnvironment

_CHANGE_S = 900.0
"""A program may take 600 s until it is ready; whoever asks how things stand waits for that."""
_SAMPLE_S = 120.0


class RayDeployments:
    """The environments of one node. A call that was cut off is repeated; its key says whether it happened."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def deploy(self, placed: Placed) -> Standing:
        """See the port."""
        return await self._calls.call(self._name, "deploy", placed, timeout_s=_CHANGE_S)

    async def standing(self, environment: str) -> Standing:
        """See the port."""
        return await self._calls.call(self._name, "deployment", environment, timeout_s=_CHANGE_S)

    async def occupancy(self, environment: str) -> Occupancy:
        """See the port."""
        return await self._calls.call(self._name, "occupancy", environment, timeout_s=_SAMPLE_S)

    async def roll_back(self, environment: str, *, failed: RunKey, told: str = "") -> Standing:
        """See the port."""
        return await self._calls.call(
            self._name, "roll_back", environment, failed=failed, told=told, timeout_s=_CHANGE_S
        )

    async def sample(self, environment: str, check: HealthCheckSpec) -> HealthSample:
        """See the port."""
        return await self._calls.call(self._name, "sample_deployment", environment, check, timeout_s=_SAMPLE_S)

    async def stop(self, environment: str, *, only: RunKey | None = None, told: str = "") -> Standing:
        """See the port."""
        return await self._calls.call(
            self._name, "stop_deployment", environment, only=only, told=told, timeout_s=_CHANGE_S
        )


class RayEnvironments:
    """The environments of repositories on one node. A call that was cut off is repeated: it finds what there is."""

    def __init__(self, resolver: ActorResolver, node: str) -> None:
        self._calls, self._name = PatientCalls(resolver), f"sandbox:{node}"

    async def make(self, needs: LayerNeeds, *, tree: Digest, commit: str) -> MadeEnvironment:
        """See the port."""
        return await self._calls.call(
            self._name, "make_environment", needs, tree=tree, commit=commit, timeout_s=MAKING_S + 120.0
        )
