"""The sandbox backend that the settings name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.config.settings import BubblewrapBackendSettings, ContainerBackendSettings, SandboxBackendSettings
from fleet.policy.rules.config import Policy
from fleet.trees.port import BlobStore

if TYPE_CHECKING:
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
    from fleet.sandbox.backends.containers.backend import ContainerBackend
    from fleet.sandbox.backends.kubernetes.backend import KubernetesBackend

    AnyBackend = BubblewrapBackend | ContainerBackend | KubernetesBackend


def make_backend(
    settings: SandboxBackendSettings,
    root: Path,
    blobs: BlobStore,
    *,
    policy: Policy,
    waived: Collection[str],
    own_root: Path | None = None,
) -> AnyBackend:
    """What holds the runs of this node.

    Args:
        root: where it keeps its files.
        own_root: where it keeps those of its runs, when supervisors of other nodes have `root` in common with it.
        waived: isolation that may be missing, by name (RC-32).

    Raises:
        ConfigError: the cluster's address or certificates cannot be used.
    """
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
    from fleet.sandbox.backends.containers.backend import ContainerBackend
    from fleet.sandbox.backends.kubernetes.backend import kubernetes_backend

    if isinstance(settings, BubblewrapBackendSettings):
        return BubblewrapBackend(
            own_root or root,
            blobs,
            waived=waived,
            toolchains=policy.toolchains,
            services=policy.services,
            shared_root=root,
        )
    if isinstance(settings, ContainerBackendSettings):
        return ContainerBackend(settings.kind, own_root or root, blobs, waived=waived, shared_root=root)
    given = settings.model_dump(exclude={"kind"})
    return kubernetes_backend(root, blobs, waived=waived, **given)
