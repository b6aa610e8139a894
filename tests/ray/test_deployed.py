"""A fleet on nodes with labels, deployed by the very `serveConfigV2` that `fleet cluster render` writes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fleet.cli.local.actor_states import ActorLine, read_actor_lines
from tests.support.ray_nodes import Nodes, as_rendered, deployed_nodes, until
from tests.support.team_models import DEMO, RECORDED, demo_repository, demo_story

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

AGENTS, SANDBOX, GPU, NOWHERE = ({"pool": name} for name in ("agents", "sandbox", "gpu", "nowhere"))
PLACEMENT: dict[str, dict[str, str]] = {
    **dict.fromkeys(("council", "role", "context", "projector"), AGENTS),
    "sandbox": SANDBOX,
    "engine": GPU,
    "notary": NOWHERE,
}
STORIES = "/api/planner/stories"
PATIENCE_S = 600


@dataclass(frozen=True)
class Front:
    """A deployed fleet."""

    nodes: Nodes
    client: httpx2.Client
    refusals: dict[str, str]
    """What Serve said of each application while the settings were wrong."""


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A head without actors and a node of each pool; deployed with wrong settings first, then with right ones."""
    with deployed_nodes(tmp_path_factory.mktemp("d"), [AGENTS, SANDBOX, GPU]) as nodes:
        wanted = as_rendered("small")
        nodes.settings(council_shard=2)
        nodes.deploy(wanted)
        refusals = until(lambda: refused(nodes), within_s=PATIENCE_S, why="both applications are refused")
        nodes.settings(placement=PLACEMENT, models={"serve": ["local"]})
        nodes.deploy(wanted)
        until(lambda: runs(nodes), within_s=PATIENCE_S, why="both applications run")
        token = (nodes.home / "fleet" / "token").read_text().strip()
        base, headers = f"http://127.0.0.1:{wanted['http_options']['port']}", {"Authorization": f"Bearer {token}"}
        with httpx2.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
            yield Front(nodes, client, refusals)


def refused(nodes: Nodes) -> dict[str, str] | None:
    """The messages of both applications, once both have failed."""
    found = nodes.applications()
    is_over = len(found) == 2 and all(app["status"] == "DEPLOY_FAILED" for app in found.values())
    return {name: app["message"] for name, app in found.items()} if is_over else None


def runs(nodes: Nodes) -> bool:
    return [app["status"] for app in nodes.applications().values()] == ["RUNNING", "RUNNING"]


@pytest.mark.rule("GL-22")
def test_wrong_settings_are_told_in_the_status_of_serve(front: Front) -> None:
    assert set(front.refusals) == {"fleet", "llm"}
    for message in front.refusals.values():
        assert message.rstrip().splitlines()[-1].startswith("fleet.kernel.errors.ConfigError: ")
        assert "fleet.yaml: council_shard: " in message


def test_front_answers_for_stories_and_models(front: Front) -> None:
    assert front.client.get("/readyz").json() == {"status": "ready"}
    assert "openai" in [model["id"] for model in front.client.get("/v1/models").json()["data"]]


def test_every_actor_is_there_once_on_a_node_of_its_label_or_waits_for_one(front: Front) -> None:
    nodes = front.nodes
    # Two applications start the actors at the same time.
    until(lambda: len(nodes.pools()) >= 11, within_s=PATIENCE_S, why="all actors with a node live")
    names = [row["name"] for row in nodes.actors()]
    assert len(names) == len(set(names))
    assert nodes.pools() == {name: PLACEMENT[name.split(":")[0]]["pool"] for name in names if name != "notary"}
    assert "engine:local:0" in names
    lines = read_actor_lines(nodes.dashboard, nodes.token)
    assert lines is not None
    assert [line for line in lines if line.state != "running"] == [
        ActorLine(name="notary", state="waiting", why="for a node with label pool=nowhere")
    ]


def test_story_that_is_created_over_http_is_carried_out(front: Front, tmp_path: Path) -> None:
    client, key = front.client, {"Idempotency-Key": "key-of-a-story"}

    def created() -> str | None:
        answer = client.post(STORIES, json=demo_story(), headers=key)
        assert answer.status_code in (201, 202), answer.text
        return answer.json().get("story_id") if answer.status_code == 201 else None

    story_id = until(created, within_s=PATIENCE_S, why="the story was created")
    body = {"repo": str(demo_repository(tmp_path)), "model": RECORDED, "delegate": ["po", "qa"]}
    started = client.post(f"{STORIES}/{story_id}/start", json=body, headers={"Idempotency-Key": "key-of-a-start"})
    assert started.status_code in (200, 202), started.text
    shown = f"{STORIES}/{story_id}"
    until(lambda: client.get(shown).json()["state"] == "DONE", within_s=PATIENCE_S, why="the story is carried out")


def submit(front: Front, repo: Path, *further: str) -> list[str]:
    return [
        sys.executable, "-m", "fleet.cli", "submit", str(DEMO / "story.yaml"), "--repo", str(repo),
        "--model", RECORDED, "--yes", "po,qa", "--python", sys.executable, "--json",
        "--address", front.nodes.dashboard, *further,
    ]  # fmt: skip


def test_submitted_story_is_left_by_an_interrupt_and_found_again(front: Front, tmp_path: Path) -> None:
    repo, environ = demo_repository(tmp_path), {**front.nodes.environ, "FLEET_HOME": str(tmp_path / "laptop")}
    argv = submit(front, repo)
    first = subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stderr is not None
    seen: list[str] = []
    for line in first.stderr:
        seen.append(line)
        if "readiness score" in line:
            first.send_signal(signal.SIGINT)
            break
    _, rest = first.communicate(timeout=PATIENCE_S)
    assert (first.returncode, "the story goes on as job fleet-" in rest) == (4, True), "".join(seen) + rest

    again = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert again.returncode == 0, again.stderr[-4000:]
    assert "runs already: following it" in again.stderr
    result = json.loads(again.stdout.strip().splitlines()[-1])
    assert (result["outcome"], result["verdict"]) == ("done", "pass")
    assert front.client.get(f"{STORIES}/{result['story_id']}").json()["state"] == "DONE"


@pytest.mark.parametrize(
    ("further", "code", "error"),
    [
        (["--repo", "/nowhere"], 4, ""),
        (["--as", "user:nobody"], 2, "policy_denied"),
        (["--python", "no-such-python"], 4, "job_failed"),
    ],
)
def test_submitted_story_that_cannot_be_carried_out_ends_with_the_code_of_run(
    front: Front, tmp_path: Path, further: list[str], code: int, error: str
) -> None:
    argv: Any = submit(front, tmp_path / "repo", *further)
    environ = {**front.nodes.environ, "FLEET_HOME": str(tmp_path / "laptop")}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert (done.returncode, found.get("error", {}).get("code", "")) == (code, error), done.stderr[-4000:]


def test_wrong_token_and_wrong_address_are_told(front: Front, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("wrong")
    environ = {**front.nodes.environ, "FLEET_HOME": str(tmp_path / "laptop")}
    for further, code, error in (
        (["--token-file", str(token)], 2, "unauthenticated"),
        (["--address", "http://127.0.0.1:1"], 5, "store_unavailable"),
        (["--address", "ray://127.0.0.1:10001"], 2, "invalid_input"),
    ):
        argv = submit(front, tmp_path, *further)
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
        found = json.loads(done.stdout.strip().splitlines()[-1])
        assert (done.returncode, found["error"]["code"]) == (code, error), done.stderr[-4000:]
