"""Where stories are deployed: at the home's node the environments themselves, elsewhere by its actor (LC-46, LC-49)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.config import BubblewrapBackendSettings, SecretsSettings
from fleet.errors import ConfigError
from fleet.services.deployment_desk import DeploymentDesk
from fleet.services.known_secrets import KnownSecrets
from fleet.services.planning_desk import PlanningDesk
from fleet.services.run_secrets import RunSecrets
from fleet.tools import DeployTarget, SecretPolicy
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.secrets import make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.adapters.deploy import ProcessDeployments
    from fleet.wiring.services import SandboxParts

__all__ = ["check_deployments", "deploy_targets", "make_deployment_desk", "make_deployments"]


def deploy_targets(endpoints: Endpoints) -> tuple[DeployTarget, ...]:
    """The declared targets; none while deployments are switched off."""
    return endpoints.deploy.targets if endpoints.deploy.enabled else ()


def check_deployments(endpoints: Endpoints) -> None:
    """Raises ConfigError when programs are to be deployed and the sandbox holds none that stay, or when one of them
    names a secret that nobody grants (RT-65)."""
    if deploy_targets(endpoints) and not isinstance(endpoints.sandbox_backend, BubblewrapBackendSettings):
        raise ConfigError(
            "fleet.yaml: deploy.targets of kind process need a sandbox that holds interactive runs: set "
            "sandbox.backend to {kind: bubblewrap}, or deploy.enabled to false"
        )
    # That a provider serves what is granted is seen to where the file is read.
    policy = SecretPolicy(grants=endpoints.files.load("secrets.yaml", SecretsSettings).grants)
    for target in deploy_targets(endpoints):
        for name in target.secret_names:
            if not policy.allows(name, role="devops", tool="environment", op="start"):
                raise ConfigError(
                    f"fleet.yaml: deploy target {target.environment} gives its program secret {name}, and no grant of "
                    f"secrets.yaml covers it: add {{secret: {name}, roles: [devops], tool: environment, ops: [start]}}"
                )


def make_deployment_desk(endpoints: Endpoints, planning: PlanningDesk) -> DeploymentDesk:
    """The environments for a front, for as long as it lives."""
    from fleet.adapters.ray import ActorResolver, RayDeployments

    deployments = RayDeployments(ActorResolver(), endpoints.node)
    return DeploymentDesk(planning=planning, deployments=deployments, targets=deploy_targets(endpoints))


def make_deployments(endpoints: Endpoints, parts: SandboxParts) -> ProcessDeployments | None:
    """The environments of this node; None where its backend cannot hold them."""
    from fleet.adapters.deploy import ProcessDeployments
    from fleet.adapters.redis import RedisAccessTrail, connect_redis
    from fleet.adapters.sandbox import BubblewrapBackend

    if not isinstance(parts.backend, BubblewrapBackend):
        return None
    declared = [target.environment for target in deploy_targets(endpoints)]
    root = Path(endpoints.home) / "deployments"
    trail = RedisAccessTrail(connect_redis(endpoints.redis_url))
    known = KnownSecrets()
    broker = make_secret_broker(endpoints, environ=os.environ, record=recorded_accesses(trail), known=known)
    secrets = RunSecrets(broker, known)
    return ProcessDeployments(parts.backend, parts.clock, root, declared=declared, secrets=secrets)
