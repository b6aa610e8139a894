"""A client of the MCP server, by the SDK's own, and a small server of somebody else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage]
    streamable_http_client,
)
from mcp.types import Tool

from fleet.kernel.ids import Digest
from fleet.policy.mcp_servers import tool_pin
from serve_apps.routes.mcp import MCP_PATH

WORDS = """
from mcp.server import MCPServer

server = MCPServer("words")


@server.tool()
def word(key: str) -> str:
    "Gives the meaning of a word."
    return f"{key}: a title as a part of an address"


server.run("stdio")
"""
"""A program that is an MCP server over its standard input and output."""


async def pins_of(command: Sequence[str]) -> dict[str, str]:
    """The tools of this program with the digests by which they are approved."""
    async with Client(StdioServerParameters(command=command[0], args=list(command[1:]))) as client:
        return {tool.name: str(_pin_of(tool)) for tool in (await client.list_tools()).tools}


def _pin_of(tool: Tool) -> Digest:
    return tool_pin(
        tool.name, description=tool.description, input_schema=tool.input_schema, output_schema=tool.output_schema
    )


class Agent:
    """A client of the MCP server, in somebody's name."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def ask(self, tool: str, /, **args: Any) -> dict[str, Any]:
        """What the tool answered."""
        found = await self.client.call_tool(tool, args)
        assert not found.is_error, found
        assert isinstance(found.structured_content, dict)
        return found.structured_content

    async def refused(self, tool: str, /, **args: Any) -> dict[str, Any]:
        """The problem with which the tool refused."""
        found = await self.client.call_tool(tool, args)
        assert found.is_error, found
        assert isinstance(found.structured_content, dict)
        return found.structured_content


@asynccontextmanager
async def agent(url: str, who: Mapping[str, str]) -> AsyncGenerator[Agent]:
    """A connected client."""
    async with (
        create_mcp_http_client(headers=dict(who)) as http,
        Client(streamable_http_client(f"{url}{MCP_PATH}", http_client=http), cache=None) as client,
    ):
        yield Agent(client)
