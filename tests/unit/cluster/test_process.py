"""A child dies with its parent, is ended by identity alone, and holds its pid file while it lives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.local.identity import ProcessIdentity, descendants, end_all, listening_ports
from cluster.local.process import (
    Child,
    Launch,
    check_port_free,
    free_port,
    last_lines,
    private_directory,
    spawn,
    write_private,
)
from fleet.kernel.errors import ConfigError, StoreUnavailable

SLEEPER = "import time; print('up', flush=True); time.sleep(60)"
STUBBORN = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"


def eventually(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.01)


def launch(directory: Path, code: str = SLEEPER) -> Launch:
    argv = [sys.executable, "-I", "-S", "-c", code]
    return Launch(name="sleeper", argv=argv, cwd=directory, log=directory / "log", pid_file=directory / "pid")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    children: list[Child] = []

    def start(code: str = SLEEPER) -> Child:
        child = spawn(launch(tmp_path, code))
        children.append(child)
        eventually(lambda: "up" in child.log_tail() or not child.is_alive)
        return child

    yield start
    for child in children:
        child.kill()
        eventually(lambda child=child: not child.is_alive)


async def test_child_has_its_own_session_and_no_environment(tmp_path: Path) -> None:
    child = spawn(
        launch(tmp_path, "import os,sys; print(os.getsid(0) == os.getpid(), dict(os.environ), sys.stdin.read())")
    )
    assert await child.wait() == 0
    answer = child.log_tail().replace("'LC_CTYPE': 'C.UTF-8'", "")
    assert answer.strip() == "True {}"


async def test_stop_of_a_polite_child_sends_sigterm_only(started: Callable[..., Child], tmp_path: Path) -> None:
    child = started()
    assert child.identity.is_alive
    assert await child.stop(grace_s=10) == -signal.SIGTERM
    assert not child.identity.is_alive
    assert not (tmp_path / "pid").exists()


async def test_stop_of_a_stubborn_child_kills_it_after_the_grace(started: Callable[..., Child]) -> None:
    assert await started(STUBBORN).stop(grace_s=0.1) == -signal.SIGKILL


async def test_spawn_over_a_living_child_ends_that_one_first(started: Callable[..., Child]) -> None:
    first = started()
    second = started()
    assert not first.is_alive
    assert second.is_alive


def test_spawn_keeps_the_output_of_the_run_before(started: Callable[..., Child], tmp_path: Path) -> None:
    started("print('up and down')")
    started()
    assert last_lines(tmp_path / "log.1", 3) == "up and down"


def test_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from tests.unit.cluster.test_process import launch\n"
        "from cluster.local.process import spawn; print(spawn(launch(Path(sys.argv[1]))).pid, flush=True); "
        "time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[3]
    argv = [sys.executable, "-c", code, str(tmp_path), str(root)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        identity = ProcessIdentity.of(int(parent.stdout.readline()))
        assert identity is not None
        parent.kill()
        eventually(lambda: not identity.is_alive)


def test_spawn_of_a_missing_program_ends_with_its_reason_in_the_log(tmp_path: Path) -> None:
    child = spawn(Launch(name="x", argv=["/no/such"], cwd=tmp_path, log=tmp_path / "log", pid_file=tmp_path / "pid"))
    eventually(lambda: not child.is_alive)
    assert child.returncode == 1
    assert "FileNotFoundError" in child.log_tail()


def test_spawn_in_a_missing_directory_is_store_unavailable(tmp_path: Path) -> None:
    broken = Launch(name="x", argv=["/x"], cwd=tmp_path / "no", log=tmp_path / "log", pid_file=tmp_path / "pid")
    with pytest.raises(StoreUnavailable, match="cannot start the x"):
        spawn(broken)


def test_identity_of_a_reused_pid_is_another(started: Callable[..., Child]) -> None:
    child = started()
    other = child.identity.model_copy(update={"started_ticks": child.identity.started_ticks - 1})
    assert not other.is_alive
    assert not other.send(signal.SIGKILL)
    assert not other.end(grace_s=0)
    assert child.is_alive


def test_identity_of_no_process_is_none() -> None:
    assert ProcessIdentity.of(2**22 + 1) is None
    assert ProcessIdentity.of_self().pid == os.getpid()


def test_identity_end_kills_what_ignores_sigterm(started: Callable[..., Child]) -> None:
    child = started(STUBBORN)
    assert child.identity.end(grace_s=0.1)
    assert child.returncode == -signal.SIGKILL


def test_end_all_counts_only_those_that_lived(started: Callable[..., Child]) -> None:
    child = started(STUBBORN)
    gone = child.identity.model_copy(update={"started_ticks": 1})
    assert end_all([gone, child.identity], grace_s=0.1) == 1
    assert not child.is_alive


def test_descendants_name_the_child(started: Callable[..., Child]) -> None:
    assert started().identity in descendants(os.getpid())


def test_listening_ports_are_those_of_the_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port in listening_ports(os.getpid())
        with pytest.raises(ConfigError, match=rf"port {port} .* set ports.log to another port"):
            check_port_free(port, what="the log store", key="ports.log")
    assert port not in listening_ports(os.getpid())
    assert listening_ports(2**22 + 1) == frozenset()


def test_free_port_lies_outside_the_ranges_of_others() -> None:
    port = free_port()
    assert 20_000 <= port < 32_768
    check_port_free(port, what="x", key="y")


def test_private_directory_and_file_are_for_the_owner_alone(tmp_path: Path) -> None:
    home = private_directory(tmp_path / "a" / "b")
    write_private(home / "secret", "old")
    write_private(home / "secret", "new")
    assert (home / "secret").read_text() == "new"
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["secret"]


def test_private_directory_below_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="set FLEET_HOME"):
        private_directory(tmp_path / "file" / "home")


def test_write_private_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private(tmp_path / "target", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
