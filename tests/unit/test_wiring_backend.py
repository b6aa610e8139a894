"""The sandbox backend is the one that the settings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.adapters.memory import MemoryBlobStore
from fleet.adapters.sandbox import BubblewrapBackend, ContainerBackend, KubernetesBackend
from fleet.config import (
    BubblewrapBackendSettings,
    ContainerBackendSettings,
    KubernetesBackendSettings,
    SandboxBackendSettings,
    config_files,
    load_settings,
)
from fleet.errors import ConfigError
from fleet.wiring.backend import make_backend
from fleet.wiring.plugins import active_policy

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
