"""Ray: the one resolver of actor names, and the ports that actors serve."""

from fleet.adapters.ray.deployments import RayDeployments
from fleet.adapters.ray.engine import RayEngine
from fleet.adapters.ray.losses import RayLosses
from fleet.adapters.ray.meter import RayMeter, gauge
from fleet.adapters.ray.nodes import NodeWatch, RayNode, alive_nodes, own_node_id, supervisors_of_nodes
from fleet.adapters.ray.ports import RayAgents, RayChangeRequests, RayForge, RayPacks, RaySandbox, RayToolHost
from fleet.adapters.ray.resolver import NAMESPACE, ActorResolver
from fleet.adapters.ray.sandbox_sessions import RaySandboxSessions
from fleet.adapters.ray.supervisors import RayPeers, Supervisors

__all__ = [
    "NAMESPACE",
    "ActorResolver",
    "NodeWatch",
    "RayAgents",
    "RayChangeRequests",
    "RayDeployments",
    "RayEngine",
    "RayForge",
    "RayLosses",
    "RayMeter",
    "RayNode",
    "RayPacks",
    "RayPeers",
    "RaySandbox",
    "RaySandboxSessions",
    "RayToolHost",
    "Supervisors",
    "alive_nodes",
    "gauge",
    "own_node_id",
    "supervisors_of_nodes",
]
