"""Tools that reach outside of the workspace: one module per technology, each a `fleet.ports.Tool`."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from fleet.adapters.tools.answers import SecretSource
    from fleet.adapters.tools.browser import BrowserTool
    from fleet.adapters.tools.cloud import CloudTool
    from fleet.adapters.tools.cluster import ClusterTool
    from fleet.adapters.tools.db import DbTool
    from fleet.adapters.tools.docker import DockerTool
    from fleet.adapters.tools.http import HttpTool, Lookup
    from fleet.adapters.tools.mcp import McpTool
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = [
    "BrowserTool",
    "CloudTool",
    "ClusterTool",
    "DbTool",
    "DockerTool",
    "HttpTool",
    "Lookup",
    "McpTool",
    "SecretSource",
]
