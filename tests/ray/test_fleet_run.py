"""The main job as a user runs it: the command line, a fleet of its own, recorded replies, real everything else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.local.record import find_running
from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.story.evolve.story import fold
from scripts.examples import BUNDLED
from tests.support.processes import processes_below

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
pytestmark = pytest.mark.timeout(600)


def example_repository(folder: Path) -> Path:
    """A fresh copy of the example repository, with the same commit id everywhere."""
    return BUNDLED.repository(folder / "repo")


def command(home: Path, repo: Path, *more: str) -> list[str]:
    base = [sys.executable, "-m", "fleet.cli", "run", str(DEMO / "story.yaml"), "--repo", str(repo)]
    return [*base, "--model", f"recorded:{DEMO / 'replies'}", "--yes", "po,qa", "--json", *more]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FLEET_HOME": str(home), "FLEET_MEMORY_FLOOR_MB": "500"}


def git(repo: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repo), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def result_of(output: str) -> dict[str, Any]:
    return json.loads(output.strip().splitlines()[-1])


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("h")


@pytest.mark.wide
@pytest.mark.rule("PL-43", "LC-77", "GL-19", "GL-21")
def test_run_of_the_example_ends_with_a_tested_branch_and_leaves_nothing_running(home: Path, tmp_path: Path) -> None:
    repo = example_repository(tmp_path)
    before = (git(repo, "rev-parse", "main"), git(repo, "status", "--porcelain"))
    done = subprocess.run(command(home, repo), env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result = result_of(done.stdout)
    assert result["outcome"] == "done"
    assert result["branch"].startswith("fleet/st-")
    assert git(repo, "rev-parse", result["branch"]) == result["commit"]
    assert (git(repo, "rev-parse", "main"), git(repo, "status", "--porcelain")) == before
    assert result["tests"]["unit"]["failed"] == 0
    assert result["tests"]["e2e"]["passed"] == 1
    assert result["verdict"] == "pass"
    assert Path(result["report"]).read_text().startswith("# ")
    checkout = tmp_path / "checkout"
    git(repo, "worktree", "add", "-q", str(checkout), result["branch"])
    tests = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:randomly",
            "-c",
            "pyproject.toml",
            ".",
        ],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout
    assert processes_below(home) == []


@pytest.mark.rule("GL-19", "PL-43", "PL-48", "LC-77", "LC-122")
def test_killing_the_council_in_the_middle_of_a_run_changes_nothing_but_the_owner(home: Path, tmp_path: Path) -> None:
    repo = example_repository(tmp_path)
    before = (git(repo, "rev-parse", "main"), git(repo, "status", "--porcelain"))
    output = tmp_path / "out"
    with output.open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command(home, repo), env=environment(home), stdout=out, stderr=err)
        killed = asyncio.run(kill_council(home, after="CouncilDecided", process=process))
        code = process.wait(timeout=500)
    assert killed, "the fault never fired"
    assert code == 0, (tmp_path / "err").read_text()[-4000:]
    result = result_of(output.read_text())
    assert result["outcome"] == "done"
    assert git(repo, "rev-parse", result["branch"]) == result["commit"]
    assert (git(repo, "rev-parse", "main"), git(repo, "status", "--porcelain")) == before
    assert (result["tests"]["unit"]["failed"], result["tests"]["e2e"]["passed"], result["verdict"]) == (0, 1, "pass")
    assert processes_below(home) == []
    history = asyncio.run(log_after(home, result["story_id"]))
    owners = [e for e in history if e.type == "OwnershipTaken"]
    assert len(owners) >= 2
    assert len({e.epoch for e in history}) >= 2
    finished = [json.loads(e.body)["step_id"] for e in history if e.type == "StepFinished"]
    assert len(finished) == len(set(finished)), "a step has two results"
    state = fold(history)
    assert state is not None
    assert state.closed


async def kill_council(home: Path, *, after: str, process: subprocess.Popen[Any]) -> bool:
    """SIGKILL the process that holds the story's lease once an event of this type is on record."""
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and process.poll() is None:
        running = find_running(home)
        if running is not None:
            client = connect_redis(running.addresses.redis_url)
            log = RedisEventLog(client)
            try:
                for stream in await log.streams():
                    events = await log.read(stream)
                    owner = next((json.loads(e.body)["owner"] for e in events if e.type == "OwnershipTaken"), None)
                    if owner and any(e.type == after for e in events):
                        os.kill(int(owner.split("/")[1].split("-")[0]), signal.SIGKILL)
                        return True
            finally:
                await client.aclose()
        await asyncio.sleep(0.1)
    return False


async def log_after(home: Path, story_id: str) -> list[StoredEvent]:
    """The log as it lies on disk after the fleet has ended."""
    from cluster.local.valkey import StoreKind, Valkey

    store = Valkey(StoreKind.LOG, home / "log")
    await store.start()
    client = connect_redis(store.url)
    try:
        return await RedisEventLog(client).read(StreamId.of_story(story_id))
    finally:
        await client.aclose()
        await store.stop()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.yaml"], 2, "there is no story file missing.yaml"),
        ([str(DEMO / "story.yaml"), "--model", "no-such-profile"], 2, "unknown model profile"),
        ([str(DEMO / "story.yaml")], 5, "no model is configured"),
        ([str(DEMO / "story.yaml"), "--model", "mock", "--repo", "nowhere"], 2, "nowhere is no directory"),
    ],
)
def test_bad_input_gets_one_clear_line_and_starts_nothing(
    home: Path, arguments: list[str], code: int, says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet.cli", "run", *arguments],
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert find_running(home) is None


def test_run_on_a_folder_that_is_no_repository_is_refused_at_once(home: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(DEMO / "repo", plain)
    done = subprocess.run(command(home, plain), env=environment(home), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not a git repository" in done.stderr
    assert result_of(done.stdout)["error"]["code"] == "invalid_input"
    assert find_running(home) is None
