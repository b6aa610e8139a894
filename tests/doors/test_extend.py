"""One real fleet that is made of the examples of docs/extending.md: a part of each group, and a story that ends."""

from __future__ import annotations

import hmac
import json
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.doors.test_api_tools import SESSIONS, called, opened
from tests.support.task_at_hand import TaskAtHand
from tests.support.team_models import DEMO
from tests.support.world import World, running_world

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "extend"
USE = ("notice-key", "own", "notifications")
KEY = "a-key-that-signs-notices-of-a-test"
WIRE = """
engine_id: wire
kind: wire
model: tiny-1b
options: {url: "%s"}
unpriced: true
"""
pytestmark = pytest.mark.timeout(600)


def packaged(name: str) -> dict[str, Any]:
    """A packaged file of the configuration."""
    return yaml.safe_load((ROOT / "config" / name).read_text())


def configured(folder: Path, model_url: str) -> dict[str, str]:
    """A configuration in which the fleet's parts are those of the examples; the variables that name it."""
    folder.mkdir()
    (folder / "key.json").write_text(json.dumps({"notice-key": KEY}))
    (folder / "key.json").chmod(0o600)
    roles, models = packaged("roles.yaml"), packaged("models.yaml")
    roles["roles"]["developer"]["tools"]["word_count"] = {"ops": ["count"]}
    roles["roles"] |= yaml.safe_load((EXAMPLES / "security_role.yaml").read_text())
    models["engines"].append(yaml.safe_load(WIRE % model_url))
    files = {
        "fleet.yaml": {
            "blobs": "sqlite",
            "sandbox": {"backend": {"kind": "refusing", "options": {"programs": ["grep"]}}},
            "forge": {"kind": "folder", "options": {"folder": "changes"}},
            "notifications": {
                "targets": [
                    {
                        "name": "file",
                        "kind": "file",
                        "secret": "secret://notice-key",
                        "options": {"file": str(folder / "notices")},
                    }
                ]
            },
        },
        "secrets.yaml": {
            "providers": [
                {
                    "kind": "json",
                    "label": "own",
                    "secrets": ["notice-key"],
                    "options": {"file": str(folder / "key.json")},
                }
            ],
            "grants": [{"secret": "notice-key", "roles": ["devops"], "tool": "notifications", "ops": ["send"]}],
        },
        "roles.yaml": roles,
        "models.yaml": models,
    }
    for name, document in files.items():
        # Through JSON, since YAML would write what the packaged files say twice as anchors.
        (folder / name).write_text(json.dumps(document))
    return {"FLEET_CONFIG": str(folder), "PYTHONPATH": str(EXAMPLES)}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the configuration, once the fleet runs."""
    return tmp_path_factory.mktemp("extended") / "config"


@pytest.fixture(scope="module")
def extended(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A fleet of examples; everything that needs one is in this module, as each start takes a minute."""
    folder, home = tmp_path_factory.mktemp("doors"), tmp_path_factory.mktemp("d")
    with running_world(folder, home, model="wire", variables=lambda url: configured(config, url)) as world:
        yield world


@pytest.fixture(scope="module")
def hand(extended: World) -> TaskAtHand:
    """A task that the caller has claimed, in a story of this fleet."""
    return TaskAtHand(extended)


@pytest.mark.rule("RT-69")
def test_story_ends_and_asks_the_forge_of_a_package_to_take_its_change_in(extended: World) -> None:
    repository = extended.repository()
    command = ["run", str(DEMO / "story.yaml"), "--repo", str(repository), "--model", "wire", "--yes", "po,qa"]
    done = extended.process(*command).ok()
    assert (done["outcome"], done["verdict"]) == ("done", "pass")
    (change,) = [
        document
        for path in (extended.home / "changes").glob("*.json")
        if "repository" in (document := json.loads(path.read_text())) and document.get("head") == done["branch"]
    ]
    assert (change["state"], change["base"]) == ("open", "main")
    assert Path(change["repository"]) == repository
    asked = {"stream": done["story_id"], "type": "StepFinished"}
    steps = [event["body"] for event in extended.get("/api/audit/events", params=asked)["items"]]
    assert {step["provenance"]["engine"] for step in steps if "engine" in (step["provenance"] or {})} == {"wire"}
    with sqlite3.connect(extended.home / "blobs.sqlite") as blobs:
        assert blobs.execute("SELECT count(*) FROM blobs").fetchone()[0] > 20
    assert not (extended.home / "blobs").exists()


@pytest.mark.rule("RT-69", "LC-80", "RT-65")
def test_person_is_told_by_the_target_of_a_package_with_a_secret_of_a_package(extended: World, config: Path) -> None:
    story_id = extended.started()

    def told() -> dict[str, Any] | None:
        lines = (config / "notices").read_text().splitlines() if (config / "notices").exists() else []
        found = [json.loads(line) for line in lines]
        return next((line for line in found if json.loads(line["notice"])["story_id"] == story_id), None)

    line = extended.wait(told)
    assert line["signature"] == hmac.new(KEY.encode(), line["notice"].encode(), "sha256").hexdigest()
    notice = json.loads(line["notice"])
    assert (notice["kind"], notice["gate"]) == ("approval_requested", "approve_scope")
    uses = extended.process("audit", "access").ok()["accesses"]
    assert {(use["name"], use["provider"], use["tool"]) for use in uses} == {USE}
    assert {use["outcome"] for use in uses} <= {"resolved", "cached"}


@pytest.mark.rule("RT-69", "RT-1")
def test_tool_of_a_package_counts_and_its_sandbox_backend_refuses(extended: World, hand: TaskAtHand) -> None:
    tools = {tool["name"] for tool in extended.get("/api/tools")["items"]}
    assert "word_count.count" in tools
    with hand.going_on():
        session = opened(extended, hand)["session_id"]
        called(extended, session, "files", "write", path="notes.md", content="three small words\n")
        counted = called(extended, session, "word_count", "count", path="notes.md")
        assert counted["outcome"]["content"] == {"words": 3}
        assert called(extended, session, "tests", "pytest")["outcome"]["content"]["passed"] == 4
        refused = refusal(extended, session, "exec", "run", argv=["grep", "-r", "words", "."])
    assert (refused["code"], refused["message"]) == (
        "sandbox_unavailable",
        "this node does not run grep: use another node",
    )


def refusal(world: World, session: str, tool: str, op: str, **args: Any) -> dict[str, Any]:
    """The problem that a call of the session ends with."""
    headers = {"Idempotency-Key": f"call-of-a-door-{uuid.uuid4()}"}
    body = {"tool": tool, "op": op, "args": args}
    asked = world.client.post(f"{SESSIONS}/{session}/invoke", json=body, headers=headers).json()
    problem = world.get(f"/api/tools/invocations/{asked['invocation_id']}", params={"timeoutSec": 120})["problem"]
    assert problem is not None
    return problem
