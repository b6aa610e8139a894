"""Ray: the one resolver of actor names, and the ports that actors serve."""

from fleet.adapters.ray.ports import RayAgents, RayForge, RayPacks, RaySandbox
from fleet.adapters.ray.resolver import NAMESPACE, ActorResolver

__all__ = ["NAMESPACE", "ActorResolver", "RayAgents", "RayForge", "RayPacks", "RaySandbox"]
