"""Settings come from one mapping of variables and one file; anything unknown or out of range is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.config.environment import config_files, load_settings, settings_keys
from fleet.config.reference import settings_reference
from fleet.config.settings import KubernetesBackendSettings
from fleet.kernel.errors import ConfigError

HOME = {"HOME": "/home/ann"}


def test_settings_of_an_empty_environment_are_the_packaged_ones() -> None:
    settings = load_settings(HOME)
    assert settings.home == Path("/home/ann/.local/state/swe-fleet")
    assert settings.pools == {}, "one agent a role"
    assert settings.lease.ttl_s == 15
    assert (settings.needs_log, settings.needs_cache, settings.needs_graph) == (True, True, True)


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"XDG_STATE_HOME": "/s"}, "/s/swe-fleet"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ann/.local/state/swe-fleet"),
        ({"XDG_STATE_HOME": "/s", "FLEET_HOME": "/f"}, "/f"),
        ({"FLEET_HOME": ""}, "/home/ann/.local/state/swe-fleet"),
    ],
)
def test_home_follows_variable_then_xdg_then_home(environ: dict[str, str], home: str) -> None:
    assert load_settings({**HOME, **environ}).home == Path(home)


def test_variable_wins_over_file_also_below_a_section(tmp_path: Path) -> None:
    (tmp_path / "fleet.yaml").write_text("ports: {log: 7001, cache: 7002}\n")
    settings = load_settings(
        {**HOME, "FLEET_CONFIG": str(tmp_path), "FLEET_PORTS_LOG": "7009", "FLEET_POOLS": "{qa: 1}"}
    )
    assert (settings.ports.log, settings.ports.cache) == (7009, 7002)
    assert settings.pools == {"qa": 1}
    assert load_settings({**HOME, "FLEET_MODELS_SERVE": "[coder, small]"}).models.serve == ("coder", "small")
    assert config_files(settings).overlay == tmp_path


def test_given_log_serves_as_cache_too() -> None:
    settings = load_settings({**HOME, "FLEET_REDIS_URL": "redis://:hunter2@db/0"})
    assert (settings.needs_log, settings.needs_cache, settings.needs_graph) == (False, False, True)
    assert "hunter2" not in repr(settings)


def test_given_graph_needs_a_password() -> None:
    with pytest.raises(ConfigError, match="set FLEET_NEO4J_PASSWORD"):
        load_settings({**HOME, "FLEET_NEO4J_URI": "bolt://db:7687"})
    given = load_settings({**HOME, "FLEET_NEO4J_URI": "bolt://db:7687", "FLEET_NEO4J_PASSWORD": "p"})
    assert given.neo4j.uri == "bolt://db:7687"
    assert not given.needs_graph


@pytest.mark.rule("GL-18", "GL-22")
@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"FLEET_REDIS_URI": "redis://x"}, "FLEET_REDIS_URI is no setting; did you mean FLEET_REDIS_URL"),
        ({"FLEET_QQQQ": "1"}, "see docs/configuration.md"),
        ({"FLEET_PORTS_LOG": "70000"}, "environment variable FLEET_PORTS_LOG: ports.log: "),
        ({"FLEET_REDIS_URL": "http://x"}, "redis_url: .*must start with redis://"),
        ({"FLEET_NEO4J_URI": "http://x", "FLEET_NEO4J_PASSWORD": "p"}, "neo4j.uri: .*must start with one of bolt://"),
        ({"FLEET_POOLS": "{developer"}, "FLEET_POOLS is not YAML"),
        ({"FLEET_POOLS": "{developer: -1}"}, "pools.developer"),
        ({"FLEET_LEASE_RENEW_S": "14"}, "renew_s must be at most half"),
        ({"FLEET_CONFIG": "/nowhere/at/all"}, "which is no directory"),
    ],
)
def test_variable_that_is_wrong_is_named_in_the_error(environ: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_settings({**HOME, **environ})


@pytest.mark.rule("GL-22")
@pytest.mark.parametrize(
    ("text", "environ", "reason"),
    [
        ("hmoe: /x\n", {}, "hmoe: Extra inputs are not permitted"),
        ("home: relative\n", {}, "home: must be an absolute path"),
        ("config: /x\n", {}, "config: can only be given as FLEET_CONFIG"),
        ("ports: 3\n", {"FLEET_PORTS_LOG": "1"}, "ports: must hold keys and values"),
        ("lease: {ttl_s: 1}\n", {}, "lease.ttl_s: Input should be greater"),
    ],
)
def test_file_that_is_wrong_is_named_with_path_and_reason(
    tmp_path: Path, text: str, environ: dict[str, str], reason: str
) -> None:
    (tmp_path / "fleet.yaml").write_text(text)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_settings({**HOME, **environ, "FLEET_CONFIG": str(tmp_path)})
    assert str(tmp_path / "fleet.yaml") in caught.value.message


def test_overlay_with_a_stray_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "flet.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"flet\.yaml replaces no config file"):
        load_settings({**HOME, "FLEET_CONFIG": str(tmp_path)})


def test_variables_of_the_tests_are_not_settings() -> None:
    assert load_settings({**HOME, "FLEET_TEST_REDIS_URL": "redis://x"}).redis_url is None


def test_every_setting_has_its_own_variable_and_a_sentence() -> None:
    keys = list(settings_keys())
    assert len({key.variable for key in keys}) == len(keys)
    assert all((key.field.description or "").endswith(".") for key in keys)


@pytest.mark.rule("GL-24")
def test_reference_has_one_row_for_every_key() -> None:
    text = settings_reference()
    for key in settings_keys():
        assert f"| `{key.name}` | `{key.variable}` |" in text
    assert "| `deploy.enabled` | `FLEET_DEPLOY_ENABLED` | `false` |" in text
    assert "| `home` | `FLEET_HOME` | `$XDG_STATE_HOME/swe-fleet`, else" in text
    assert "| `rate.streams` |" in text


def test_kubernetes_backend_needs_an_image_by_digest(tmp_path: Path) -> None:
    file, given = tmp_path / "fleet.yaml", {**HOME, "FLEET_CONFIG": str(tmp_path)}
    image = f"'toolbox@sha256:{'0' * 64}'"
    file.write_text(f"sandbox: {{backend: {{kind: kubernetes, image: {image}, token_file: null}}}}\n")
    backend = load_settings(given).sandbox.backend
    assert isinstance(backend, KubernetesBackendSettings)
    assert (backend.namespace, backend.token_file) == ("swe-fleet-runs", None)

    for wrong in ("kubernetes", "{kind: kubernetes, image: 'toolbox:latest'}"):
        file.write_text(f"sandbox: {{backend: {wrong}}}\n")
        with pytest.raises(ConfigError, match="image"):
            load_settings(given)


@pytest.mark.rule("RC-32")
def test_isolation_is_waived_only_by_name_and_with_the_switch(tmp_path: Path) -> None:
    assert load_settings(HOME).sandbox.waived == ()
    given = {**HOME, "FLEET_CONFIG": str(tmp_path)}
    (tmp_path / "fleet.yaml").write_text("sandbox: {allow_weak_isolation: true, waived: [disk, kernel_files]}\n")
    assert load_settings(given).sandbox.waived == ("disk", "kernel_files")
    for text in (
        "sandbox: {allow_weak_isolation: true}",
        "sandbox: {waived: [disk]}",
        "sandbox: {allow_weak_isolation: true, waived: [memory]}",
        "sandbox: {allow_weak_isolation: true, waived: [pids]}",
    ):
        (tmp_path / "fleet.yaml").write_text(text)
        with pytest.raises(ConfigError, match="sandbox"):
            load_settings(given)
