"""Where packages come from, by the settings or by what this machine's own tools are set up for."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from fleet.config.settings import RegistrySettings
from fleet.kernel.errors import ConfigError
from fleet.wiring.sandbox.environments import pip_archive
from fleet.wiring.sandbox.registries import host_registries

NOTHING = {"PIP_CONFIG_FILE": "/dev/null"}


@pytest.mark.rule("RC-111")
def test_public_registry_is_asked_where_nothing_is_configured(tmp_path: Path) -> None:
    access = host_registries("rust", None, NOTHING, tmp_path).access
    assert (access.addresses, access.config) == ({}, None)
    assert "index.crates.io" in access.hosts


@pytest.mark.rule("RC-111")
def test_index_of_pip_is_taken_with_the_password_that_this_machine_keeps_for_it(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://10.1.2.3/simple\nextra-index-url = http://127.0.0.1:99/x\n"
    )
    (tmp_path / ".netrc").write_text("machine 10.1.2.3 login ada password p@ss\n")
    (tmp_path / ".netrc").chmod(0o600)
    found = host_registries("python", None, {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}, tmp_path)
    assert found.access.addresses == {
        "PIP_INDEX_URL": "https://ada:p%40ss@10.1.2.3/simple",
        "PIP_EXTRA_INDEX_URL": "http://registry-1.this-machine:99/x",
        "PIP_TRUSTED_HOST": "registry-1.this-machine",
    }
    assert found.access.hosts[:2] == ("10.1.2.3:443", "registry-1.this-machine:99")
    assert {"10.1.2.3", "127.0.0.1"} <= set(found.egress.allow_addresses)


@pytest.mark.rule("RC-111")
async def test_name_of_a_registry_on_this_machine_is_known_to_the_proxy_alone(tmp_path: Path) -> None:
    found = host_registries("go", None, {"GOPROXY": "http://localhost:8081,direct"}, tmp_path)
    assert found.access.addresses == {"GOPROXY": "http://registry-1.this-machine:8081"}
    assert await found.egress.resolve("registry-1.this-machine") == ["127.0.0.1"]
    assert await found.egress.resolve("127.0.0.1") == ["127.0.0.1"]


@pytest.mark.rule("RC-111")
def test_registry_of_npm_comes_as_a_file_with_its_password(tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text("; mine\nregistry=https://bob:geheim@10.9.9.9/npm/\n")
    access = host_registries("node", None, {}, tmp_path).access
    assert access.config == (
        "registry=https://10.9.9.9/npm/\n//10.9.9.9/npm/:username=bob\n//10.9.9.9/npm/:_password=geheim\n"
    )
    assert access.addresses == {}


@pytest.mark.rule("RC-111")
def test_settings_name_the_variable_with_the_address_and_further_hosts(tmp_path: Path) -> None:
    given = RegistrySettings(url_env="OUR_INDEX", hosts=(".packages.example.com",))
    access = host_registries("python", given, {"OUR_INDEX": "http://10.0.0.7/i", **NOTHING}, tmp_path).access
    assert access.addresses["PIP_INDEX_URL"] == "http://10.0.0.7/i"
    assert access.hosts[0] == "10.0.0.7:80"
    assert access.hosts[-1] == ".packages.example.com"
    for value in ("", "file:///x"):
        with pytest.raises(ConfigError, match="OUR_INDEX"):
            host_registries("python", given, {"OUR_INDEX": value}, tmp_path)


def test_broken_configuration_of_a_tool_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_bytes(b"\xff[broken")
    (tmp_path / ".npmrc").write_bytes(b"\xff")
    (tmp_path / ".netrc").write_text("what\n")
    environ = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_INDEX_URL": "http://10.0.0.8/i"}
    assert host_registries("python", None, environ, tmp_path).access.addresses["PIP_INDEX_URL"] == "http://10.0.0.8/i"
    assert host_registries("node", None, {}, tmp_path).access.config is None


def test_certificates_of_this_machine_go_along(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("certificates")
    environ = {**NOTHING, "PIP_CERT": "/no/such/file", "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    assert host_registries("python", None, environ, tmp_path).access.certificates == b"certificates"


def test_pip_is_one_archive_that_python_runs() -> None:
    content = pip_archive()
    assert content is not None
    assert "pip/__main__.py" in zipfile.ZipFile(BytesIO(content)).namelist()
