"""Sandbox backends: where tools run. bubblewrap is the default; nothing ever runs unsandboxed in silence."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.sandbox.bubblewrap import BubblewrapBackend
    from fleet.adapters.sandbox.containers import ContainerBackend
    from fleet.adapters.sandbox.identity import is_reachable, is_root, reachable_state_root
    from fleet.adapters.sandbox.kubernetes import KubernetesBackend, kubernetes_backend
    from fleet.adapters.sandbox.orphans import remove_unused
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "BubblewrapBackend",
    "ContainerBackend",
    "KubernetesBackend",
    "kubernetes_backend",
    "is_reachable",
    "is_root",
    "reachable_state_root",
    "remove_unused",
]
