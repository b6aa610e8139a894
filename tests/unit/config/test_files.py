"""The overlay replaces whole files; an unknown name is an error; every file has a digest."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from fleet.config.files import ConfigFiles, packaged_directory
from fleet.config.settings import RateSettings, ServeSettings
from fleet.kernel.digest import digest_of
from fleet.kernel.errors import ConfigError


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    directory = tmp_path / "packaged"
    (directory / "prompts").mkdir(parents=True)
    (directory / "rate.yaml").write_text("requests_per_minute: 10\nstreams: 2\n")
    (directory / "prompts" / "draft.md").write_text("Draft.\n")
    return directory


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    directory.mkdir()
    return directory


def test_load_without_overlay_reads_the_packaged_file(packaged: Path) -> None:
    assert ConfigFiles(packaged).load("rate.yaml", RateSettings).streams == 2


def test_load_with_overlay_reads_its_file_alone(packaged: Path, overlay: Path) -> None:
    (overlay / "rate.yaml").write_text("requests_per_minute: 3\n")
    with pytest.raises(ConfigError, match=r"site/rate\.yaml: streams"):
        ConfigFiles(packaged, overlay).load("rate.yaml", RateSettings)


@pytest.mark.rule("GL-23")
def test_digests_with_overlay_are_those_of_the_active_files(packaged: Path, overlay: Path) -> None:
    (overlay / "rate.yaml").write_text("streams: 9\n")
    (overlay / "prompts").mkdir()
    (overlay / "prompts" / "own.md").write_text("Own.\n")
    assert ConfigFiles(packaged, overlay).digests() == {
        "prompts/draft.md": digest_of(b"Draft.\n"),
        "prompts/own.md": digest_of(b"Own.\n"),
        "rate.yaml": digest_of(b"streams: 9\n"),
    }


@pytest.mark.rule("GL-22")
def test_names_with_a_file_that_replaces_nothing_is_refused(packaged: Path, overlay: Path) -> None:
    (overlay / "rates.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"rates\.yaml replaces no config file") as caught:
        ConfigFiles(packaged, overlay).names()
    assert caught.value.details["allowed"] == ["prompts/draft.md", "rate.yaml"]


def test_path_of_a_missing_file_names_where_it_looked(packaged: Path, overlay: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml is missing; looked in .*site and .*packaged"):
        ConfigFiles(packaged, overlay).path("none.yaml")


@pytest.mark.parametrize("name", ["../rate.yaml", "/etc/hostname", "prompts/../../x.yaml"])
def test_path_outside_the_directory_is_refused(packaged: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="leaves the config directory"):
        ConfigFiles(packaged).path(name)


def test_read_of_a_broken_file_is_a_config_error(packaged: Path) -> None:
    (packaged / "rate.yaml").unlink()
    # A file whose first byte cannot be read, for every user.
    (packaged / "rate.yaml").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match="cannot read"):
        ConfigFiles(packaged).read("rate.yaml")


def test_packaged_serve_settings_are_valid_and_stay_on_loopback() -> None:
    settings = ConfigFiles(packaged_directory()).load("serve.yaml", ServeSettings)
    assert settings.host == "127.0.0.1"
    assert settings.origins == ()


def test_every_packaged_yaml_file_is_strict() -> None:
    files = ConfigFiles(packaged_directory())
    documents = [name for name in files.names() if name.endswith(".yaml")]
    assert {"fleet.yaml", "serve.yaml"} <= set(documents)
    for name in documents:
        assert files.document(name), name


def test_grpc_needs_a_front_that_is_open_to_the_network() -> None:
    given = ConfigFiles(packaged_directory()).load("serve.yaml", ServeSettings).model_dump()
    assert given["rpc_port"] is None
    with pytest.raises(ValidationError, match="set host to 0.0.0.0"):
        ServeSettings.model_validate(given | {"rpc_port": 9000})
    assert ServeSettings.model_validate(given | {"rpc_port": 9000, "host": "0.0.0.0"}).rpc_port == 9000
