"""Environments where stories are deployed: programs in sandboxes of the home's node, and pods of a cluster."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.deploy.cluster_api import ClusterApi
    from fleet.adapters.deploy.environments import ProcessDeployments
    from fleet.adapters.deploy.kubernetes import KubernetesDeployments
    from fleet.adapters.deploy.routed import KeptDeployments, RoutedDeployments
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = ["ClusterApi", "KeptDeployments", "KubernetesDeployments", "ProcessDeployments", "RoutedDeployments"]
