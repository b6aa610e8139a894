"""Settings of what packages bring: a kind, its options, and nothing beside them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fleet.config.environment import load_settings
from fleet.config.notifications import PluginTargetSettings
from fleet.config.settings import FleetSettings, PluginForgeSettings
from fleet.config.values import PluginSettings
from fleet.kernel.errors import ConfigError


def settings_of(folder: Path, text: str) -> FleetSettings:
    """The settings of a fleet.yaml."""
    (folder / "fleet.yaml").write_text(text)
    return load_settings({"HOME": str(folder), "FLEET_CONFIG": str(folder)})


def test_name_alone_is_enough_where_a_package_wants_nothing_else(tmp_path: Path) -> None:
    assert settings_of(tmp_path, "blobs: sqlite").blobs == PluginSettings(kind="sqlite")
    assert settings_of(tmp_path, "sandbox: {backend: own}").sandbox.backend == PluginSettings(kind="own")
    assert settings_of(tmp_path, "forge: own").forge == PluginForgeSettings(kind="own")
    given = {"HOME": str(tmp_path), "FLEET_BLOBS": "sqlite"}
    assert load_settings(given).blobs == PluginSettings(kind="sqlite")


def test_options_stay_as_they_are_written_and_go_to_other_processes(tmp_path: Path) -> None:
    text = "notifications: {targets: [{name: a, kind: pager, events: [incident_opened], options: {team: [x, 3]}}]}"
    (target,) = settings_of(tmp_path, text).notifications.targets
    assert isinstance(target, PluginTargetSettings)
    assert (target.options, target.secret_name, target.events) == ({"team": ["x", 3]}, None, ("incident_opened",))
    assert pickle.loads(pickle.dumps(target)) == target


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("blobs: {kind: own, url: x}", r"blobs\.plugin: 'own' is no kind .* under options, not beside them: url"),
        ("blobs: {kind: Own}", r"blobs\.plugin\.kind: String should match"),
        ("blobs: {url: x}", "blobs: 'kind' must be one of 'file', 'redis', 's3', or what an installed package brings"),
        ("blobs: {kind: own, options: 5}", r"blobs\.plugin\.options: Input should be"),
        ("sandbox: {backend: {kind: [x]}}", r"sandbox\.backend: 'kind' must be one of 'bubblewrap', 'podman'"),
        ("forge: {kind: own, token: ghp_0123456789}", r"forge\.plugin\.token: .*secret://<name>"),
        ("forge: {kind: own, git: 'https://x.example/a/b'}", r"forge\.plugin: .*pushing there takes a token"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        settings_of(tmp_path, text)
    assert "ghp_" not in caught.value.message
