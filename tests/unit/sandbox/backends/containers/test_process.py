"""One container from start to end, with an engine that is a script and starts PID 1 as an ordinary process."""

from __future__ import annotations

import asyncio
import platform
import sys
from pathlib import Path

import pytest

from fleet.kernel.errors import SandboxUnavailable
from fleet.policy.runs.spec import Limits
from fleet.sandbox.backends.bubblewrap.seccomp import filter_bytes
from fleet.sandbox.backends.bubblewrap.stop import Stop
from fleet.sandbox.backends.containers.engine import Engine
from fleet.sandbox.backends.containers.launch import EngineName, enter_request
from fleet.sandbox.backends.containers.process import ContainerEnded, ContainerLaunch, run_container
from fleet.sandbox.backends.output import RunOutput
from fleet.sandbox.folders.stage import INSIDE
from tests.support.sandbox import eventually

STARTED = f"exec {sys.executable} -IS {INSIDE}/enter.py filter link"


def engine_at(folder: Path, *, name: EngineName = "podman", start: str = STARTED, is_oom: bool = False) -> Engine:
    """An engine whose container begins with `start`."""
    script = f"""#!/bin/sh
cd {folder}
case "$1 $3" in
run*) echo $$ >pid; {start};;
*Pid*) cat pid;;
*OOMKilled*) echo {str(is_oom).lower()};;
esac
"""
    program = folder / "engine"
    program.write_text(script)
    program.chmod(0o755)
    (folder / "filter").write_bytes(filter_bytes(platform.machine()))
    return Engine(name, program=program)


def launch_in(folder: Path, script: str) -> ContainerLaunch:
    limits = Limits(overall_s=20, idle_s=20)
    env = {"PATH": "/usr/bin:/bin"}
    return ContainerLaunch(
        args=["run"],
        name="fleet-x",
        request=enter_request(("sh", "-c", script), env, {}, cwd=str(folder), has_stdin=False, limits=limits),
        limits=limits,
        pid_file=folder / "pid",
        link=folder / "link",
        disk_usage=lambda: 0,
        output=RunOutput(limits.output_bytes),
    )


async def ran(folder: Path, script: str, engine: Engine) -> ContainerEnded:
    return await run_container(engine, launch_in(folder, script), Stop())


@pytest.mark.rule("RC-13", "RC-14")
@pytest.mark.parametrize("name", ["podman", "docker"])
@pytest.mark.parametrize(
    ("script", "reason", "code"), [("true", "ok", 0), ("exit 3", "exit_nonzero", 3), ("kill -9 $$", "signal", 137)]
)
async def test_command_that_ends_by_itself(
    tmp_path: Path, name: EngineName, script: str, reason: str, code: int
) -> None:
    ended = await ran(tmp_path, script, engine_at(tmp_path, name=name))

    assert (ended.reason, ended.exit_code, ended.is_oom_seen) == (reason, code, False)


@pytest.mark.rule("RC-19")
async def test_container_that_ends_without_a_word_is_lost(tmp_path: Path) -> None:
    ended = await ran(tmp_path, "kill -9 $PPID", engine_at(tmp_path))

    assert (ended.reason, ended.exit_code) == ("sandbox_lost", 137)


@pytest.mark.rule("RC-16")
@pytest.mark.parametrize("script", ["kill -9 $PPID", "exit 1"])
async def test_memory_that_the_engine_alone_saw_is_out_of_memory(tmp_path: Path, script: str) -> None:
    ended = await ran(tmp_path, script, engine_at(tmp_path, is_oom=True))

    assert (ended.reason, ended.is_oom_seen) == ("oom_killed", True)


@pytest.mark.rule("RC-24")
async def test_cancelled_command_ends_with_its_own_code(tmp_path: Path) -> None:
    stop, launch = Stop(), launch_in(tmp_path, "trap 'exit 4' TERM; echo here; while :; do sleep 0.01; done")
    task = asyncio.create_task(run_container(engine_at(tmp_path), launch, stop))
    await eventually(lambda: launch.output.stdout.tail == b"here\n", within_s=10)
    stop.request("cancelled")
    ended = await task

    assert (ended.reason, ended.exit_code) == ("cancelled", 4)


@pytest.mark.parametrize("start", ["echo no such runtime >&2; exit 125", f"rm link; {STARTED}"])
async def test_container_whose_first_process_never_joins_is_unavailable(tmp_path: Path, start: str) -> None:
    with pytest.raises(SandboxUnavailable, match="no such runtime|No such file"):
        await ran(tmp_path, "touch started", engine_at(tmp_path, start=start))

    assert not (tmp_path / "started").exists()


async def test_run_that_was_stopped_before_starts_nothing(tmp_path: Path) -> None:
    stop = Stop()
    stop.request("cancelled")
    ended = await run_container(engine_at(tmp_path), launch_in(tmp_path, "touch started"), stop)

    assert (ended.reason, (tmp_path / "pid").exists()) == ("cancelled", False)


async def test_run_that_is_stopped_while_its_container_starts_starts_no_command(tmp_path: Path) -> None:
    stop = Stop()
    engine = engine_at(tmp_path, start="exec sleep 20")
    task = asyncio.create_task(run_container(engine, launch_in(tmp_path, "touch started"), stop))
    await eventually(lambda: (tmp_path / "pid").exists(), within_s=10)
    stop.request("cancelled")
    ended = await task

    assert (ended.reason, (tmp_path / "started").exists()) == ("cancelled", False)
