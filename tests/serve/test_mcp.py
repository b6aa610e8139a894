"""The MCP server over real HTTP on loopback, asked by the SDK's own client (AP-113)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx2
import pytest

from fleet.sandbox.memory import Program, ProgramEnd, ProgramStart
from fleet.sandbox.port import SandboxHealth
from fleet.sandbox.service.tool_supervisor import ToolSupervisor
from serve_apps.routes.mcp import MCP_PATH
from tests.support.mcp import Agent, agent
from tests.support.story_events import DOC_TASK, STORY, TASK
from tests.support.tool_front import DEV, ROOT, ToolFront, keyed, serving, task_spec, tool_front


def leaves_a_file(start: ProgramStart) -> ProgramEnd:
    return ProgramEnd(stdout=b"one\ntwo\n", written={"out/a.txt": b"hello"})


@asynccontextmanager
async def served(program: Program = leaves_a_file) -> AsyncGenerator[tuple[ToolFront, Agent, str]]:
    """A front over HTTP, and the developer's client."""
    async with tool_front(program=program) as at, serving(at.app) as url, agent(url, DEV) as dev:
        yield at, dev, url


@pytest.mark.rule("AP-113", "RC-20", "RC-21", "RC-22", "RC-23", "RC-25")
async def test_runner_methods_work_over_mcp():
    async with served() as (_, dev, _):
        listed = {tool.name: tool for tool in (await dev.client.list_tools()).tools}
        assert {"run_task", "await_result", "stream_logs", "copy_artifacts", "cancel", "health"} <= set(listed)
        assert listed["run_task"].input_schema["additionalProperties"] is False
        assert re.findall(r"\b[A-Z]{2}-[0-9]+\b", str([tool.model_dump() for tool in listed.values()])) == []
        spec = task_spec("python", "a.py", artifacts={"paths": ["/workspace/out"]})
        asked = await dev.ask("run_task", spec=spec, idempotencyKey="key-run-1")
        assert (await dev.ask("run_task", spec=spec, idempotencyKey="key-run-1"))["taskId"] == asked["taskId"]
        run = asked["taskId"]
        result = await dev.ask("await_result", taskId=run, timeoutSec=20)
        assert (result["status"], result["exitCode"], result["metadata"]["case_id"]) == ("passed", 0, STORY)
        page = await dev.ask("stream_logs", taskId=run, fromLine=2)
        assert ([e["line"] for e in page["items"]], page["is_over"], page["status"]) == (["two"], True, "passed")
        kept = await dev.ask("copy_artifacts", taskId=run)
        assert kept["items"][0]["path"] == "/workspace/out/a.txt"
        assert (await dev.ask("cancel", taskId=run))["status"] == "passed"
        health = await dev.ask("health")
        assert (health["runtime"], health["status"]) == ("memory", "degraded")


@pytest.mark.rule("AP-113", "RT-68", "AP-24")
async def test_tools_of_a_session_work_over_mcp_and_wait_for_a_person():
    async with served() as (at, dev, _):
        opened = await dev.ask(
            "open_session", story_id=STORY, role="developer", task_id=TASK, idempotencyKey="key-session"
        )
        session = opened["session_id"]
        names = {tool["name"] for tool in (await dev.ask("list_tools", sessionId=session))["items"]}
        assert "files.write" in names
        write = {"sessionId": session, "tool": "files", "op": "write", "args": {"path": "a.py", "content": "x\n"}}
        done = await dev.ask("invoke_tool", **write, idempotencyKey="key-write")
        assert done["outcome"]["outcome"] == "succeeded"
        shown = await dev.ask("show_invocation", invocationId=done["invocation_id"])
        assert shown == done
        install = {"sessionId": session, "tool": "exec", "op": "run", "args": {"argv": ["pip", "install", "x"]}}
        for args in ({"path": 1.5}, {"path": {"a": [6.06e16]}}):
            wrong = await dev.refused("invoke_tool", **install | {"args": args}, idempotencyKey="key-args-1")
            assert (wrong["code"], wrong["details"]["problems"][0]["pointer"]) == ("invalid_input", "/args")
        asked = await dev.refused("invoke_tool", **install, idempotencyKey="key-install-1")
        assert (asked["code"], asked["retry"]) == ("approval_required", "later")
        url = f"/api/planner/stories/{STORY}/approvals/{asked['details']['approval_id']}/grant"
        granted = await at.client.post(url, json={}, headers=keyed(1, ROOT))
        assert granted.status_code == 200, granted.text
        made = await dev.ask("invoke_tool", **install, idempotencyKey="key-install-2")
        assert made["outcome"]["outcome"] == "succeeded"


@pytest.mark.rule("AP-113", "RT-32", "AP-7")
async def test_refusals_carry_code_and_details():
    async with served() as (_, dev, _):
        spec = task_spec("python", "a.py")
        refused = await dev.refused("run_task", spec=spec | {"approved": True}, idempotencyKey="key-run-1")
        assert (refused["code"], refused["details"]["problems"][0]["pointer"]) == ("invalid_input", "/spec/approved")
        refused = await dev.refused("run_task", spec=spec, idempotencyKey="key-run-1", force=True)
        assert refused["code"] == "invalid_input"
        assert (await dev.refused("run_task", spec=spec))["code"] == "invalid_input"
        refused = await dev.refused("run_task", spec=spec | {"image": "alpine"}, idempotencyKey="key-run-1")
        assert (refused["code"], refused["details"]["rule_id"]) == ("policy_denied", "image_not_listed")
        refused = await dev.refused("run_task", spec=spec, idempotencyKey="a key with spaces")
        assert refused["code"] == "malformed_request"
        assert (await dev.refused("no_such_tool"))["code"] == "not_found"
        assert (await dev.refused("await_result", taskId="rn-none", timeoutSec=601))["code"] == "invalid_input"


@pytest.mark.rule("AP-113", "AP-1")
async def test_run_of_somebody_else_is_not_there_and_nobody_gets_in_without_a_token():
    async with served() as (_, dev, url):
        run = (await dev.ask("run_task", spec=task_spec("python", "a.py"), idempotencyKey="key-run-1"))["taskId"]
        async with agent(url, ROOT) as root:
            for tool in ("await_result", "stream_logs", "copy_artifacts", "cancel"):
                assert (await root.refused(tool, taskId=run))["code"] == "not_found"
        async with httpx2.AsyncClient() as client:
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                found = await client.post(f"{url}{MCP_PATH}", json=body, headers=headers)
                assert (found.status_code, found.json()["code"]) == (401, "unauthenticated")
            assert (await client.get(f"{url}{MCP_PATH}", headers=DEV)).status_code == 405


async def test_stories_can_be_read_over_mcp():
    async with served() as (_, dev, _):
        assert [line["story_id"] for line in (await dev.ask("list_stories"))["items"]] == [STORY]
        assert (await dev.ask("list_stories", cursor=STORY))["items"] == []
        assert (await dev.ask("show_story", storyId=STORY))["state"] == "BUILD"
        events = (await dev.ask("story_events", storyId=STORY, after=1, limit=2))["items"]
        assert [event["version"] for event in events] == [2, 3]
        assert (await dev.refused("show_story", storyId="st-none"))["code"] == "not_found"


class Broken(ToolSupervisor):
    async def health(self) -> SandboxHealth:
        raise ValueError("an address that nobody should see: 10.0.0.1")


@pytest.mark.rule("AP-7")
async def test_defect_of_ours_is_told_as_such_and_not_in_detail():
    async with tool_front(supervisor=Broken) as at, serving(at.app) as url, agent(url, DEV) as dev:
        assert await dev.refused("health") == {
            "code": "internal_error",
            "message": "something went wrong inside the front; its log has the cause",
            "retry": "never",
            "details": {},
        }


async def test_front_that_is_not_running_yet_and_one_without_tools_say_so():
    async with tool_front() as at:
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        early = await at.client.post(MCP_PATH, json=body, headers=DEV)
        assert (early.status_code, early.json()["code"]) == (503, "sandbox_unavailable")
    async with tool_front(with_tools=False) as at, serving(at.app) as url, agent(url, DEV) as dev:
        assert (await dev.refused("health"))["code"] == "sandbox_unavailable"
        assert (await at.client.get("/api/tools", headers=DEV)).json()["missing"] == "tools"


@pytest.mark.rule("CX-16", "AP-113")
async def test_story_and_events_are_cut_to_what_the_caller_sees():
    async with served() as (_, dev, url), agent(url, ROOT) as root:
        for tool in ("show_story", "story_events"):
            whole, mine = await root.ask(tool, storyId=STORY), await dev.ask(tool, storyId=STORY)
            assert DOC_TASK in json.dumps(whole), tool
            assert DOC_TASK not in json.dumps(mine), tool
        hidden = await dev.refused(
            "open_session", story_id=STORY, role="developer", task_id=DOC_TASK, idempotencyKey="key-hidden-1"
        )
        missing = await dev.refused(
            "open_session", story_id=STORY, role="developer", task_id="tk-nobody", idempotencyKey="key-hidden-2"
        )
        assert json.dumps(hidden).replace(DOC_TASK, "?") == json.dumps(missing).replace("tk-nobody", "?")
