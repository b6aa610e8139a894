"""`fleet submit` as a user of a cluster has it: three nodes, their job server, Ray's token, and a fleet at work."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.local.local_principals import local_principal
from fleet.desk.planning import PlanningDesk
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.feed import RedisFeed
from fleet.log.redis.inbox import RedisInbox
from fleet.log.redis.log import RedisEventLog
from fleet.story.commands.catalogue import parse_command
from fleet.story.state import StoryState
from tests.support.ray_nodes import Nodes, deployed_nodes, until
from tests.support.rules import fsm
from tests.support.team_models import DEMO, RECORDED, demo_repository

pytestmark = [pytest.mark.wide, pytest.mark.timeout(1500)]

PATIENCE_S = 600
BOOT = """
import os, ray
from actors.bootstrap import boot
from fleet.wiring.places import cluster_endpoints
ray.init(namespace="fleet", log_to_driver=False)
boot(cluster_endpoints(os.environ), progress=print, timeout_s=500)
"""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head without actors and two nodes that have all of them."""
    home = tmp_path_factory.mktemp("s")
    with deployed_nodes(home, [{}, {}]) as found:
        (home / "boot.py").write_text(BOOT)
        asked = found.asked.post("/api/jobs/", json={"entrypoint": f"{sys.executable} {home / 'boot.py'}"})
        assert asked.status_code == 200, asked.text
        job_id = asked.json()["submission_id"]
        state = until(lambda: ended(found, job_id), within_s=PATIENCE_S, why="the actors were started")
        assert state == "SUCCEEDED", found.asked.get(f"/api/jobs/{job_id}/logs").text[-4000:]
        yield found


def jobs(nodes: Nodes) -> dict[str, str]:
    """The status of every job by its id."""
    return {row["submission_id"]: row["status"] for row in nodes.asked.get("/api/jobs/").json()}


def ended(nodes: Nodes, job_id: str) -> str | None:
    """The status of a job that is over."""
    return found if (found := jobs(nodes)[job_id]) in ("SUCCEEDED", "FAILED", "STOPPED") else None


@dataclass(frozen=True)
class Submitted:
    """What `fleet submit` said, and how it ended."""

    code: int
    lines: list[str]
    result: dict[str, Any]

    @property
    def job_id(self) -> str:
        """The job that carried the story out."""
        return job_of(self.lines)

    @property
    def story_id(self) -> str:
        """The story, as the job named it."""
        return story_of(self.lines)


def job_of(lines: list[str]) -> str:
    """The job that these lines name; Ray's client says something of its own before."""
    (found,) = [match for line in lines if (match := re.match(r"job (fleet-\S+) at ", line))]
    return found[1]


def story_of(lines: list[str]) -> str:
    """The story that the job named first of all."""
    return next(match[1] for line in lines if (match := re.match(r"(st-[a-z0-9-]+): As a", line)))


def submit(
    nodes: Nodes, laptop: Path, *further: str, yes: str = "po,qa", at: Callable[[list[str]], None] | None = None
) -> Submitted:
    """One call from another machine's home; `at` is told all lines so far with each one that comes."""
    argv = [
        sys.executable, "-m", "fleet.cli", "submit", str(DEMO / "story.yaml"), "--model", RECORDED, "--yes", yes,
        "--python", sys.executable, "--json", "--address", nodes.dashboard, *further,
    ]  # fmt: skip
    environ = {**nodes.environ, "FLEET_HOME": str(laptop)}
    asked = subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert asked.stderr is not None
    lines: list[str] = []
    with asked:
        try:
            for line in asked.stderr:
                lines.append(line.rstrip("\n"))
                if at is not None:
                    at(lines)
            told, _ = asked.communicate(timeout=PATIENCE_S)
        except BaseException:
            asked.kill()
            raise
    assert told.strip(), "\n".join(lines)
    return Submitted(asked.returncode, lines, json.loads(told.strip().splitlines()[-1]))


SCORED, STARTED = r"^readiness score", r"^ *\d+\.\ds "
"""What is printed before the story is started, and of each event once it is."""


def once(pattern: str, act: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Acts with the first line that looks so."""

    def at(lines: list[str]) -> None:
        if re.search(pattern, lines[-1]) and not any(re.search(pattern, line) for line in lines[:-1]):
            act(lines)

    return at


def story(nodes: Nodes, story_id: str, command: str | None = None, **body: Any) -> StoryState:
    """The story in the log of the cluster, after this command on it."""

    async def asked() -> StoryState:
        redis = connect_redis(nodes.redis_url)
        try:
            log, inbox = RedisEventLog(redis), RedisInbox(redis, redis)
            desk = PlanningDesk(log=log, inbox=inbox, feed=RedisFeed(redis), clock=SystemClock(), fsm=fsm())
            if command is not None:
                key = f"{story_id}/{command}"
                await desk.require(
                    StoryId(story_id), parse_command(command, body), principal=local_principal(), key=key
                )
            return await desk.state(StoryId(story_id))
        finally:
            await redis.aclose()

    return asyncio.run(asked())


def test_log_comes_while_the_job_runs_and_a_story_that_waits_ends_as_a_run_does(nodes: Nodes, tmp_path: Path) -> None:
    seen: list[str] = []
    repo = demo_repository(tmp_path)
    watching = once(SCORED, lambda lines: seen.append(jobs(nodes)[job_of(lines)]))
    found = submit(nodes, tmp_path / "laptop", "--repo", str(repo), yes="", at=watching)
    assert seen == ["RUNNING"], "the log came only after the job"
    assert (found.code, found.result["outcome"]) == (3, "waiting"), found.lines
    assert not story(nodes, found.result["story_id"]).closed

    given_up = story(nodes, found.result["story_id"], "cancel", reason="not wanted any more")
    assert given_up.disposition == "cancelled"


def test_story_that_is_cancelled_while_it_is_followed_ends_as_a_run_does(nodes: Nodes, tmp_path: Path) -> None:
    repo = demo_repository(tmp_path)

    def cancel(lines: list[str]) -> None:
        story(nodes, story_of(lines), "cancel", reason="not wanted any more")

    found = submit(nodes, tmp_path / "laptop", "--repo", str(repo), at=once(STARTED, cancel))
    assert (found.code, found.result["outcome"]) == (4, "cancelled"), found.lines
    assert ended(nodes, found.job_id) == "FAILED"


def test_job_that_is_stopped_leaves_its_story_which_the_same_command_follows_to_its_end(
    nodes: Nodes, tmp_path: Path
) -> None:
    argv = ("--repo", str(demo_repository(tmp_path)))
    councils = [row["pid"] for row in nodes.actors() if row["name"].startswith("council:")]

    def stop(lines: list[str]) -> None:
        # The councils stand still until the job is over: a fast machine would bring the story to its end first.
        for pid in councils:
            nodes.send(pid, signal.SIGSTOP)
        try:
            assert nodes.asked.post(f"/api/jobs/{job_of(lines)}/stop").status_code == 200
            until(lambda: ended(nodes, job_of(lines)), within_s=PATIENCE_S, why="the job was stopped")
        finally:
            for pid in councils:
                nodes.send(pid, signal.SIGCONT)

    first = submit(nodes, tmp_path / "laptop", *argv, at=once(SCORED, stop))
    assert (first.code, first.result["error"]["code"]) == (4, "job_failed"), first.lines
    assert first.result["error"]["status"] == ended(nodes, first.job_id) == "STOPPED"

    again = submit(nodes, tmp_path / "laptop", *argv)
    assert (again.code, again.result["outcome"], again.result["verdict"]) == (0, "done", "pass"), again.lines
    assert again.job_id == f"{first.job_id}-2"
    assert again.result["story_id"] == first.story_id
    assert story(nodes, again.result["story_id"]).closed


@pytest.mark.parametrize(
    ("further", "code", "error"),
    [
        (("--repo", ""), 2, "invalid_input"),
        (("--repo", "/x", "--budget", "tokens=many"), 2, "invalid_input"),
        (("--repo", "/x", "--rigor", "L9"), 2, "invalid_input"),
        (("--repo", "/x", "--address", "ray://127.0.0.1:10001"), 2, "invalid_input"),
        (("--repo", "/x", "--token-file", "{wrong}"), 2, "unauthenticated"),
        (("--repo", "/x", "--address", "http://127.0.0.1:1"), 5, "store_unavailable"),
    ],
)
def test_bad_input_is_refused_before_any_job_is_made(
    nodes: Nodes, tmp_path: Path, further: tuple[str, ...], code: int, error: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    before = jobs(nodes)
    found = submit(nodes, tmp_path / "laptop", *(word.format(wrong=wrong) for word in further))
    assert (found.code, found.result["error"]["code"]) == (code, error), found.lines
    assert jobs(nodes) == before
    assert "Traceback" not in "\n".join(found.lines)


@pytest.mark.parametrize(
    ("further", "error"), [(("--as", "user:nobody"), "policy_denied"), (("--model", "nonsense"), "invalid_input")]
)
def test_what_only_the_cluster_can_refuse_comes_back_with_the_code_of_a_run(
    nodes: Nodes, tmp_path: Path, further: tuple[str, ...], error: str
) -> None:
    found = submit(nodes, tmp_path / "laptop", "--repo", str(demo_repository(tmp_path)), *further)
    assert (found.code, found.result["error"]["code"]) == (2, error), found.lines
    assert ended(nodes, found.job_id) == "FAILED"
