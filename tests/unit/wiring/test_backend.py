"""The sandbox backend is the one that the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config.environment import config_files, load_settings
from fleet.config.settings import (
    BubblewrapBackendSettings,
    ContainerBackendSettings,
    KubernetesBackendSettings,
    SandboxBackendSettings,
)
from fleet.kernel.errors import ConfigError
from fleet.sandbox.backends.bubblewrap.backend import BubblewrapBackend
from fleet.sandbox.backends.containers.backend import ContainerBackend
from fleet.sandbox.backends.kubernetes.backend import KubernetesBackend
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring.sandbox.backend import make_backend
from fleet.wiring.sandbox.plugins import active_policy

POLICY = active_policy(config_files(load_settings({"HOME": "/home/ann"})))
CLUSTER = KubernetesBackendSettings(kind="kubernetes", image=f"toolbox@sha256:{'0' * 64}", ca_file=None)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (BubblewrapBackendSettings(), BubblewrapBackend),
        (ContainerBackendSettings(kind="podman"), ContainerBackend),
        (CLUSTER, KubernetesBackend),
    ],
    ids=["bubblewrap", "podman", "kubernetes"],
)
def test_backend_is_that_of_the_settings(settings: SandboxBackendSettings, kind: type, tmp_path: Path) -> None:
    assert isinstance(make_backend(settings, tmp_path, MemoryBlobStore(), policy=POLICY, waived=()), kind)


def test_address_without_tls_is_refused_at_the_start(tmp_path: Path) -> None:
    settings = CLUSTER.model_copy(update={"url": "http://cluster.example"})
    with pytest.raises(ConfigError, match=r"sandbox\.backend\.url"):
        make_backend(settings, tmp_path, MemoryBlobStore(), policy=POLICY, waived=())
