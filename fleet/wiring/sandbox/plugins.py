"""Tools of third parties, found through entry points (RT-69)."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from fleet.config.files import ConfigFiles
from fleet.kernel.errors import ConfigError
from fleet.policy.catalogue import TOOL_OPS
from fleet.policy.plugin_tools import plugin_ops
from fleet.policy.roles import RolesConfig, load_roles
from fleet.policy.rules.config import Policy, load_policy
from fleet.tools.kit.parts import ToolPlugin

GROUP = "swe_fleet.tools"
"""The entry-point group; each of its names leads to a ToolPlugin."""


@cache
def find_plugins() -> tuple[ToolPlugin, ...]:
    """Every installed plug-in, sorted by name; looked for once per process.

    Raises:
        ConfigError: one cannot be imported, is no ToolPlugin, or has the name of another.
    """
    found: dict[str, ToolPlugin] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        plugin = _loaded(entry)
        if plugin.name in found:
            raise ConfigError(f"two tool plug-ins are named {plugin.name!r}: uninstall one of them", tool=plugin.name)
        found[plugin.name] = plugin
    return tuple(found[name] for name in sorted(found))


def _loaded(entry: EntryPoint) -> ToolPlugin:
    where = f"entry point {entry.name} = {entry.value} of {GROUP}"
    try:
        plugin = entry.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"{where} cannot be loaded: {error}; mend or uninstall it", entry=entry.name) from error
    if not isinstance(plugin, ToolPlugin):
        raise ConfigError(f"{where} is no ToolPlugin with a name, a declaration and a factory", entry=entry.name)
    return plugin


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
