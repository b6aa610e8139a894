"""A client of the MCP server, by the SDK's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp import Client
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage]
    streamable_http_client,
)

from serve_apps.routes.mcp import MCP_PATH


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
