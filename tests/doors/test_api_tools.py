"""Doors to the sandbox: runs of a person's task, tool sessions, and the calls in them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.support.task_at_hand import TaskAtHand
from tests.support.world import COLLEAGUE, World

SESSIONS = "/api/tools/sessions"
WRITES = "print('one'); print('two'); open('/workspace/out.txt', 'w').write('kept')"
SLEEPS = "import time; print('begun', flush=True); time.sleep(300)"
pytestmark = pytest.mark.timeout(600)


def called(world: World, session: str, tool: str, op: str, **args: Any) -> dict[str, Any]:
    """A finished call of the session; one that takes long is asked for again."""
    headers = {"Idempotency-Key": f"call-of-a-door-{uuid.uuid4()}"}
    body = {"tool": tool, "op": op, "args": args}
    response = world.client.post(f"{SESSIONS}/{session}/invoke", json=body, headers=headers)
    world.heard(response)
    one = f"/api/tools/invocations/{response.json()['invocation_id']}"
    found = world.get(one, params={"timeoutSec": 120})
    assert (found["status"], found["problem"]) == ("finished", None)
    return found


def opened(world: World, at_hand: TaskAtHand) -> dict[str, Any]:
    """A session of a developer in the task at hand."""
    body = {"story_id": at_hand.story_id, "task_id": at_hand.task_id, "role": "developer"}
    return world.post(SESSIONS, body, status=201)


@pytest.mark.door(
    "POST /api/runs",
    "GET /api/runs/{run_id}",
    "GET /api/runs/{run_id}/result",
    "GET /api/runs/{run_id}/logs",
    "POST /api/runs/{run_id}/artifacts",
    "GET /api/workspace/{run_id}/logs",
)
def test_run_of_a_claimed_task_has_result_lines_and_outputs(world: World, at_hand: TaskAtHand) -> None:
    with at_hand.going_on():
        spec = at_hand.spec("python", "-c", WRITES, artifacts={"paths": ["/workspace/out.txt"]})
        ticket = world.post("/api/runs", spec, status=202)
        one = f"/api/runs/{ticket['taskId']}"
        result = world.get(f"{one}/result", params={"timeoutSec": 120})
    assert (result["status"], result["exitCode"], result["reason"]) == ("passed", 0, "ok")
    assert (result["metadata"]["task_id"], result["metadata"]["backend"]) == (at_hand.task_id, "bubblewrap")
    assert world.get(one) == result
    lines = world.get(f"{one}/logs", params={"fromLine": 2})
    assert ([line["line"] for line in lines["items"]], lines["is_over"]) == (["two"], True)
    stream = world.get(f"{one}/logs", params={"follow": True}).text
    assert [row for row in stream.splitlines() if row.startswith("event:")] == [
        "event: log",
        "event: log",
        "event: end",
    ]
    (kept,) = world.post(f"{one}/artifacts", {})["items"]
    assert (kept["path"], kept["sizeBytes"], kept["missing"]) == ("/workspace/out.txt", 4, False)
    assert [line["line"] for line in world.get(f"/api/workspace/{ticket['taskId']}/logs")] == ["one", "two"]


@pytest.mark.door("POST /api/runs/{run_id}/cancel")
def test_run_that_is_cancelled_ends(world: World, at_hand: TaskAtHand) -> None:
    with at_hand.going_on():
        one = f"/api/runs/{world.post('/api/runs', at_hand.spec('python', '-c', SLEEPS), status=202)['taskId']}"
        begun = world.get(f"{one}/logs", params={"timeoutSec": 60})
        assert [line["line"] for line in begun["items"]] == ["begun"]
        world.post(f"{one}/cancel", {"reason": "it sleeps"})
        result = world.get(f"{one}/result", params={"timeoutSec": 60})
    assert (result["status"], result["reason"]) == ("cancelled", "cancelled")


@pytest.mark.door(
    "POST /api/tools/sessions",
    "GET /api/tools/sessions/{session_id}",
    "GET /api/tools/sessions/{session_id}/tools",
    "DELETE /api/tools/sessions/{session_id}",
    "POST /api/tools/sessions/{session_id}/invoke",
    "GET /api/tools/invocations/{invocation_id}",
    "GET /api/tools/invocations/{invocation_id}/logs",
    "GET /api/tools/invocations/{invocation_id}/artifacts",
)
def test_session_tests_searches_and_changes_the_tree_of_its_task(world: World, at_hand: TaskAtHand) -> None:
    with at_hand.going_on():
        session = opened(world, at_hand)["session_id"]
        tests = called(world, session, "tests", "pytest")
        assert tests["outcome"]["content"] == {"passed": 4, "failed": 0, "errored": 0, "skipped": 0, "failures": []}
        one = f"/api/tools/invocations/{tests['invocation_id']}"
        assert "4 passed" in world.get(f"{one}/logs")["items"][-1]["line"]
        assert [kept["path"] for kept in world.get(f"{one}/artifacts")["items"]] == ["test-reports/junit.xml"]
        assert called(world, session, "files", "write", path="notes.md", content="A note\n")["outcome"]["tree_out"]
        assert called(world, session, "files", "read", path="notes.md")["outcome"]["text"] == "A note"
        found = called(world, session, "search", "code", query="how many words a text has")
        assert found["outcome"]["content"]["total"] > 0
        history = called(world, session, "git", "log")["outcome"]["content"]["commits"]
        assert [commit["subject"] for commit in history] == ["Small functions for text"]
        assert called(world, session, "lint", "lint")["outcome"]["content"] == {"total": 0, "findings": []}
        shown = world.get(f"{SESSIONS}/{session}")
        assert (shown["role"], shown["phase"], shown["task_id"]) == ("developer", "BUILD", at_hand.task_id)
        listed = {tool["name"] for tool in world.get(f"{SESSIONS}/{session}/tools")["items"]}
        assert listed == set(shown["tools"])
        world.send("DELETE", f"{SESSIONS}/{session}", status=204)
        assert world.get(f"{SESSIONS}/{session}", status=404)["code"] == "not_found"


@pytest.mark.door("GET /api/tools")
def test_every_tool_tells_its_risk_and_arguments(world: World) -> None:
    tools = {tool["name"]: tool for tool in world.get("/api/tools")["items"]}
    assert (tools["kubectl.scale"]["risk"], tools["kubectl.scale"]["approval"]) == ("high", "always")
    assert tools["files.write"]["args"]["path"]["type"] == "path"


@pytest.mark.door("POST /api/approvals/{approval_id}/revoke", "fleet story revoke")
def test_yes_to_a_call_is_taken_back_before_it_is_used(world: World, at_hand: TaskAtHand) -> None:
    with at_hand.going_on():
        story_id, session = at_hand.story_id, opened(world, at_hand)["session_id"]
        first, second = (granted_call(world, session, package) for package in ("first", "second"))
    world.post(f"/api/approvals/{first}/revoke", {"reason": "it is not needed any more"})
    world.fleet("story", "revoke", story_id, second, "--reason", "it is not needed any more").ok()
    assert [world.get(f"/api/approvals/{a}")["status"] for a in (first, second)] == ["revoked", "revoked"]


def granted_call(world: World, session: str, package: str) -> str:
    """Id of the approval of a call that installs a package, granted by somebody else."""
    headers = {"Idempotency-Key": f"call-of-a-door-{uuid.uuid4()}"}
    body = {"tool": "exec", "op": "run", "args": {"argv": ["pip", "install", package]}}
    asked = world.client.post(f"{SESSIONS}/{session}/invoke", json=body, headers=headers).json()
    assert "approval_id" in asked, asked
    approval = asked["approval_id"]
    other = {"Authorization": f"Bearer {COLLEAGUE}"}
    world.post(f"/api/approvals/{approval}/grant", {"notes": "this package is known"}, headers=other)
    return approval
