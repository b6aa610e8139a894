"""A fleet that stays up, as its users meet it: the command line, the HTTP front and its event stream."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import httpx2
import openai
import pytest
from mcp import Client
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage]
    streamable_http_client,
)

from cluster.local.record import find_running
from fleet.cli.endpoints import endpoints_of
from fleet.config.environment import load_settings
from tests.support.openai_server import FakeOpenAIServer, Scripted, served_in_thread
from tests.support.processes import processes_below
from tests.support.team_models import demo_repository

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples" / "demo"
STORIES = "/api/planner/stories"
TEXT = {
    "title": "As a reader, I want a word count of an article",
    "description": "Add a function count_words(text) to textkit/words.py that counts runs of letters and digits.",
    "acceptance_criteria": ['Given the text "one two", when count_words is called, then the result is 2'],
    "constraints": {"paths": ["textkit/words.py"]},
    "rigor": "L1",
}
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Up:
    """A running fleet: its home, and a client of its front with the token of the local user."""

    home: Path
    client: httpx2.Client

    @property
    def environ(self) -> dict[str, str]:
        return environment(self.home)

    def fleet(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One call of the command line."""
        return fleet(self.home, *arguments)

    def create(self, key: str, **changes: Any) -> httpx2.Response:
        return self.client.post(STORIES, json=TEXT | changes, headers={"Idempotency-Key": key})

    def recorded(self, story_id: str) -> list[str]:
        """Ids of the events on record, by the command line."""
        done = self.fleet("events", story_id, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["event_id"] for line in done.stdout.splitlines()]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "FLEET_HOME": str(home), "FLEET_MEMORY_FLOOR_MB": "500"}


def fleet(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fleet.cli", *arguments]
    return subprocess.run(argv, env=environment(home), capture_output=True, text=True, check=False, timeout=500)


def last_line(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout.strip(), done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def engine() -> Iterator[FakeOpenAIServer]:
    """A model server that the fleet's engine `openai` is pointed at."""
    with served_in_thread() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLEET_OPENAI_BASE_URL", server.base_url)
        yield server


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, engine: FakeOpenAIServer) -> Iterator[Up]:
    """One fleet for all tests of this module; afterwards nothing of it is left."""
    home = tmp_path_factory.mktemp("u")
    try:
        started = fleet(home, "up", "--detach", "--json")
        assert started.returncode == 0, started.stderr[-4000:]
        token = (home / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=last_line(started)["api"], headers=headers, timeout=200) as client:
            yield Up(home, client)
    finally:
        stopped = fleet(home, "down", "--json")
    assert (stopped.returncode, last_line(stopped)) == (0, {"stopped": True})
    assert processes_below(home) == []


@pytest.mark.rule("AP-122")
def test_other_programs_use_the_models_of_the_fleet(up: Up, engine: FakeOpenAIServer) -> None:
    token, address = (up.home / "token").read_text().strip(), str(up.client.base_url.join("/v1"))
    ask: Any = {"model": "openai", "messages": [{"role": "user", "content": "Grüß mich 👋"}]}
    with openai.OpenAI(base_url=address, api_key=token, max_retries=0, timeout=200) as client:
        assert "openai" in [model.id for model in client.models.list()]
        engine.script = [Scripted("Hallo\nWelt 👋")]
        reply = client.chat.completions.create(**ask)
        assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("Hallo\nWelt 👋", "stop")
        assert engine.requests[-1]["messages"][-1]["content"] == "Grüß mich 👋"
        with client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}) as stream:
            chunks = list(stream)
        assert [c.choices[0].delta.content for c in chunks[1:3]] == ["Hallo\n", "Welt 👋"]
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.total_tokens == 18
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**ask, n=2)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(**{**ask, "model": "mock"})
        engine.script = [Scripted("Hallo\n", hang=True)]
        # A client that goes away is noticed behind Serve's proxy too, and the request at the model server ends.
        with client.chat.completions.create(**ask, stream=True) as stream:
            assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "Hallo\n"]
            ended = engine.disconnects
        wait_until(lambda: engine.disconnects > ended)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=2).chat.completions.create(**ask)
        wait_until(lambda: engine.disconnects > ended + 1)
    stranger = openai.OpenAI(base_url=address, api_key="nobody", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    assert up.client.get("/v1/openapi.json").json()["servers"][0] == {"url": "/v1"}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    return body


def frames(up: Up, story_id: str, *, last: str | None = None, count: int) -> list[dict[str, Any]]:
    """The first frames that the stream sends, over a connection of their own."""
    headers = {} if last is None else {"Last-Event-ID": last}
    with up.client.stream("GET", "/api/events/stream", params={"storyId": story_id}, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return take(response.iter_lines(), count)


def take(lines: Iterator[str], count: int) -> list[dict[str, Any]]:
    """The next frames of an open stream: the id of each and its envelope."""
    found: list[dict[str, Any]] = []
    event_id, deadline = "", time.monotonic() + 240
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} frames came"
        line = next(lines)
        if line.startswith("id: "):
            event_id = line.removeprefix("id: ")
        elif line.startswith("data: "):
            envelope = json.loads(line.removeprefix("data: "))
            assert envelope["event_id"] == event_id
            found.append(envelope)
    return found


def ids(envelopes: list[dict[str, Any]]) -> list[str]:
    return [e["event_id"] for e in envelopes]


def test_run_while_a_fleet_is_up_uses_it_and_leaves_it_up(up: Up, tmp_path: Path) -> None:
    demo_repository(tmp_path)
    before = find_running(up.home)
    story, model = str(DEMO / "story.yaml"), f"recorded:{DEMO / 'replies'}"
    repo = str(tmp_path / "repo")
    done = up.fleet("run", story, "--repo", repo, "--model", model, "--yes", "po,qa", "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    result = last_line(done)
    assert (result["outcome"], result["verdict"]) == ("done", "pass")
    shown = up.client.get(f"{STORIES}/{result['story_id']}")
    assert (shown.status_code, shown.json()["title"]) == (200, result["title"])
    after = find_running(up.home)
    assert before is not None
    assert after is not None
    assert after.supervisor == before.supervisor
    assert up.fleet("status", "--json").returncode == 0


def test_status_names_every_part_and_actor_within_four_gigabytes(up: Up) -> None:
    done = up.fleet("status", "--json")
    assert done.returncode == 0, done.stdout
    found = last_line(done)
    parts = {p["name"]: p["state"] for p in found["parts"]}
    assert parts == dict.fromkeys(("log store", "cache store", "graph store", "ray", "front"), "ok")
    assert 0 < found["total_kb"] < 4 * 1024 * 1024
    # Ray puts the method that runs just now behind the name of a process.
    shells = Counter(p["role"].split(".")[0] for p in found["processes"])
    running = find_running(up.home)
    assert running is not None
    pools = endpoints_of(load_settings(up.environ), running.addresses).pools
    assert shells["RoleShell"] == sum(pools.values())
    for name in ("CouncilShell", "SandboxShell", "ContextShell", "ProjectorShell", "supervisor"):
        assert shells[name] == 1, shells


def test_second_up_says_that_a_fleet_is_up(up: Up) -> None:
    before = find_running(up.home)
    again = up.fleet("up", "--detach", "--json")
    assert again.returncode == 0
    assert "a fleet is up already" in again.stderr
    assert before is not None
    assert last_line(again)["pid"] == before.supervisor.pid


@pytest.mark.rule("AP-1")
def test_front_is_healthy_and_knows_nobody_without_a_token(up: Up) -> None:
    base = str(up.client.base_url)
    assert httpx2.get(f"{base}/healthz").json() == {"status": "ok"}
    assert httpx2.get(f"{base}/readyz").json() == {"status": "ready"}
    problem(httpx2.get(f"{base}{STORIES}"), 401, "unauthenticated")
    problem(httpx2.get(f"{base}{STORIES}", headers={"Authorization": "Bearer wrong"}), 401, "unauthenticated")


@pytest.mark.rule("AP-81", "AP-85", "AP-113")
def test_tools_and_runs_are_served_over_http_and_mcp(up: Up) -> None:
    story_id = up.create("key-of-tools").json()["story_id"]
    assert up.client.get("/api/tools").json()["policy_digest"].startswith("sha256:")
    body = {"story_id": story_id, "role": "qa"}
    opened = up.client.post("/api/tools/sessions", json=body, headers={"Idempotency-Key": "key-of-a-session"})
    assert opened.status_code == 201, opened.text
    url = f"/api/tools/sessions/{opened.json()['session_id']}"
    assert up.client.get(url).json() == opened.json()
    spec = {"image": "python", "cmd": ["pytest"], "context": {"case_id": story_id, "role": "qa"}}
    refused = up.client.post("/api/runs", json=spec, headers={"Idempotency-Key": "key-of-a-run"})
    problem(refused, 403, "policy_denied")

    async def health() -> Any:
        http = create_mcp_http_client(headers={"Authorization": up.client.headers["authorization"]})
        async with http, Client(streamable_http_client(f"{up.client.base_url}/api/mcp", http_client=http)) as client:
            return (await client.call_tool("health", {})).structured_content

    assert asyncio.run(health())["runtime"] == "bubblewrap"


@pytest.mark.rule("AP-2", "AP-3", "AP-37", "AP-53")
def test_story_created_twice_with_one_key_is_one_story_in_every_list(up: Up) -> None:
    first, again = up.create("key-of-one-story"), up.create("key-of-one-story")
    assert first.status_code == again.status_code == 201, first.text + again.text
    story_id = first.json()["story_id"]
    assert again.json()["story_id"] == story_id
    problem(up.create("key-of-one-story", title="As a reader, I want something else"), 422, "idempotency_mismatch")
    shown = up.client.get(f"{STORIES}/{story_id}")
    assert (shown.json()["title"], shown.json()["state"]) == (TEXT["title"], "DRAFT")
    assert shown.headers["etag"] == f'"v{shown.json()["version"]}"'
    over_http = [line["story_id"] for line in up.client.get(STORIES).json()["items"]]
    listed = up.fleet("story", "list", "--json")
    assert listed.returncode == 0
    by_command = [line["story_id"] for line in last_line(listed)["stories"]]
    assert over_http.count(story_id) == by_command.count(story_id) == 1


@pytest.mark.rule("AP-7", "AP-36")
def test_story_with_problems_is_refused_with_every_pointer(up: Up) -> None:
    body = problem(up.create("key-of-a-bad-story", title="", stray=1), 422, "invalid_input")
    assert {e["pointer"] for e in body["errors"]} == {"/title", "/stray"}


@pytest.mark.rule("AP-57", "MB-2")
def test_start_with_a_model_that_the_fleet_does_not_have_is_refused_at_once(up: Up) -> None:
    story_id = up.create("key-of-a-start-without-a-model").json()["story_id"]
    for number, model in enumerate((None, "nonsense")):
        headers = {"Idempotency-Key": f"key-of-a-start-{number}"}
        refused = up.client.post(
            f"{STORIES}/{story_id}/start", json={"repo": "/srv/x", "model": model}, headers=headers
        )
        assert "recorded:DIR" in problem(refused, 422, "invalid_input")["detail"]
    assert up.client.get(f"{STORIES}/{story_id}").json()["is_started"] is False


@pytest.mark.rule("AP-99")
def test_figures_of_context_are_told_by_the_record_the_graph_and_the_builder_of_packs(up: Up) -> None:
    up.create("key-of-a-story-with-figures")

    def stats() -> dict[str, Any]:
        response = up.client.get("/api/context/stats", params={"project": "pr-default"})
        assert response.status_code == 200, response.text
        return response.json()

    wait_until(lambda: stats()["projection"] == {"lag_events": 0, "streams_behind": 0, "away": None})
    found = stats()
    assert found["stories"] >= 1
    assert (found["activity"]["away"], found["activity"]["since"] is None) == (None, False)


@pytest.mark.rule("AP-101", "AP-102")
def test_stream_sends_events_in_order_and_resumes_without_gap_or_repeat(up: Up) -> None:
    story_id = up.create("key-of-a-streamed-story").json()["story_id"]
    known = up.recorded(story_id)
    assert known == [f"story:{story_id}/{n}" for n in range(1, len(known) + 1)]
    assert len(known) >= 2
    assert ids(frames(up, story_id, count=len(known))) == known
    resumed = up.client.stream(
        "GET", "/api/events/stream", params={"storyId": story_id}, headers={"Last-Event-ID": known[0]}
    )
    with resumed as response:
        lines = response.iter_lines()
        assert ids(take(lines, len(known) - 1)) == known[1:]
        closed = up.client.post(
            f"{STORIES}/{story_id}/transition",
            json={"event": "approve_scope"},
            headers={"Idempotency-Key": "key-of-a-closed-gate"},
        )
        problem(closed, 409, "gate_closed")
        (live,) = take(lines, 1)
    assert live["event_id"] == f"story:{story_id}/{len(known) + 1}"
    assert up.recorded(story_id) == [*known, live["event_id"]]
    assert ids(frames(up, story_id, last=known[-1], count=1)) == [live["event_id"]]


def test_approval_of_a_gate_that_is_not_pending_is_bad_input(up: Up) -> None:
    story_id = up.create("key-of-an-unasked-gate").json()["story_id"]
    known = up.recorded(story_id)
    done = up.fleet("story", "approve", story_id, "approve_scope", "--json")
    assert done.returncode == 2
    assert last_line(done)["error"]["code"] == "not_found"
    assert "Traceback" not in done.stderr
    assert up.recorded(story_id) == known


@pytest.mark.rule("RC-51", "GL-19")
def test_ports_of_actors_answer_another_process_with_results_and_typed_errors(up: Up, tmp_path: Path):
    repository = demo_repository(tmp_path)
    # Ray reads its variables at import, so this is a process of its own; it is measured when this one is.
    measured = ["-m", "coverage", "run", "--parallel-mode"] if coverage.Coverage.current() else []
    caller = [sys.executable, *measured, "-m", "tests.support.ray_ports_caller", str(up.home), str(repository)]
    done = subprocess.run(caller, env=up.environ, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    found = last_line(done)
    assert (found["health"], found["cancelled"]) == (["ok", "bubblewrap"], False)
    assert found["staged"][1] == "main"
    assert "status='passed'" in found["first"], found["first"]
    refused = {name: answer[0] for name, answer in found.items() if isinstance(answer, list)}
    assert (
        refused.items()
        >= {
            "stale epoch": "ownership_lost",
            "no node": "sandbox_unavailable",
            "no actor": "model_unavailable",
            "no role": "invalid_input",
        }.items()
    ), found
    assert {"no repository", "absent commit", "no story", "no profile"} <= refused.keys(), found
