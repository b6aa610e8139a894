"""The tools of one fleet: the shipped ones and those of plug-ins."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fleet.forge.port import ChangeRequests
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ConfigError
from fleet.knowledge.service import CodeKnowledge
from fleet.log.redis.connection import connect_redis
from fleet.policy.rules.config import Policy
from fleet.sandbox.port import RunLedger, Sandbox
from fleet.sandbox.redis import RedisRunLedger
from fleet.secrets.redis import RedisAccessTrail
from fleet.secrets.service import KnownSecrets
from fleet.tools.kit.commands import CommandTool
from fleet.tools.kit.files import FilesTool
from fleet.tools.kit.git import GitTool
from fleet.tools.kit.parts import ToolParts, ToolPlugin
from fleet.tools.kit.search import SearchTool
from fleet.tools.port import Tool
from fleet.tools.service import Toolbox
from fleet.trees.port import BlobStore
from fleet.wiring.change_requests import change_target
from fleet.wiring.endpoints import Endpoints
from fleet.wiring.sandbox.plugins import active_policy, find_plugins, remote_tools
from fleet.wiring.stores.knowledge import make_knowledge
from fleet.wiring.stores.secrets import make_secret_broker, recorded_accesses

_COMMANDS = ("tests", "build", "lint", "exec")


def shipped_tools(parts: ToolParts, knowledge: CodeKnowledge | None = None) -> list[Tool]:
    """The tools that need a sandbox and blobs alone."""
    commands = (CommandTool(name, parts) for name in _COMMANDS)
    return [FilesTool(parts), GitTool(parts), SearchTool(parts, knowledge), *commands]


def make_toolbox(
    parts: ToolParts,
    policy: Policy,
    *,
    ledger: RunLedger,
    name: str,
    secrets: KnownSecrets | None = None,
    further: Sequence[Tool] = (),
    knowledge: CodeKnowledge | None = None,
) -> Toolbox:
    """The tool host of one process.

    Args:
        policy: with the declarations of all plug-ins (`active_policy`).
        name: of the host in the ledger; the same after a restart, and no supervisor's.
        further: tools that need more than `ToolParts`.
        knowledge: answers `search.code`; None keeps what it reads no longer than this process lives.

    Raises:
        ConfigError: a tool is declared nowhere, two have one name, or a plug-in's factory makes another tool.
    """
    tools = [*shipped_tools(parts, knowledge), *further, *(_made(plugin, parts) for plugin in find_plugins())]
    remote, declared = remote_tools(parts), {capability.tool for capability in policy.capabilities.values()}
    if unknown := sorted({*(tool.name for tool in tools), *remote} - declared):
        raise ConfigError(f"tools without a declaration in config/policy.yaml: {', '.join(unknown)}", tools=unknown)
    return Toolbox(tools, later=remote, ledger=ledger, blobs=parts.blobs, clock=parts.clock, name=name, secrets=secrets)


def make_node_toolbox(
    endpoints: Endpoints, sandbox: Sandbox, blobs: BlobStore, *, name: str, changes: ChangeRequests | None = None
) -> Toolbox:
    """The tools of one node, over its sandbox; ConfigError as `make_toolbox` and `active_policy`."""
    client, known_secrets, policy = connect_redis(endpoints.redis_url), KnownSecrets(), active_policy(endpoints.files)
    record = recorded_accesses(RedisAccessTrail(client))
    broker = make_secret_broker(endpoints, environ=os.environ, record=record, known_secrets=known_secrets)
    parts = ToolParts(
        sandbox=sandbox,
        blobs=blobs,
        clock=SystemClock(),
        targets=policy.targets,
        secrets=broker,
        change_target=change_target(endpoints, changes) if changes else None,
    )
    ledger, knowledge = RedisRunLedger(client), make_knowledge(endpoints, blobs)
    return make_toolbox(parts, policy, ledger=ledger, name=f"{name}/tools", secrets=known_secrets, knowledge=knowledge)


def _made(plugin: ToolPlugin, parts: ToolParts) -> Tool:
    tool = plugin.make(parts)
    if tool.name != plugin.name:
        raise ConfigError(
            f"plug-in {plugin.name!r} makes a tool named {tool.name!r}; name both alike", tool=plugin.name
        )
    return tool
