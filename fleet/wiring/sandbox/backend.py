"""The sandbox backend that the settings name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.config.files import ConfigFiles
from fleet.config.settings import (
    BubblewrapBackendSettings,
    ContainerBackendSettings,
    KubernetesBackendSettings,
    SandboxBackendSettings,
    SessionDiskSettings,
)
from fleet.config.values import PluginSettings
from fleet.kernel.clock import Clock
from fleet.policy.rules.config import Policy
from fleet.sandbox.port import BackendParts, FolderKeeper, SandboxBackend, SandboxBackendPlugin
from fleet.trees.port import BlobStore
from fleet.wiring.plugins import Group, choose

if TYPE_CHECKING:
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
    from fleet.sandbox.egress.proxy import EgressSettings

SANDBOX_BACKENDS: Group[SandboxBackendPlugin[Any]] = Group(
    "swe_fleet.sandbox_backends",
    "sandbox backend",
    SandboxBackendPlugin,
    ("bubblewrap", "docker", "kubernetes", "podman"),
)
_KEY = "sandbox.backend"


@dataclass(frozen=True, slots=True)
class SandboxParts:
    """What the sandbox supervisor and the forge of one node share."""

    backend: SandboxBackend
    blobs: BlobStore
    state_root: Path
    clock: Clock

    @property
    def folders(self) -> FolderKeeper | None:
        """The backend as what keeps the folders of work sessions; None where it keeps none."""
        from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend

        return self.backend if isinstance(self.backend, BubblewrapBackend) else None


def make_backend(
    settings: SandboxBackendSettings,
    root: Path,
    blobs: BlobStore,
    *,
    policy: Policy,
    waived: Collection[str],
    own_root: Path | None = None,
    disk: SessionDiskSettings | None = None,
    egress: EgressSettings | None = None,
) -> SandboxBackend:
    """What holds the runs of this node.

    Args:
        root: where it keeps its files.
        own_root: where it keeps those of its runs, when supervisors of other nodes have `root` in common with it.
        waived: isolation that may be missing, by name (RC-32).
        disk: what work sessions may take. Default: that of the settings.
        egress: how proxies of bubblewrap runs with hosts behave. Default: public addresses alone.

    Raises:
        ConfigError: the cluster's address or certificates cannot be used, there is no such backend, or an option of
            it is wrong.
    """
    place = own_root or root
    match settings:
        case BubblewrapBackendSettings():
            return _bubblewrap(root, place, blobs, policy=policy, waived=waived, disk=disk, egress=egress)
        case ContainerBackendSettings():
            from fleet.sandbox.backends.containers.backend import ContainerBackend

            return ContainerBackend(settings.kind, place, blobs, waived=waived, shared_root=root)
        case KubernetesBackendSettings():
            from fleet.sandbox.backends.kubernetes.backend import kubernetes_backend

            return kubernetes_backend(root, blobs, waived=waived, **settings.model_dump(exclude={"kind"}))
        case _:
            chosen = choose(SANDBOX_BACKENDS, settings.kind, settings.options, where=f"fleet.yaml: {_KEY}")
            packaged = partial(_bubblewrap, root, place, blobs, policy=policy, waived=waived, disk=disk)
            parts = BackendParts(root=place, blobs=blobs, waived=waived, packaged=packaged)
            return chosen.plugin.make(chosen.options, parts)


def check_backend(settings: SandboxBackendSettings, files: ConfigFiles) -> None:
    """The backend is one that there is, with options that it takes; ConfigError otherwise."""
    if isinstance(settings, PluginSettings):
        where = f"{files.place('fleet.yaml', f'{_KEY}.kind')}: {_KEY}"
        choose(SANDBOX_BACKENDS, settings.kind, settings.options, where=where)


def _bubblewrap(
    root: Path,
    place: Path,
    blobs: BlobStore,
    *,
    policy: Policy,
    waived: Collection[str],
    disk: SessionDiskSettings | None,
    egress: EgressSettings | None = None,
) -> BubblewrapBackend:
    from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
    from fleet.sandbox.folders.live import FolderLimits
    from fleet.sandbox.folders.package_layers import LayerLimits

    given = disk or SessionDiskSettings()
    return BubblewrapBackend(
        place,
        blobs,
        waived=waived,
        toolchains=policy.toolchains,
        services=policy.services,
        egress=egress,
        shared_root=root,
        folders=FolderLimits(
            folders=given.folders,
            bases_bytes=given.bases_bytes,
            folders_bytes=given.folders_bytes,
            idle_s=given.idle_s,
            layers=LayerLimits(given.layers_bytes, given.layers_idle_s),
        ),
    )
