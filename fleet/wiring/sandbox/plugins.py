"""Tools that packages bring: those of others with their declarations, and the fleet's own (RT-69)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

from fleet.config.files import ConfigFiles
from fleet.kernel.errors import ConfigError
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.plugin_tools import plugin_ops
from fleet.policy.roles import RolesConfig, load_roles
from fleet.policy.rules.config import Policy, load_policy
from fleet.tools.kit.parts import ToolParts, ToolPlugin
from fleet.tools.port import Tool
from fleet.wiring.plugins import Group, find, names

TOOLS = Group("swe_fleet.tools", "tool", ToolPlugin)
REMOTE = frozenset({"browser", "cloud", "db", "docker", "helm", "http", "kubectl", "mcp"})
"""The fleet's own tools that reach outside of the workspace; config/policy.yaml declares them."""


@cache
def find_plugins() -> tuple[ToolPlugin, ...]:
    """Every installed tool that the fleet does not ship, sorted by name; looked for once per process.

    Raises:
        ConfigError: one cannot be imported, is no ToolPlugin, or has the name of another.
    """
    plugins: dict[str, ToolPlugin] = {}
    for name in sorted(names(TOOLS) - REMOTE):
        plugin = find(TOOLS, name)
        if plugin.name in plugins:
            raise ConfigError(f"two tool plug-ins are named {plugin.name!r}: uninstall one of them", tool=plugin.name)
        plugins[plugin.name] = plugin
    return tuple(plugins[name] for name in sorted(plugins))


def remote_tools(parts: ToolParts) -> Mapping[str, Callable[[], Tool]]:
    """What makes each of `REMOTE`; the drivers of a tool are imported by its first call."""
    return {name: partial(_made, name, parts) for name in sorted(REMOTE)}


def _made(name: str, parts: ToolParts) -> Tool:
    return find(TOOLS, name).make(parts)


def active_roles(files: ConfigFiles) -> RolesConfig:
    """The roles of config/roles.yaml, which may use the tools of plug-ins; ConfigError names every problem."""
    ops = {**plugin_ops({p.name: p.declaration for p in find_plugins()}), **TOOL_OPS}
    return load_roles(files.document("roles.yaml"), tool_ops=ops, source=str(files.path("roles.yaml")))


def active_policy(files: ConfigFiles) -> Policy:
    """config/policy.yaml with config/roles.yaml and the declarations of plug-ins; ConfigError names every problem."""
    return load_policy(
        files.document("policy.yaml"),
        roles=active_roles(files),
        plugins={plugin.name: plugin.declaration for plugin in find_plugins()},
        source=str(files.path("policy.yaml")),
    )
