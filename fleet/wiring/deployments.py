"""Where stories are deployed: at the home's node the environments themselves, elsewhere by its actor (LC-46, LC-49).

Environments of clusters are looked after by the home's node as well: one process changes each of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.config.settings import BubblewrapBackendSettings, KubernetesBackendSettings
from fleet.desk.deployments import DeploymentDesk
from fleet.desk.planning import PlanningDesk
from fleet.kernel.errors import ConfigError
from fleet.policy.commands.deploy_kubernetes import ClusterPlace
from fleet.policy.deploy import DeployTarget
from fleet.sandbox.service.runs import RunSecrets
from fleet.secrets.service import KnownSecrets
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.stores.secrets import check_secret, make_secret_broker, recorded_accesses

if TYPE_CHECKING:
    from fleet.deploy.kubernetes.target import KeptDeployments, KubernetesDeployments, RoutedDeployments
    from fleet.wiring.sandbox.backend import SandboxParts


def deploy_targets(endpoints: Endpoints) -> tuple[DeployTarget, ...]:
    """The declared targets; none while deployments are switched off."""
    return endpoints.deploy.targets if endpoints.deploy.enabled else ()


def check_deployments(endpoints: Endpoints) -> None:
    """Raise ConfigError when a target cannot be as its kind declares it. So it is, too, when no provider has its secret
    or nobody grants it (RT-65). No cluster is asked.
    """
    for target in deploy_targets(endpoints):
        match target.kubernetes:
            case None:
                _check_process(endpoints)
            case place:
                _check_kubernetes(endpoints, target.environment, place)
        of = f"the program of deploy target {target.environment}"
        for name in target.secret_names:
            check_secret(endpoints, name, what="a secret", of=of, tool="environment", ops=("start",))


def _check_process(endpoints: Endpoints) -> None:
    if not isinstance(endpoints.sandbox_backend, BubblewrapBackendSettings):
        raise ConfigError(
            "fleet.yaml: deploy.targets of kind process need a sandbox that holds interactive runs: set "
            "sandbox.backend to {kind: bubblewrap}, make them of kind kubernetes, or set deploy.enabled to false"
        )


def _check_kubernetes(endpoints: Endpoints, environment: str, place: ClusterPlace) -> None:
    backend = endpoints.sandbox_backend
    if isinstance(backend, KubernetesBackendSettings) and backend.namespace == place.namespace:
        raise ConfigError(
            f"fleet.yaml: deploy target {environment} has the namespace {place.namespace} of the runs of agents "
            "(sandbox.backend): what they may do there they may not do to deployed programs, so name another one"
        )


def make_deployment_desk(endpoints: Endpoints, planning: PlanningDesk) -> DeploymentDesk:
    """The environments for a front, for as long as it lives."""
    from fleet.remote.deployments import RayDeployments
    from fleet.remote.resolver import ActorResolver

    deployments = RayDeployments(ActorResolver(), endpoints.node)
    return DeploymentDesk(planning=planning, deployments=deployments, targets=deploy_targets(endpoints))


def make_deployments(endpoints: Endpoints, parts: SandboxParts) -> RoutedDeployments | None:
    """The environments that this node looks after; None where there are none, nor a backend that could hold them."""
    from fleet.deploy.kubernetes.target import RoutedDeployments
    from fleet.deploy.local.environments import ProcessDeployments
    from fleet.log.redis.connection import connect_redis
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
    from fleet.secrets.redis import RedisAccessTrail

    targets = deploy_targets(endpoints)
    kind_of = {target.environment: target.kind for target in targets}
    places = {target.environment: target.kubernetes for target in targets if target.kubernetes is not None}
    if not (places or isinstance(parts.backend, BubblewrapBackend)):
        return None
    trail = RedisAccessTrail(connect_redis(endpoints.redis_url))
    known_secrets = KnownSecrets()
    broker = make_secret_broker(
        endpoints, environ=os.environ, record=recorded_accesses(trail), known_secrets=known_secrets
    )
    secrets = RunSecrets(broker, known_secrets)
    kinds: dict[str, KeptDeployments] = {}
    if isinstance(parts.backend, BubblewrapBackend):
        declared = [name for name, kind in kind_of.items() if kind == "process"]
        root = Path(endpoints.home) / "deployments"
        kinds["process"] = ProcessDeployments(parts.backend, parts.clock, root, declared=declared, secrets=secrets)
    if places:
        kinds["kubernetes"] = _in_clusters(places, parts, secrets)
    return RoutedDeployments(kinds, kind_of)


def _in_clusters(places: Mapping[str, ClusterPlace], parts: SandboxParts, secrets: RunSecrets) -> KubernetesDeployments:
    from fleet.deploy.kubernetes.api import ClusterApi
    from fleet.deploy.kubernetes.target import KubernetesDeployments

    # Made when it is first needed: certificates that cannot be read stop what uses them, and not the whole node.
    @cache
    def api_of(environment: str) -> ClusterApi:
        place = places.get(environment)
        if place is None:
            raise ConfigError(f"environment {environment} is not declared any more", environment=environment)
        return ClusterApi.of(place, what=f"kubernetes of deploy target {environment}")

    return KubernetesDeployments(api_of, parts.blobs, parts.clock, declared=places, secrets=secrets)
