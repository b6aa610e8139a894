"""A real fleet of today opens the home that the first edition left, and its stories go on to their end."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cluster.local.record import find_running
from fleet.events.envelope import StoredEvent
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from tests.support.first_edition import TOLD, unpack
from tests.support.processes import processes_below
from tests.support.team_models import ROOT
from tests.support.team_server import served_team

STORIES = "/api/planner/stories/"
pytestmark = [pytest.mark.wide, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Opened:
    """The old home with a fleet of today."""

    folder: Path
    client: httpx2.Client

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def story(self, name: str) -> dict[str, Any]:
        return self.client.get(STORIES + TOLD[name]["story_id"]).raise_for_status().json()

    def send(self, method: str, path: str, body: dict[str, Any]) -> None:
        key = f"{method}{path}".replace("/", "-")[-100:]
        self.client.request(method, path, json=body, headers={"Idempotency-Key": key}).raise_for_status()

    def grant_until(self, name: str, wanted: Callable[[dict[str, Any]], bool], *, within_s: float = 500) -> None:
        """Every gate of the story gets a yes until it is as wanted."""
        deadline, seen = time.monotonic() + within_s, dict[str, Any]()
        while time.monotonic() < deadline:
            seen = self.story(name)
            if wanted(seen):
                return
            assert seen["disposition"] == "active", seen["waiting_for"]
            for approval in seen["approvals"]:
                if approval["status"] == "requested":
                    path = f"{STORIES}{seen['story_id']}/approvals/{approval['approval_id']}/grant"
                    self.send("POST", path, {"notes": "as agreed"})
            time.sleep(0.5)
        raise AssertionError(f"the story stays at {seen['state']}, {seen['waiting_for']}")

    def events(self, name: str) -> list[StoredEvent]:
        """What the log of the fleet holds of the story."""
        return asyncio.run(self._events(StoryId(TOLD[name]["story_id"])))

    async def _events(self, story_id: StoryId) -> list[StoredEvent]:
        running = find_running(self.home)
        assert running is not None
        client = connect_redis(running.addresses.redis_url)
        try:
            return await RedisEventLog(client).read(StreamId.of_story(story_id))
        finally:
            await client.aclose()


def fleet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """One command on the old home, in the folder that its stories name their repository from."""
    environ = {
        **os.environ,
        "FLEET_HOME": str(folder / "home"),
        "FLEET_MEMORY_FLOOR_MB": "500",
        "FLEET_RAY_DASHBOARD": "false",
    }
    argv = [sys.executable, "-m", "fleet.cli", *arguments, "--json"]
    environ["PYTHONPATH"] = str(ROOT)
    return subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, check=False, timeout=600)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One fleet for all tests of this module; afterwards nothing of it is left."""
    folder = tmp_path_factory.mktemp("f")
    unpack(folder)
    # A team that knows the work by its kind, so no prompt has to stay as it was.
    with served_team() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", "none")
        try:
            up = result_of(fleet(folder, "up", "--detach"))
            headers = {"Authorization": f"Bearer {(folder / 'home' / 'token').read_text().strip()}"}
            with httpx2.Client(base_url=up["api"], headers=headers, timeout=200) as client:
                yield Opened(folder, client)
        finally:
            stopped = fleet(folder, "down")
    assert result_of(stopped) == {"stopped": True}
    assert processes_below(folder) == []


def test_log_of_the_first_edition_verifies_against_its_checkpoints(opened: Opened) -> None:
    verified = result_of(fleet(opened.folder, "audit", "verify"))
    assert (verified["ok"], verified["findings"]) == (True, [])


def test_story_that_was_finished_in_the_first_edition_opens_with_its_report(opened: Opened) -> None:
    story = opened.story("finished")
    assert (story["state"], story["closed"]) == ("DONE", True)
    report = fleet(opened.folder, "report", story["story_id"])
    assert report.returncode == 0, report.stderr[-4000:]
    assert story["title"] in report.stdout


def test_story_that_was_parked_in_the_first_edition_goes_on_with_a_larger_budget(opened: Opened) -> None:
    story_id = TOLD["parked"]["story_id"]
    assert "the story budget of 900 tokens" in opened.story("parked")["parked"]
    opened.send("PUT", f"/api/budgets/story/{story_id}", {"limits": {"tokens": 500_000}, "note": "enough"})
    opened.grant_until("parked", lambda story: story["closed"])
    assert opened.story("parked")["state"] == "DONE"


@pytest.mark.rule("PL-48")
def test_story_that_was_running_in_the_first_edition_goes_on_to_its_end(opened: Opened) -> None:
    opened.grant_until("running", lambda story: story["closed"])
    story, told = opened.story("running"), TOLD["running"]
    assert story["state"] == "DONE"
    branch = ["git", "-C", str(opened.folder / "repo"), "rev-parse", f"fleet/{story['story_id']}"]
    assert subprocess.run(branch, capture_output=True, text=True, check=True).stdout.strip() == story["commit"]
    finished = [json.loads(e.body)["step_id"] for e in opened.events("running") if e.type == "StepFinished"]
    assert set(told["open"]) <= set(finished)
    assert len(finished) == len(set(finished)), "a step has two results"


@pytest.mark.rule("GR-7")
def test_graph_of_the_first_edition_is_built_again_from_its_log(opened: Opened) -> None:
    deadline = time.monotonic() + 300
    while (status := result_of(fleet(opened.folder, "graph", "status")))["lag_total"]:
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert status["events"] >= sum(told["version"] for told in TOLD.values())
