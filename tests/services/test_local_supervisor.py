"""One supervisor per home: it starts, watches, restarts and stops the stores, and leaves nothing (no Ray here)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.local.detach import spawn_detached
from cluster.local.doctor import doctor
from cluster.local.identity import ProcessIdentity, descendants
from cluster.local.ray_head import RayAddress
from cluster.local.record import Addresses, RunningFleet, find_running, stop_running
from cluster.local.status import check_parts, memory_report
from cluster.local.supervisor import LocalFleet, State, run_until_stopped, supervised
from cluster.local.valkey import StoreKind, Valkey
from fleet.config.environment import load_settings
from fleet.config.settings import FleetSettings
from fleet.kernel.errors import ConfigError, InvalidInput, StoreUnavailable
from tests.support.services import Neo4jAddress

ROOT = Path(__file__).resolve().parents[2]
SUPERVISOR = """
import asyncio, os, sys
from cluster.local.supervisor import LocalFleet, run_until_stopped
from fleet.config.environment import load_settings
async def ready(fleet): print("ready", flush=True)
fleet = LocalFleet(load_settings(os.environ), with_ray=False)
asyncio.run(run_until_stopped(fleet, on_ready=ready))
"""


async def eventually(condition: Callable[[], object], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        await asyncio.sleep(0.02)


def given_graph(home: Path, graph: Neo4jAddress) -> dict[str, str]:
    return {
        "FLEET_HOME": str(home),
        "FLEET_NEO4J_URI": graph.uri,
        "FLEET_NEO4J_USER": graph.user,
        "FLEET_NEO4J_PASSWORD": graph.password,
        "FLEET_MEMORY_FLOOR_MB": "0",
    }


@pytest.fixture
def environ(tmp_path: Path, neo4j_address: Neo4jAddress) -> dict[str, str]:
    """Settings with a given graph, so that only the quick stores start."""
    return given_graph(tmp_path / "home", neo4j_address)


@pytest.fixture
def settings(environ: dict[str, str]) -> FleetSettings:
    return load_settings(environ)


class Recorder:
    """Hooks that remember what they were called with, and fail on demand."""

    def __init__(self, error: Exception | None = None) -> None:
        self.booted: list[Addresses] = []
        self.stopped: list[Addresses] = []
        self._error = error

    def check(self) -> None:
        """Nothing is wrong with any file."""

    async def boot(self, addresses: Addresses) -> str | None:
        self.booted.append(addresses)
        if self._error:
            raise self._error
        return "http://127.0.0.1:1/"

    async def stop(self, addresses: Addresses) -> None:
        self.stopped.append(addresses)


def nothing_lives(home: Path, before: set[ProcessIdentity]) -> bool:
    return set(descendants(os.getpid())) <= before and not (home / "fleet.json").exists()


async def test_fleet_from_start_to_stop_is_found_healthy_and_leaves_only_data(
    settings: FleetSettings, environ: dict[str, str]
) -> None:
    before = set(descendants(os.getpid()))
    seen: list[tuple[str, State]] = []
    hooks = Recorder()
    fleet = LocalFleet(settings, hooks=hooks, progress=lambda name, state: seen.append((name, state)), with_ray=False)
    running = await fleet.start()
    try:
        assert find_running(settings.home) == running == fleet.running
        assert (settings.home / "fleet.json").stat().st_mode & 0o777 == 0o600
        assert set(running.services) == {"log store", "cache store"}
        health = {part.name: part.state for part in await check_parts(running)}
        assert health == {"log store": "ok", "cache store": "ok", "graph store": "ok", "front": "failed"}
        roles = {row.role for row in memory_report(running.supervisor, running.services).processes}
        assert {"supervisor", "log store", "cache store"} <= roles
        assert [row.name for row in await doctor(environ) if not row.ok] == ["front"]
        with pytest.raises(ConfigError, match="already runs"):
            await LocalFleet(settings, with_ray=False).start()
        assert find_running(settings.home) == running
    finally:
        await fleet.stop()
    assert nothing_lives(settings.home, before)
    assert hooks.booted == hooks.stopped == [running.addresses]
    assert (
        seen.index(("log store", "ready")) < seen.index(("actors", "starting")) < seen.index(("log store", "stopped"))
    )
    await fleet.stop()


async def test_service_that_dies_is_restarted_and_recorded_again(settings: FleetSettings) -> None:
    seen: list[tuple[str, State]] = []
    fleet = LocalFleet(settings, progress=lambda name, state: seen.append((name, state)), with_ray=False)
    running = await fleet.start()
    watching = asyncio.create_task(fleet.supervise())
    try:
        killed = running.services["log store"]
        assert killed.send(signal.SIGKILL)
        await eventually(lambda: seen[-1] == ("log store", "ready") and ("log store", "restarting") in seen)
        again = find_running(settings.home)
        assert again is not None
        assert again.services["log store"] != killed
        assert again.addresses == running.addresses
        assert {part.state for part in await check_parts(again)} == {"ok"}
    finally:
        fleet.ask_stop()
        await watching
        await fleet.stop()


class OneProcess:
    """A Ray that is one process without work."""

    temp_dir: Path | None = None

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def dead_part(self) -> str | None:
        return "gcs_server" if self.process and self.process.poll() is not None else None

    def start(self) -> RayAddress:
        self.process = subprocess.Popen(["/bin/sleep", "600"])
        self.temp_dir = Path("nowhere")
        return RayAddress("127.0.0.1:1", Path("no-token"), None, Path("nowhere"))

    def die(self) -> None:
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


async def test_fleet_whose_ray_died_ends_at_once_and_says_what_to_do(settings: FleetSettings) -> None:
    before = set(descendants(os.getpid()))
    ray, hooks, seen = OneProcess(), Recorder(), list[tuple[str, State]]()
    fleet = LocalFleet(settings, hooks=hooks, progress=lambda name, state: seen.append((name, state)), head=ray)

    async def kill(running: RunningFleet) -> None:
        ray.die()

    with pytest.raises(StoreUnavailable, match=r"gcs_server has ended.*nothing that was recorded is lost.*`fleet up`"):
        await run_until_stopped(fleet, on_ready=kill)
    assert ("ray", "failed") in seen
    assert (len(hooks.booted), hooks.stopped) == (1, []), "actors that are gone were asked to stop"
    assert nothing_lives(settings.home, before)


async def test_work_beside_a_fleet_is_cancelled_when_its_ray_dies(settings: FleetSettings) -> None:
    before = set(descendants(os.getpid()))
    ray = OneProcess()
    fleet = LocalFleet(settings, head=ray)
    await fleet.start()

    async def work() -> None:
        async with supervised(fleet):
            ray.die()
            await asyncio.Event().wait()

    with pytest.raises(StoreUnavailable, match="gcs_server has ended"):
        await work()
    assert nothing_lives(settings.home, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_the_work_beside_a_fleet(settings: FleetSettings, number: signal.Signals) -> None:
    before = set(descendants(os.getpid()))
    fleet = LocalFleet(settings, with_ray=False)
    await fleet.start()

    async def work() -> None:
        async with supervised(fleet):
            os.kill(os.getpid(), number)
            await asyncio.sleep(30)
            pytest.fail("the work went on")

    with pytest.raises(asyncio.CancelledError):
        await work()
    assert nothing_lives(settings.home, before)


async def test_work_beside_a_fleet_ends_it_and_fails_as_itself(settings: FleetSettings) -> None:
    before = set(descendants(os.getpid()))
    for error in (None, InvalidInput("no story", field="story")):
        hooks = Recorder()
        fleet = LocalFleet(settings, hooks=hooks, with_ray=False)
        await fleet.start()
        found: InvalidInput | None = None
        try:
            async with supervised(fleet):
                if error:
                    raise error
        except InvalidInput as raised:
            found = raised
        assert found is error
        assert hooks.stopped == hooks.booted
        assert nothing_lives(settings.home, before)


async def test_fleet_with_all_addresses_given_starts_nothing(settings: FleetSettings, redis_url: str) -> None:
    given = settings.model_copy(update={"redis_url": None})
    document = given.model_dump(exclude={"redis_url", "neo4j"})
    document |= {"redis_url": redis_url, "neo4j": settings.neo4j}
    before = set(descendants(os.getpid()))
    fleet = LocalFleet(FleetSettings.model_validate(document), with_ray=False)
    running = await fleet.start()
    try:
        assert set(descendants(os.getpid())) <= before
        assert running.services == {}
        assert running.addresses.redis_url == running.addresses.cache_url == redis_url
    finally:
        await fleet.stop()


async def test_boot_that_fails_leaves_nothing_half_started(settings: FleetSettings) -> None:
    before = set(descendants(os.getpid()))
    hooks = Recorder(StoreUnavailable("no actor today"))
    with pytest.raises(StoreUnavailable, match="no actor today"):
        await LocalFleet(settings, hooks=hooks, with_ray=False).start()
    assert nothing_lives(settings.home, before)
    assert hooks.stopped == hooks.booted


async def test_nothing_starts_when_a_file_is_wrong(settings: FleetSettings) -> None:
    class Wrong(Recorder):
        def check(self) -> None:
            raise ConfigError("serve.yaml: rpc_port: port 1 is that of another program")

    seen: list[str] = []
    hooks = Wrong()
    with pytest.raises(ConfigError, match="rpc_port"):
        await LocalFleet(settings, hooks=hooks, progress=lambda name, _: seen.append(name), with_ray=False).start()
    assert (seen, hooks.booted, hooks.stopped) == ([], [], [])
    assert not (settings.home / "log").exists()


async def test_service_that_cannot_start_stops_the_others(settings: FleetSettings) -> None:
    before = set(descendants(os.getpid()))
    (settings.home / "cache").mkdir(parents=True)
    (settings.home / "cache" / "password").mkdir()
    with pytest.raises(ConfigError, match="cannot read the password in .*cache"):
        await LocalFleet(settings, with_ray=False).start()
    assert nothing_lives(settings.home, before)


async def test_start_that_takes_too_long_is_undone(settings: FleetSettings) -> None:
    class Slow(Recorder):
        async def boot(self, addresses: Addresses) -> str | None:
            await asyncio.Event().wait()
            return None

    before = set(descendants(os.getpid()))
    quick = settings.model_copy(update={"start_timeout_s": 1})
    with pytest.raises(StoreUnavailable, match="not ready within 1 s"):
        await LocalFleet(quick, hooks=Slow(), with_ray=False).start()
    assert nothing_lives(settings.home, before)


async def test_signal_while_starting_stops_quietly(settings: FleetSettings) -> None:
    class Interrupted(Recorder):
        async def boot(self, addresses: Addresses) -> str | None:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
            return None

    async def never(fleet: RunningFleet) -> None:
        raise AssertionError("the fleet must not become ready")

    before = set(descendants(os.getpid()))
    await run_until_stopped(LocalFleet(settings, hooks=Interrupted(), with_ray=False), on_ready=never)
    assert nothing_lives(settings.home, before)


def supervisor_environment(environ: dict[str, str]) -> dict[str, str]:
    return {**environ, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}


def test_detached_fleet_is_found_and_stopped_by_its_home(settings: FleetSettings, environ: dict[str, str]) -> None:
    argv = [sys.executable, "-c", SUPERVISOR]
    running = spawn_detached(argv, settings.home, environ=supervisor_environment(environ), within_s=60)
    assert find_running(settings.home) == running
    assert running.supervisor.pid != os.getpid()
    assert stop_running(settings.home, within_s=30)
    assert not running.supervisor.is_alive
    assert not any(service.is_alive for service in running.services.values())
    assert find_running(settings.home) is None
    os.waitpid(running.supervisor.pid, 0)


async def test_killed_supervisor_takes_its_services_along_and_the_next_start_works(
    settings: FleetSettings, environ: dict[str, str]
) -> None:
    argv = [sys.executable, "-c", SUPERVISOR]
    env = supervisor_environment(environ)
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"ready\n"
        running = find_running(settings.home)
        supervisor.kill()
    assert running is not None
    await eventually(lambda: not any(service.is_alive for service in running.services.values()))
    assert find_running(settings.home) is None
    assert (settings.home / "fleet.json").exists()
    fleet = LocalFleet(settings, with_ray=False)
    again = await fleet.start()
    await fleet.stop()
    assert again.supervisor.pid == os.getpid()


async def test_orphan_on_the_data_of_the_log_is_ended_before_a_new_start(settings: FleetSettings) -> None:
    orphan = Valkey(StoreKind.LOG, settings.home / "log")
    await orphan.start()
    fleet = LocalFleet(settings, with_ray=False)
    running = await fleet.start()
    try:
        assert not orphan.is_alive
        assert running.services["log store"] != orphan.identity
    finally:
        await fleet.stop()
