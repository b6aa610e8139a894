"""Ray: the one resolver of actor names, and the ports that actors serve."""

from fleet.adapters.ray.engine import RayEngine
from fleet.adapters.ray.meter import RayMeter, gauge
from fleet.adapters.ray.ports import RayAgents, RayChangeRequests, RayForge, RayPacks, RaySandbox, RayToolHost
from fleet.adapters.ray.resolver import NAMESPACE, ActorResolver
from fleet.adapters.ray.sandbox_sessions import RaySandboxSessions

__all__ = [
    "NAMESPACE",
    "ActorResolver",
    "RayAgents",
    "RayChangeRequests",
    "RayEngine",
    "RayForge",
    "RayMeter",
    "RayPacks",
    "RaySandbox",
    "RaySandboxSessions",
    "RayToolHost",
    "gauge",
]
