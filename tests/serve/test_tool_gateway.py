"""Tools and runs over HTTP, against a story with its owner in this process (AP-81, AP-82, AP-85, AP-89, AP-93)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from fleet.kernel.errors import InvalidInput
from fleet.kernel.ids import EntityId, Principal, RunKey, StoryId
from fleet.policy.runs.spec import RunResult, RunSpec
from fleet.sandbox.memory import ProgramEnd, ProgramStart
from fleet.sandbox.port import RunProgress
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from fleet.tools.memory import MemoryToolSessions
from fleet.tools.port import ToolOrigin
from tests.support.sandbox import state_folder
from tests.support.story_events import STORY, TASK
from tests.support.tool_front import ARCHIE, DEV, QUINN, ROOT, keyed, serving, tool_front

SESSIONS = "/api/tools/sessions"
INSTALL = ("pip", "install", "left-pad")


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json", response.text
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), body
    return body


async def frames_of(response: httpx2.Response) -> AsyncIterator[dict[str, str]]:
    """Frames of a stream as mappings; comments are left out."""
    found: dict[str, str] = {}
    async for line in response.aiter_lines():
        if not line:
            if "event" in found:
                yield found
            found = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            found[name] = value


@pytest.mark.rule("AP-93")
async def test_declared_operations_are_listed_with_the_digest_of_the_policy():
    async with tool_front() as at:
        found = (await at.client.get("/api/tools", headers=DEV)).json()
        assert found["policy_digest"] == at.world.policy.policy.digest
        tools = {entry["name"]: entry for entry in found["items"]}
        assert (tools["kubectl.scale"]["risk"], tools["kubectl.scale"]["approval"]) == ("high", "always")
        assert tools["files.write"]["args"]["path"] == {"type": "path"}
        assert list(tools) == sorted(tools)


@pytest.mark.rule("RT-68", "RT-35", "AP-85")
async def test_session_offers_the_operations_of_its_role_and_ends_when_it_is_closed():
    async with tool_front() as at:
        session = await at.session()
        assert (session["role"], session["phase"], session["task_id"]) == ("developer", "BUILD", TASK)
        url = f"{SESSIONS}/{session['session_id']}"
        listed = (await at.client.get(f"{url}/tools", headers=DEV)).json()
        assert {entry["name"] for entry in listed["items"]} == set(session["tools"])
        assert "files.write" in session["tools"]
        assert "kubectl.scale" not in session["tools"]
        reading = await at.session(number=2, read_only=True)
        assert "files.read" in reading["tools"]
        assert "files.write" not in reading["tools"]
        for _ in range(2):
            assert (await at.client.delete(url, headers=keyed(9))).status_code == 204
        problem(await at.client.get(url, headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-2", "AP-37")
async def test_key_opens_one_session_and_no_other():
    async with tool_front() as at:
        first = await at.session()
        assert await at.session() == first
        body = {"story_id": STORY, "role": "developer", "read_only": True}
        problem(await at.client.post(SESSIONS, json=body, headers=keyed(1)), 422, "idempotency_mismatch")
        problem(await at.client.post(SESSIONS, json=body, headers=DEV), 400, "idempotency_key_required")


@pytest.mark.rule("RT-68", "AP-25")
async def test_session_call_and_run_of_somebody_else_are_not_there():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        called = (await at.invoke(session, "files", "write", path="a.py", content="x = 1\n")).json()
        run = (await at.run("python", "a.py")).json()["taskId"]
        for path in (
            f"{SESSIONS}/{session}",
            f"{SESSIONS}/{session}/tools",
            f"/api/tools/invocations/{called['invocation_id']}",
            f"/api/tools/invocations/{called['invocation_id']}?storyId={STORY}",
            f"/api/runs/{run}",
            f"/api/runs/{run}/result?storyId={STORY}",
            f"/api/runs/{run}/logs",
            f"/api/runs/{run}/logs?follow=true",
        ):
            problem(await at.client.get(path, headers=ROOT), 404, "not_found")
        problem(await at.client.delete(f"{SESSIONS}/{session}", headers=keyed(1, ROOT)), 404, "not_found")
        body = {"tool": "files", "op": "read", "args": {"path": "a.py"}}
        problem(
            await at.client.post(f"{SESSIONS}/{session}/invoke", json=body, headers=keyed(1, ROOT)), 404, "not_found"
        )
        problem(await at.client.post(f"/api/runs/{run}/cancel", json={}, headers=keyed(1, ROOT)), 404, "not_found")
        problem(await at.client.get(f"/api/tools/invocations/{session}-{'0' * 24}", headers=DEV), 404, "not_found")
        problem(await at.client.get("/api/runs/rn-none", headers=DEV), 404, "not_found")


async def test_role_that_is_not_held_opens_no_session():
    async with tool_front() as at:
        body = {"story_id": STORY, "role": "devops"}
        refused = problem(await at.client.post(SESSIONS, json=body, headers=keyed(1)), 403, "policy_denied")
        assert refused["rule_id"] == "role_not_held"
        body = {"story_id": "st-none", "role": "developer"}
        problem(await at.client.post(SESSIONS, json=body, headers=keyed(2)), 404, "not_found")


@pytest.mark.rule("AP-85", "RT-66")
async def test_call_is_carried_out_and_the_next_one_sees_what_it_did():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        written = await at.invoke(session, "files", "write", path="a.py", content="x = 1\n")
        assert (written.status_code, written.json()["status"]) == (200, "finished")
        assert written.json()["outcome"]["tree_out"]
        read = (await at.invoke(session, "files", "read", number=2, path="a.py")).json()
        assert "x = 1" in read["outcome"]["text"]
        url = f"/api/tools/invocations/{read['invocation_id']}"
        assert (await at.client.get(f"{url}?timeoutSec=1", headers=DEV)).json() == read
        assert (await at.client.get(f"{url}/logs", headers=DEV)).json() == {
            "items": [],
            "next_line": 1,
            "is_over": True,
        }
        assert (await at.client.get(f"{url}/artifacts", headers=DEV)).json() == {"items": []}


@pytest.mark.rule("LC-130")
async def test_task_is_claimed_by_one_person_over_http():
    async with tool_front() as at:
        url = f"/api/planner/stories/{STORY}/tasks/{TASK}/claim"
        again = await at.client.post(url, json={"role": "developer"}, headers=keyed(1))
        assert again.status_code == 200, again.text
        problem(await at.client.post(url, json={"role": "developer"}, headers=keyed(1, ROOT)), 403, "policy_denied")


@pytest.mark.rule("AP-85", "AP-4")
async def test_call_that_takes_longer_is_answered_with_the_address_of_its_outcome():
    let_go = asyncio.Event()

    async def held(start: ProgramStart) -> ProgramEnd:
        await let_go.wait()
        return ProgramEnd(stdout=b"done")

    async with tool_front(program=held) as at:
        session = (await at.session())["session_id"]
        slow = await at.invoke(session, "exec", "run", argv=["python", "a.py"])
        assert (slow.status_code, slow.json()["status"]) == (202, "running")
        assert (await at.client.get(f"{slow.headers['location']}/artifacts", headers=DEV)).json()["items"] == []
        assert (await at.client.get(f"{slow.headers['location']}/logs", headers=DEV)).json()["is_over"] is False
        let_go.set()
        ended = (await at.client.get(f"{slow.headers['location']}?timeoutSec=20", headers=DEV)).json()
        assert (ended["status"], ended["outcome"]["outcome"]) == ("finished", "succeeded")


async def test_call_that_its_tool_refuses_is_finished_with_a_problem():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        found = (await at.invoke(session, "files", "edit", path="a.py", old="x", new="y")).json()
        assert found["status"] == "finished"
        assert found["problem"] is not None or found["outcome"]["outcome"] == "failed"


async def test_queued_run_that_the_owner_refused_later_says_so_by_its_id():
    async with tool_front() as at:
        await at.lose_owner()
        run = (await at.run("curl", "http://x")).json()["taskId"]
        async with at.owner():
            found = await at.client.get(f"/api/runs/{run}/result?timeoutSec=20", headers=DEV)
            assert problem(found, 403, "policy_denied")["rule_id"]
            problem(await at.client.get(f"/api/runs/{run}/logs?follow=true", headers=DEV), 403, "policy_denied")


@pytest.mark.rule("AP-2", "AP-37")
async def test_repeated_call_is_made_once_and_its_key_serves_no_other():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        first = (await at.invoke(session, "files", "append", path="a.txt", content="once\n")).json()
        assert (await at.invoke(session, "files", "append", path="a.txt", content="once\n")).json() == first
        read = (await at.invoke(session, "files", "read", number=2, path="a.txt")).json()
        assert read["outcome"]["text"].count("once") == 1
        other = await at.invoke(session, "files", "append", path="a.txt", content="other\n")
        problem(other, 422, "idempotency_mismatch")


@pytest.mark.rule("AP-85")
async def test_logs_of_a_call_are_those_of_the_run_behind_it():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        called = (await at.invoke(session, "exec", "run", argv=["python", "a.py"])).json()
        assert called["outcome"]["outcome"] == "succeeded", called
        url = f"/api/tools/invocations/{called['invocation_id']}/logs"
        page = (await at.client.get(f"{url}?limit=1", headers=DEV)).json()
        assert ([e["line"] for e in page["items"]], page["is_over"], page["next_line"]) == (["one"], False, 2)
        rest = (await at.client.get(f"{url}?fromLine=2", headers=DEV)).json()
        assert ([e["line"] for e in rest["items"]], rest["is_over"]) == (["two"], True)


@pytest.mark.rule("RT-32")
@pytest.mark.parametrize("field", ["approved", "force", "approval", "approval_id", "grantee"])
async def test_body_that_brings_its_own_consent_is_refused(field: str):
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        body = {"tool": "exec", "op": "run", "args": {"argv": list(INSTALL)}, field: True}
        refused = await at.client.post(f"{SESSIONS}/{session}/invoke", json=body, headers=keyed(1))
        assert problem(refused, 422, "invalid_input")["errors"][0]["pointer"] == f"/{field}"
        refused = await at.run(*INSTALL, **{field: True})
        assert problem(refused, 422, "invalid_input")["errors"][0]["pointer"] == f"/{field}"
        body = {"story_id": STORY, "role": "developer", field: True}
        problem(await at.client.post(SESSIONS, json=body, headers=keyed(3)), 422, "invalid_input")


@pytest.mark.rule("RT-31")
async def test_denied_call_says_which_rule_denied_it_and_is_on_record():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        refused = await at.invoke(session, "files", "write", path="../x", content="")
        body = problem(refused, 403, "policy_denied")
        assert (body["rule_id"], body["policy_digest"]) == ("path_outside", at.world.policy.policy.digest)
        assert (await at.world.types())[-1] == "ToolDenied"
        refused = await at.invoke(session, "kubectl", "get", number=2, namespace="a", kind="pod")
        problem(refused, 403, "policy_denied")


@pytest.mark.rule("AP-24", "RT-33", "RT-34")
async def test_call_that_needs_a_yes_waits_for_a_person_and_is_made_once():
    async with tool_front() as at:
        session = (await at.session())["session_id"]
        asked = problem(await at.invoke(session, "exec", "run", argv=list(INSTALL)), 403, "approval_required")
        assert (asked["gate"], asked["role"], asked["retry"]) == ("tool:exec.run", "architect", "later")
        approval = f"/api/planner/stories/{STORY}/approvals/{asked['approval_id']}"
        refused = await at.client.post(f"{approval}/grant", json={}, headers=keyed(2, DEV))
        problem(refused, 403, "policy_denied")
        granted = await at.client.post(f"{approval}/grant", json={}, headers=keyed(2, ROOT))
        assert granted.status_code == 200, granted.text
        again = problem(await at.invoke(session, "exec", "run", argv=list(INSTALL)), 403, "approval_required")
        assert again["approval_id"] == asked["approval_id"], "the same key repeats its answer"
        made = await at.invoke(session, "exec", "run", number=3, argv=list(INSTALL))
        assert made.json()["outcome"]["outcome"] == "succeeded", made.text
        used = problem(await at.invoke(session, "exec", "run", number=4, argv=list(INSTALL)), 403, "approval_required")
        assert used["approval_id"] != asked["approval_id"]


@pytest.mark.rule("AP-24", "LC-74")
async def test_run_that_a_person_refused_is_denied():
    async with tool_front() as at:
        asked = problem(await at.run(*INSTALL), 403, "approval_required")
        url = f"/api/planner/stories/{STORY}/approvals/{asked['approval_id']}/reject"
        done = await at.client.post(url, json={"reason": "we have that already"}, headers=keyed(2, ROOT))
        assert done.status_code == 200, done.text
        assert problem(await at.run(*INSTALL, number=3), 403, "policy_denied")["rule_id"] == "approval_rejected"


def leaves_a_report(start: ProgramStart) -> ProgramEnd:
    return ProgramEnd(stdout=b"one\ntwo\n", stderr=b"three\n", written={"out/a.txt": b"hello", "b.txt": b"b"})


@pytest.mark.rule("RC-20", "RC-21", "RC-22", "RC-23", "AP-81")
async def test_run_is_asked_for_ends_and_shows_what_it_kept():
    async with tool_front(program=leaves_a_report) as at:
        artifacts = {"paths": ["/workspace/out", "/workspace/gone.txt"]}
        asked = await at.run("python", "a.py", artifacts=artifacts)
        assert asked.status_code == 202, asked.text
        run = asked.json()["taskId"]
        assert asked.json()["status"] in ("pending", "running", "passed")
        assert (await at.run("python", "a.py", artifacts=artifacts)).json()["taskId"] == run
        problem(await at.run("python", "b.py"), 422, "idempotency_mismatch")
        result = await at.result(run)
        assert (result["status"], result["reason"], result["exitCode"]) == ("passed", "ok", 0)
        about = result["metadata"]
        assert (about["runId"], about["case_id"], about["task_id"]) == (run, STORY, TASK)
        assert about["startedAt"] <= about["finishedAt"]
        page = (await at.client.get(f"/api/runs/{run}/logs?limit=2", headers=DEV)).json()
        assert [e["n"] for e in page["items"]] == [1, 2]
        rest = (await at.client.get(f"/api/runs/{run}/logs?fromLine={page['next_line']}", headers=DEV)).json()
        assert (rest["is_over"], {e["line"] for e in page["items"] + rest["items"]}) == (True, {"one", "two", "three"})
        url = f"/api/runs/{run}/artifacts"
        kept = (await at.client.post(url, json={}, headers=DEV)).json()["items"]
        assert [(e["path"], e["missing"]) for e in kept] == [
            ("/workspace/out/a.txt", False),
            ("/workspace/gone.txt", True),
        ]
        one = (await at.client.post(url, json={"paths": ["out/a.txt"]}, headers=DEV)).json()["items"]
        assert one == kept[:1]
        problem(await at.client.post(url, json={"paths": ["/etc/passwd"]}, headers=DEV), 422, "invalid_input")


@pytest.mark.rule("AP-89")
async def test_bytes_of_an_output_are_given_out_within_its_story_and_never_to_be_opened():
    async with tool_front(program=leaves_a_report) as at:
        run = (await at.run("python", "a.py", artifacts={"paths": ["/workspace/out"]})).json()["taskId"]
        captured = (await at.result(run))["captured"]
        found = await at.client.get(f"/api/artifacts/{captured['artifacts'][0]['ref']}?storyId={STORY}", headers=DEV)
        assert (found.status_code, found.content) == (200, b"hello")
        assert found.headers["content-disposition"].startswith("attachment")
        assert found.headers["x-content-type-options"] == "nosniff"
        log = await at.client.get(f"/api/artifacts/{captured['logsRef']}?storyId={STORY}", headers=ARCHIE)
        assert json.loads(log.text.splitlines()[0])["line"] == "one"
        hidden = await at.world.blobs.put(b"another story's")
        problem(await at.client.get(f"/api/artifacts/{hidden}?storyId={STORY}", headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-82")
async def test_lines_of_a_job_are_shown_to_everybody_of_the_project_in_short_form():
    async with tool_front() as at:
        run = (await at.run("python", "a.py")).json()["taskId"]
        await at.result(run)
        lines = (await at.client.get(f"/api/workspace/{run}/logs", headers=ARCHIE)).json()
        assert [(e["line"], e["level"]) for e in lines] == [("one", "info"), ("two", "info")]
        assert set(lines[0]) == {"ts", "line", "level"}
        async with at.client.stream("GET", f"/api/workspace/{run}/logs?follow=true", headers=ARCHIE) as stream:
            frames = [frame async for frame in frames_of(stream)]
        assert [frame["event"] for frame in frames] == ["log", "log", "end"]


@pytest.mark.rule("RC-24", "RC-18")
async def test_cancelled_run_is_cancelled_however_often_it_is_asked_and_a_final_one_is_unchanged():
    async def forever(start: ProgramStart) -> ProgramEnd:
        await asyncio.sleep(600)
        return ProgramEnd()

    async with tool_front(program=forever) as at:
        run = (await at.run("python", "a.py")).json()["taskId"]
        url = f"/api/runs/{run}/cancel"
        problem(await at.client.post(f"/api/runs/{run}/artifacts", json={}, headers=DEV), 409, "invalid_transition")
        for number in (2, 3):
            found = await at.client.post(url, json={"reason": "changed my mind"}, headers=keyed(number))
            assert (found.status_code, found.json()["status"], found.json()["reason"]) == (
                200,
                "cancelled",
                "cancelled",
            )


@pytest.mark.rule("RC-1", "RC-6")
async def test_run_that_asks_for_too_much_is_refused_with_the_field():
    async with tool_front() as at:
        refused = problem(await at.run("python", "a.py", image="alpine"), 403, "policy_denied")
        assert "python" in refused["allowed"]
        refused = problem(await at.run("python", "a.py", timeouts={"overallSec": 601}), 403, "policy_denied")
        assert refused["field"] == "timeouts.overallSec"
        refused = problem(await at.run("curl", "http://x", number=2), 403, "policy_denied")
        refused = await at.client.get("/api/runs/rn-x/logs?fromLine=0", headers=DEV)
        problem(refused, 422, "invalid_input")


PRINTS = "import time; [(print('line', i, flush=True), time.sleep(0.5)) for i in range(4)]"


@pytest.mark.rule("RC-22", "AP-81", "AP-102")
async def test_lines_stream_while_the_run_goes_on_and_resume_by_line_number():
    with state_folder() as state:
        async with tool_front(state=state) as at, serving(at.app) as url, httpx2.AsyncClient(timeout=60) as client:
            run = (await at.run("python", "-c", PRINTS)).json()["taskId"]
            follow = f"{url}/api/runs/{run}/logs?follow=true"
            before = ""
            async with client.stream("GET", follow, headers=DEV) as stream:
                async for frame in frames_of(stream):
                    assert frame["event"] == "log"
                    before = frame["id"]
                    break
            assert (before, (await at.result(run, timeout_s=0))["status"]) == ("1", "running")
            async with client.stream("GET", follow, headers=DEV | {"Last-Event-ID": before}) as stream:
                frames = [frame async for frame in frames_of(stream)]
            assert [json.loads(f["data"])["line"] for f in frames[:-1]] == ["line 1", "line 2", "line 3"]
            assert (frames[-1]["event"], json.loads(frames[-1]["data"])["status"]) == ("end", "passed")
            bad = await client.get(follow, headers=DEV | {"Last-Event-ID": "story:x/1"})
            problem(bad, 422, "invalid_input")


async def test_queued_run_is_pending_until_the_owner_decided():
    async with tool_front() as at:
        await at.lose_owner()
        answer = (await at.run("curl", "http://x")).json()
        assert answer["status"] == "pending"
        run = answer["taskId"]
        assert (await at.result(run, timeout_s=0))["status"] == "pending"
        assert (await at.client.get(f"/api/runs/{run}/logs", headers=DEV)).json()["items"] == []


class Refusing(ToolSupervisor):
    """A sandbox that can hold no run."""

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        raise InvalidInput("the run has no form that this sandbox knows", field="spec")

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        raise InvalidInput("the run has no form that this sandbox knows", field="spec")


@pytest.mark.rule("RC-19")
async def test_run_that_no_sandbox_could_hold_is_an_error_with_its_problem():
    async with tool_front(supervisor=Refusing) as at:
        run = (await at.run("python", "a.py")).json()["taskId"]
        result = await at.result(run)
        assert (result["status"], result["exitCode"], result["problem"]["code"]) == ("error", None, "invalid_input")
        assert result["metadata"]["finishedAt"] is not None
        page = (await at.client.get(f"/api/runs/{run}/logs", headers=DEV)).json()
        assert (page["items"], page["is_over"]) == ([], True)
        refused = await at.client.post(f"/api/runs/{run}/artifacts", json={}, headers=DEV)
        assert problem(refused, 409, "invalid_transition")["state"] == "error"
        again = await at.client.post(f"/api/runs/{run}/cancel", json={}, headers=keyed(2))
        assert again.json() == result
        async with at.client.stream("GET", f"/api/runs/{run}/logs?follow=true", headers=DEV) as stream:
            assert [frame["event"] async for frame in frames_of(stream)] == ["end"]


@pytest.mark.rule("RC-26")
async def test_run_is_found_without_the_index_when_its_story_is_named():
    async with tool_front() as at:
        run = (await at.run("python", "a.py")).json()["taskId"]
        await at.result(run)
        assert isinstance(at.sessions, MemoryToolSessions)
        await at.sessions.remember(EntityId(run), ToolOrigin(story_id=STORY, principal=Principal("user:dev")), ttl_s=0)
        problem(await at.client.get(f"/api/runs/{run}", headers=DEV), 404, "not_found")
        found = await at.client.get(f"/api/runs/{run}?storyId={STORY}", headers=DEV)
        assert found.json()["status"] == "passed"
        problem(await at.client.get(f"/api/workspace/rn-none/logs?storyId={STORY}", headers=DEV), 404, "not_found")


@pytest.mark.rule("AP-1")
async def test_role_of_the_header_must_be_held_and_named_by_the_body_too():
    async with tool_front() as at:
        body = {"story_id": STORY, "role": "qa", "read_only": True}
        for number, (selected, rule) in enumerate([("developer", "role_not_held"), ("po", "role_not_selected")]):
            who = QUINN if rule == "role_not_held" else ROOT
            headers = keyed(number, who) | {"X-Fleet-Role": selected}
            for path, sent in (
                (SESSIONS, body),
                ("/api/runs", {"image": "python", "cmd": ["x"], "context": {"case_id": STORY, "role": "qa"}}),
                (f"/api/planner/stories/{STORY}/tasks/{TASK}/claim", {"role": "qa"}),
            ):
                refused = await at.client.post(path, json=sent, headers=headers)
                assert problem(refused, 403, "policy_denied")["rule_id"] == rule
        opened = await at.client.post(SESSIONS, json=body, headers=keyed(9, ROOT) | {"X-Fleet-Role": "qa"})
        assert opened.status_code == 201, opened.text
