"""What is missing is named in one line before anything starts."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from cluster.local.detach import spawn_detached
from cluster.local.doctor import Check, doctor
from cluster.local.preflight import check_given_stores, check_machine, check_rpc_port, ping_redis
from cluster.local.record import find_running
from cluster.local.service import package_directory, recorded_secret
from fleet.config.environment import config_files, load_settings
from fleet.config.settings import FleetSettings, ServeSettings
from fleet.kernel.errors import ConfigError, StoreUnavailable


def settings_of(home: Path, **variables: str) -> FleetSettings:
    return load_settings({"FLEET_HOME": str(home), **variables})


def test_machine_with_too_little_memory_names_both_figures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only \d+ MiB of memory are available, a fleet needs 99999999"):
        check_machine(settings_of(tmp_path, FLEET_MEMORY_FLOOR_MB="99999999"))


def test_machine_with_a_port_in_use_names_port_and_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        with pytest.raises(ConfigError, match=rf"port {port} .*FLEET_PORTS_GATEWAY"):
            check_machine(settings_of(tmp_path, FLEET_PORTS_GATEWAY=port))
        # A port of something that does not start here does not matter.
        given = {"FLEET_REDIS_URL": "redis://h", "FLEET_PORTS_LOG": port, "FLEET_MEMORY_FLOOR_MB": "0"}
        check_machine(settings_of(tmp_path, **given))


def test_port_of_grpc_that_something_else_has_is_named_with_its_holder(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, FLEET_PORTS_GATEWAY="18123", FLEET_REDIS_URL="redis://h", FLEET_PORTS_LOG="18124")
    packaged = config_files(settings).load("serve.yaml", ServeSettings)

    def check(port: int | None) -> None:
        check_rpc_port(settings, packaged.model_copy(update={"rpc_port": port}))

    check(None)
    with pytest.raises(ConfigError, match=r"rpc_port: port 18123 is that of the HTTP front \(ports\.gateway\)"):
        check(18123)
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"rpc_port: port {taken} is that of another program") as caught:
            check(taken)
    assert caught.value.details["key"] == "rpc_port"
    # Free by now, and the port of a store that does not start here.
    check(taken)
    check(18124)


async def test_given_log_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, FLEET_REDIS_URL="redis://:hunter2@127.0.0.1:1/0")
    with pytest.raises(StoreUnavailable, match="FLEET_REDIS_URL does not answer") as caught:
        await check_given_stores(settings)
    assert "hunter2" not in caught.value.message


async def test_given_graph_that_does_not_answer_is_named(tmp_path: Path) -> None:
    given = {"FLEET_NEO4J_URI": "bolt://127.0.0.1:1", "FLEET_NEO4J_PASSWORD": "hunter2"}
    with pytest.raises(StoreUnavailable, match="bolt://127.0.0.1:1 does not answer"):
        await check_given_stores(settings_of(tmp_path, **given))


async def test_given_url_that_is_nonsense_is_named() -> None:
    with pytest.raises(StoreUnavailable, match="of KEY does not answer"):
        await ping_redis(SecretStr("redis://h:port/0"), key="KEY")


def test_package_that_is_missing_is_named_with_the_way_out() -> None:
    with pytest.raises(StoreUnavailable, match="no-such-package is not installed.*FLEET_REDIS_URL"):
        package_directory("no_such_package")


def test_recorded_secret_stays_the_same(tmp_path: Path) -> None:
    first = recorded_secret(tmp_path / "password")
    assert len(first) >= 32
    assert recorded_secret(tmp_path / "password") == first


async def test_doctor_without_a_fleet_reports_every_check_and_changes_nothing(tmp_path: Path) -> None:
    async def sandbox(settings: FleetSettings) -> list[Check]:
        return [Check(name="sandbox", ok=False, found="no user namespaces", mend="enable them")]

    home = tmp_path / "home"
    rows = await doctor({"FLEET_HOME": str(home), "FLEET_MEMORY_FLOOR_MB": "0"}, extra=[sandbox])
    assert [row.name for row in rows if not row.ok] == ["sandbox"]
    assert {"python", "C library", "configuration", "memory", "disk", "fleet", "ports", "given stores"} <= {
        row.name for row in rows
    }
    assert not home.exists()


async def test_doctor_with_findings_names_each_mend(tmp_path: Path) -> None:
    environ = {
        "FLEET_HOME": str(tmp_path),
        "FLEET_MEMORY_FLOOR_MB": "99999999",
        "FLEET_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    failed = {row.name: row.mend for row in await doctor(environ) if not row.ok}
    assert set(failed) == {"memory", "given stores"}
    assert "FLEET_REDIS_URL" in failed["given stores"]


async def test_doctor_with_a_bad_setting_reports_it_and_goes_on() -> None:
    failed = [row for row in await doctor({"FLEET_HOMM": "/x"}) if not row.ok]
    assert [(row.name, row.mend) for row in failed] == [("configuration", "did you mean FLEET_HOME?")]


@pytest.mark.parametrize(("status", "error"), [(2, ConfigError), (5, StoreUnavailable)])
def test_detached_supervisor_that_fails_shows_its_last_lines(tmp_path: Path, status: int, error: type) -> None:
    argv = [sys.executable, "-c", f"import sys; print('no memory for this'); sys.exit({status})"]
    with pytest.raises(error, match=rf"exit status {status}.*\n.*no memory for this"):
        spawn_detached(argv, tmp_path, environ={}, within_s=20)
    assert find_running(tmp_path) is None


def test_detached_supervisor_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(StoreUnavailable, match=r"not ready within 0\.2 s"):
        spawn_detached(argv, tmp_path, environ={}, within_s=0.2)


def test_detached_supervisor_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot start /no/such"):
        spawn_detached(["/no/such"], tmp_path, environ={}, within_s=60)
