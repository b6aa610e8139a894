"""Where stories are deployed: at the home's node the environments themselves, elsewhere by its actor (LC-46, LC-49)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleet.config import BubblewrapBackendSettings
from fleet.errors import ConfigError
from fleet.services.deployment_desk import DeploymentDesk
from fleet.services.planning_desk import PlanningDesk
from fleet.tools import DeployTarget
from fleet.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from fleet.adapters.deploy import ProcessDeployments
    from fleet.wiring.services import SandboxParts

__all__ = ["check_deployments", "deploy_targets", "make_deployment_desk", "make_deployments"]


def deploy_targets(endpoints: Endpoints) -> tuple[DeployTarget, ...]:
    """The declared targets; none while deployments are switched off."""
    return endpoints.deploy.targets if endpoints.deploy.enabled else ()


def check_deployments(endpoints: Endpoints) -> None:
    """Raises ConfigError when programs are to be deployed and the sandbox holds none that stay."""
    if deploy_targets(endpoints) and not isinstance(endpoints.sandbox_backend, BubblewrapBackendSettings):
        raise ConfigError(
            "fleet.yaml: deploy.targets of kind process need a sandbox that holds interactive runs: set "
            "sandbox.backend to {kind: bubblewrap}, or deploy.enabled to false"
        )


def make_deployment_desk(endpoints: Endpoints, planning: PlanningDesk) -> DeploymentDesk:
    """The environments for a front, for as long as it lives."""
    from fleet.adapters.ray import ActorResolver, RayDeployments

    deployments = RayDeployments(ActorResolver(), endpoints.node)
    return DeploymentDesk(planning=planning, deployments=deployments, targets=deploy_targets(endpoints))


def make_deployments(endpoints: Endpoints, parts: SandboxParts) -> ProcessDeployments | None:
    """The environments of this node; None where its backend cannot hold them."""
    from fleet.adapters.deploy import ProcessDeployments
    from fleet.adapters.sandbox import BubblewrapBackend

    if not isinstance(parts.backend, BubblewrapBackend):
        return None
    declared = [target.environment for target in deploy_targets(endpoints)]
    root = Path(endpoints.home) / "deployments"
    return ProcessDeployments(parts.backend, parts.clock, root, declared=declared)
