"""A home remembers its fleet; a dead supervisor is recognised, and what it left is ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity
from cluster.local.process import Launch, spawn
from cluster.local.record import (
    Addresses,
    HomeLock,
    Remains,
    RunningFleet,
    clean_stale,
    find_running,
    save_fleet,
    stop_running,
)
from cluster.local.status import memory_report, role_of
from fleet.kernel.errors import ConfigError

ADDRESSES = Addresses(
    redis_url="redis://:hunter2@h/0",
    cache_url="redis://:hunter2@h/0",
    neo4j_uri="bolt://h",
    neo4j_user="root",
    neo4j_password="hunter2",
    neo4j_database="neo4j",
)


def a_fleet(home: Path, supervisor: ProcessIdentity) -> RunningFleet:
    return RunningFleet(home=home, supervisor=supervisor, started_at_ms=1, addresses=ADDRESSES)


def test_find_running_returns_what_a_living_supervisor_saved(tmp_path: Path) -> None:
    fleet = a_fleet(tmp_path, ProcessIdentity.of_self())
    save_fleet(fleet)
    assert find_running(tmp_path) == fleet
    assert (tmp_path / "fleet.json").stat().st_mode & 0o777 == 0o600
    assert "hunter2" not in repr(fleet)


@pytest.mark.parametrize("text", ["", "{}", '{"home": 1}'])
def test_find_running_of_a_damaged_file_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    assert find_running(tmp_path) is None


def test_find_running_of_a_dead_supervisor_is_none(tmp_path: Path) -> None:
    me = ProcessIdentity.of_self()
    save_fleet(a_fleet(tmp_path, me.model_copy(update={"started_ticks": me.started_ticks - 1})))
    assert find_running(tmp_path) is None
    assert find_running(tmp_path / "nowhere") is None


def test_lock_is_held_by_one_only_and_names_its_holder(tmp_path: Path) -> None:
    first, second = HomeLock(tmp_path), HomeLock(tmp_path)
    first.take()
    with pytest.raises(ConfigError, match=rf"already runs, starts or stops .*process {os.getpid()}"):
        second.take()
    first.release()
    second.take()
    second.release()
    second.release()


def test_clean_stale_ends_what_a_dead_supervisor_left(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"]
    orphan = spawn(Launch(name="x", argv=argv, cwd=tmp_path, log=tmp_path / "log", pid_file=tmp_path / "pid"))
    ray = tmp_path / "r"
    (ray / "session_1" / "logs").mkdir(parents=True)
    (ray / "session_1" / "logs" / "gcs.out").write_text("the end")
    me = ProcessIdentity.of_self()
    save_fleet(a_fleet(tmp_path, me.model_copy(update={"started_ticks": 1})))
    Remains(processes=(orphan.identity,), ray_temp_dir=ray).save(tmp_path)
    assert clean_stale(tmp_path) == 1
    assert not orphan.is_alive
    assert not ray.exists()
    assert (tmp_path / "ray-logs" / "gcs.out").read_text() == "the end"
    assert not (tmp_path / "fleet.json").exists()
    assert clean_stale(tmp_path) == 0


def test_stop_running_without_a_fleet_says_so(tmp_path: Path) -> None:
    assert not stop_running(tmp_path, within_s=60)
    assert not stop_running(tmp_path / "nowhere", within_s=60)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "role"),
    [
        (["ray::council:0"], "council:0"),
        (["ray::council:0.propose"], "council:0.propose"),
        (["ray::IDLE", ""], "IDLE"),
        (["/x/core/src/ray/gcs/gcs_server", "--log_dir=x"], "ray gcs"),
        (["ray-dashboard-JobHead-0", "(python)"], "ray dashboard"),
        (["/x/jre/bin/java", "@/h/graph/jvm.args"], "graph store"),
        (["/usr/bin/git", "status"], "git"),
        ([], "unknown"),
    ],
)
def test_role_of_a_command_line_is_the_name_that_people_know(arguments: list[str], role: str) -> None:
    assert role_of(arguments) == role


def test_memory_report_counts_the_supervisor_once() -> None:
    report = memory_report(ProcessIdentity.of_self(), {})
    mine = [row for row in report.processes if row.role == "supervisor"]
    assert [row.pid for row in mine] == [os.getpid()]
    assert report.total_kb >= mine[0].pss_kb > 1_000
