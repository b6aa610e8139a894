"""Declared MCP servers, and whether a tool of theirs is still the one that was approved (RT-64)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fleet.kernel.digest import digest_of
from fleet.kernel.errors import PolicyDenied
from fleet.kernel.ids import Digest
from fleet.kernel.types import Frozen

PinState = Literal["approved", "changed", "unknown"]
_Text = Annotated[str, Field(min_length=1, max_length=4096)]


class McpServer(Frozen):
    """How a server is reached and which of its tools may be called. Only the owner's config declares one."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """Of streamable HTTP."""
    authorization: Annotated[str, Field(pattern=r"^secret://")] | None = None
    """Secret that is sent as bearer token to `url`."""
    command: Annotated[tuple[_Text, ...], Field(max_length=64)] = ()
    """Program that speaks over its standard input and output. It runs beside the product, not in the sandbox."""
    env: dict[str, _Text] = Field(default_factory=dict)
    """Variables of the command, text or `secret://<name>`; it has no others but PATH, HOME and the like."""
    tools: dict[str, Digest] = Field(default_factory=dict)
    """Tool -> digest of its name, description and schemas as they were approved (`mcp.list_tools` prints it)."""
    reads: frozenset[str] = frozenset()
    """Approved tools that change nothing anywhere: `mcp.read` calls them, in work sessions too, and nobody is asked."""

    @model_validator(mode="after")
    def _check(self) -> McpServer:
        if (self.url is None) == (not self.command):
            raise ValueError("a server has either url or command")
        if self.authorization is not None and self.url is None:
            raise ValueError("authorization is for a server with url")
        if self.env and not self.command:
            raise ValueError("env is for a server with command")
        if strange := sorted(self.reads - self.tools.keys()):
            raise ValueError(f"reads names {strange[0][:80]!r}, which is not among tools")
        return self


def tool_pin(
    name: str, *, description: str | None, input_schema: Mapping[str, Any], output_schema: Mapping[str, Any] | None
) -> Digest:
    """Digest of all that the server says about the tool; changing any of it changes the digest."""
    whole = {"name": name, "description": description, "input": input_schema, "output": output_schema}
    return digest_of(json.dumps(whole, sort_keys=True, ensure_ascii=False).encode("utf-8", "replace"))


def pin_state(server: McpServer, tool: str, pin: Digest) -> PinState:
    """Whether the tool may be called as it is now."""
    approved = server.tools.get(tool)
    if approved is None:
        return "unknown"
    return "approved" if approved == pin else "changed"


def check_pin(server: McpServer, tool: str, pin: Digest | None, *, name: str) -> None:
    """Return when the tool is the approved one.

    Raises:
        PolicyDenied: it is not declared, the server no longer has it, or it changed since it was approved (RT-64).
    """
    state = "unknown" if pin is None else pin_state(server, tool, pin)
    if state == "approved":
        return
    if tool not in server.tools:
        why = "it is not declared; add it with its digest once somebody has read what it does"
    elif pin is None:
        why = "the server no longer offers it"
    else:
        why = f"its description or schema changed; read it again and declare the digest {pin}"
    raise PolicyDenied(
        f"tool {tool[:80]!r} of MCP server {name!r} is disabled: {why}",
        rule_id="RT-64",
        server=name,
        mcp_tool=tool[:80],
        state=state,
        pin=pin,
        approved=server.tools.get(tool),
    )
