"""Tools of the MCP server, called by the SDK's own client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage]
    streamable_http_client,
)

from tests.support.task_at_hand import TaskAtHand
from tests.support.world import World

WRITES = "print('one'); print('two'); open('/workspace/out.txt', 'w').write('kept')"
pytestmark = pytest.mark.timeout(600)


class Agent:
    """A client of the MCP server in the name of the local user."""

    def __init__(self, world: World, client: Client) -> None:
        self._world, self._client = world, client

    async def ask(self, tool: str, /, **args: Any) -> dict[str, Any]:
        """What the tool answered."""
        found = await self._client.call_tool(tool, args)
        assert not found.is_error, found
        self._world.passed.add(f"mcp {tool}")
        assert isinstance(found.structured_content, dict)
        return found.structured_content

    async def send(self, tool: str, /, **args: Any) -> dict[str, Any]:
        """What a tool answered that changes something, under a key of its own."""
        return await self.ask(tool, **args, idempotencyKey=f"key-of-{uuid.uuid4()}")


@asynccontextmanager
async def agent(world: World) -> AsyncGenerator[Agent]:
    """A connected client."""
    who, at = {"Authorization": world.client.headers["Authorization"]}, str(world.client.base_url.join("/api/mcp"))
    async with (
        create_mcp_http_client(headers=who) as http,
        Client(streamable_http_client(at, http_client=http), cache=None) as client,
    ):
        yield Agent(world, client)


@pytest.mark.door("mcp list_stories", "mcp show_story", "mcp story_events")
async def test_stories_are_read_over_mcp(world: World) -> None:
    story_id = world.create()
    async with agent(world) as at:
        page = await at.ask("list_stories", limit=200)
        found = {one["story_id"]: one for one in page["items"]}
        while story_id not in found and page["next_cursor"]:
            page = await at.ask("list_stories", limit=200, cursor=page["next_cursor"])
            found |= {one["story_id"]: one for one in page["items"]}
        assert found[story_id]["state"] == "DRAFT"
        assert (await at.ask("show_story", storyId=story_id))["title"] == world.show(story_id)["title"]
        events = await at.ask("story_events", storyId=story_id)
        assert (events["items"][0]["type"], events["items"][0]["version"]) == ("StoryCreated", 1)


@pytest.mark.door("mcp health")
async def test_health_over_mcp_says_what_the_sandbox_enforces(world: World) -> None:
    async with agent(world) as at:
        assert (await at.ask("health"))["runtime"] == "bubblewrap"


@pytest.mark.door("mcp run_task", "mcp await_result", "mcp stream_logs", "mcp copy_artifacts", "mcp cancel")
async def test_run_is_followed_to_its_end_over_mcp(world: World, at_hand: TaskAtHand) -> None:
    async with agent(world) as at:
        with at_hand.going_on():
            spec = at_hand.spec("python", "-c", WRITES, artifacts={"paths": ["/workspace/out.txt"]})
            run = (await at.send("run_task", spec=spec))["taskId"]
            result = await at.ask("await_result", taskId=run, timeoutSec=120)
        assert (result["status"], result["exitCode"]) == ("passed", 0)
        page = await at.ask("stream_logs", taskId=run, fromLine=2)
        assert ([one["line"] for one in page["items"]], page["is_over"], page["status"]) == (["two"], True, "passed")
        assert (await at.ask("copy_artifacts", taskId=run))["items"][0]["path"] == "/workspace/out.txt"
        assert (await at.ask("cancel", taskId=run))["status"] == "passed"


@pytest.mark.door("mcp open_session", "mcp list_tools", "mcp invoke_tool", "mcp show_invocation")
async def test_file_is_written_and_read_over_mcp(world: World, at_hand: TaskAtHand) -> None:
    async with agent(world) as at:
        with at_hand.going_on():
            task = {"story_id": at_hand.story_id, "task_id": at_hand.task_id, "role": "developer"}
            session = (await at.send("open_session", **task))["session_id"]
            names = {tool["name"] for tool in (await at.ask("list_tools", sessionId=session))["items"]}
            assert {"files.read", "files.write"} <= names
            write = {"tool": "files", "op": "write", "args": {"path": "a.txt", "content": "One line\n"}}
            made = await at.send("invoke_tool", sessionId=session, **write)
            ended = await at.ask("show_invocation", invocationId=made["invocation_id"], timeoutSec=60)
            assert (ended["status"], ended["outcome"]["outcome"]) == ("finished", "succeeded")
            read = {"tool": "files", "op": "read", "args": {"path": "a.txt"}}
            made = await at.send("invoke_tool", sessionId=session, **read)
            ended = await at.ask("show_invocation", invocationId=made["invocation_id"], timeoutSec=60)
        assert ended["outcome"]["text"] == "One line"
