"""Tool mcp: tools of declared MCP servers, by the official SDK (RT-54, RT-64). What a server says is data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import (
    create_mcp_http_client,  # pyright: ignore[reportPrivateImportUsage]
    streamable_http_client,
)
from pydantic import JsonValue, ValidationError

from fleet.extensions.operations.answers import SecretSource, as_json, outcome_of, without_secrets
from fleet.extensions.operations.arguments import mapping_of, text_of, unknown_op
from fleet.kernel.errors import FleetError, InvalidInput, PolicyDenied, ToolFailed, ToolTimeout
from fleet.kernel.ids import Digest
from fleet.policy.mcp_servers import McpServer, check_pin, pin_state, tool_pin
from fleet.policy.rules.calls import ToolCall
from fleet.policy.runs.outcome import ToolOutcome
from fleet.policy.secret_refs import references_in
from fleet.secrets.port import SecretValue
from fleet.tools.kit.parts import ToolPlugin
from fleet.tools.port import ToolContext
from fleet.trees.port import BlobStore

_PAGES = 20

Reached = Any
"""What the SDK's client connects to: a transport, a command, or a server in this process."""


class McpTool:
    """Lists and calls tools of declared servers. A connection lives for one call.

    Args:
        blobs: where answers that are longer than an excerpt go.
        servers: `targets.mcp` of the policy.
        secrets: resolves tokens and variables of the form `secret://<name>`.
        reach: what a server is connected by; tests give one of their own.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        servers: Mapping[str, McpServer],
        secrets: SecretSource | None = None,
        reach: Callable[[McpServer, Mapping[str, str]], Reached] | None = None,
    ) -> None:
        self._blobs = blobs
        self._servers = servers
        self._secrets = secrets
        self._reach = reach or _reach

    @property
    def name(self) -> str:
        """`mcp`."""
        return "mcp"

    async def call(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        """`list_tools`: every tool with its digest and state; what is said of it only when approved. Else its answer.

        Raises PolicyDenied for a server that is not declared, for a tool that is not the approved one, and for `read`
        of a tool that may change something; ToolFailed when the server cannot be reached, ToolTimeout when it did not
        answer.
        """
        if call.op not in ("list_tools", "read", "call"):
            raise unknown_op(call)
        name = text_of(call, "server")
        server = self._servers.get(name)
        if server is None:
            raise PolicyDenied(f"MCP server {name[:80]!r} is not declared under targets.mcp", rule_id="RT-64")
        values = await self._values(server, call, context)
        async with (
            _translated(name, context.obligations.timeout_s),
            Client(self._reach(server, values.texts), cache=None, input_required_max_rounds=1) as client,
        ):
            offered = await _offered(client)
            if call.op == "list_tools":
                return await self._listed(server, offered)
            wanted = text_of(call, "tool")
            if call.op == "read" and wanted not in server.reads:
                told = f"tool {wanted[:80]!r} of MCP server {name!r} is not listed under reads"
                raise PolicyDenied(told, rule_id="RT-64")
            found = offered.get(wanted)
            check_pin(server, wanted, found.pin if found else None, name=name)
            return await self._called(client, wanted, mapping_of(call, "args"), values.secrets)

    async def _values(self, server: McpServer, call: ToolCall, context: ToolContext) -> _Values:
        texts: dict[str, JsonValue] = dict(server.env)
        if server.authorization is not None:
            texts["authorization"] = server.authorization
        secrets: Mapping[str, SecretValue] = {}
        if references_in(texts):
            if self._secrets is None:
                raise InvalidInput("this MCP server needs a secret and no secrets are configured", field="server")
            secrets = await self._secrets.resolve_arguments(texts, as_role=context.role, tool=call.tool, op=call.op)
        plain = {k: str(v) for k, v in texts.items()}
        return _Values(plain | {p[1:]: v.reveal() for p, v in secrets.items()}, tuple(secrets.values()))

    async def _listed(self, server: McpServer, offered: Mapping[str, _Offer]) -> ToolOutcome:
        lines: list[str] = []
        content: list[JsonValue] = []
        for name, offer in sorted(offered.items()):
            state = pin_state(server, name, offer.pin)
            content.append({"tool": name, "state": state, "pin": str(offer.pin)})
            # What nobody approved is not shown: a description is where instructions are smuggled in.
            shown = f": {offer.description}\n  args: {offer.arguments}" if state == "approved" else ""
            also = ", reads" if name in server.reads else ""
            lines.append(f"{name} [{state}{also}] {offer.pin}{shown}")
        return await outcome_of("\n".join(lines), self._blobs, content={"tools": content})

    async def _called(
        self, client: Client, tool: str, args: Mapping[str, JsonValue], secrets: Sequence[SecretValue]
    ) -> ToolOutcome:
        result = await client.call_tool(tool, dict(args))
        texts = [part.text for part in result.content if part.type == "text"]
        if result.structured_content is not None and not texts:
            texts = [as_json(result.structured_content)]
        left_out = len(result.content) - sum(part.type == "text" for part in result.content)
        return await outcome_of(
            without_secrets("\n".join(texts), secrets),
            self._blobs,
            kind="failed" if result.is_error else "succeeded",
            reason="tool_error" if result.is_error else "ok",
            content={"parts": len(result.content), "parts_left_out": left_out},
        )


class _Values:
    """Texts of variables and token, and the secrets among them."""

    def __init__(self, texts: Mapping[str, str], secrets: tuple[SecretValue, ...]) -> None:
        self.texts = texts
        self.secrets = secrets


class _Offer:
    """What a server says about one tool."""

    def __init__(self, pin: Digest, description: str, arguments: str) -> None:
        self.pin = pin
        self.description = description
        self.arguments = arguments
        """JSON Schema."""


async def _offered(client: Client) -> dict[str, _Offer]:
    found: dict[str, _Offer] = {}
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            if tool.name in found:
                # Two tools of one name: which of them is called would be the server's choice.
                raise ToolFailed(f"the MCP server offers {tool.name[:80]!r} twice; mend the server")
            pin = tool_pin(
                tool.name,
                description=tool.description,
                input_schema=tool.input_schema,
                output_schema=tool.output_schema,
            )
            found[tool.name] = _Offer(pin, tool.description or "", as_json(tool.input_schema))
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise ToolFailed(f"the MCP server lists more than {_PAGES} pages of tools; mend the server")


def _reach(server: McpServer, texts: Mapping[str, str]) -> Reached:
    if server.url is None:
        env = {name: texts[name] for name in server.env}
        return StdioServerParameters(command=server.command[0], args=list(server.command[1:]), env=env)
    token = texts.get("authorization")
    headers = {"Authorization": f"Bearer {token}"} if token else None
    client = create_mcp_http_client(headers=headers)
    # A redirect would take call and token to a host that nobody declared.
    client.follow_redirects = False
    return streamable_http_client(server.url, http_client=client)


@asynccontextmanager
async def _translated(name: str, timeout_s: int) -> AsyncGenerator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise ToolTimeout(f"MCP server {name!r} did not answer in time; whether it acted is not known") from error
    except BaseExceptionGroup as group:
        raise _first(group, name) from group
    except (MCPError, ValidationError, OSError) as error:
        raise _failed(error, name) from error


def _first(group: BaseExceptionGroup[BaseException], name: str) -> BaseException:
    """The one of ours among what the SDK's tasks raised together, else what their failure means."""
    leaf: Any = group.subgroup(FleetError) or group
    while isinstance(leaf, BaseExceptionGroup):
        leaf = cast(Any, leaf).exceptions[0]
    if isinstance(leaf, FleetError) or not isinstance(leaf, Exception):
        return cast(BaseException, leaf)
    return _failed(leaf, name)


def _failed(error: Exception, name: str) -> ToolFailed:
    # What a server says about its failure is its own text; only the kind is told.
    return ToolFailed(f"MCP server {name!r} cannot be used ({type(error).__name__}); check that it runs", server=name)


PLUGIN = ToolPlugin(
    name="mcp",
    make=lambda parts: McpTool(parts.blobs, servers=parts.targets.mcp, secrets=parts.secrets),
)
