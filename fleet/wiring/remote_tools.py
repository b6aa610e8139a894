"""The tools that reach outside of the workspace, from the policy's targets."""

from __future__ import annotations

from fleet.ports import Tool
from fleet.services.tool_kit import ToolParts

__all__ = ["remote_tools"]


def remote_tools(parts: ToolParts) -> list[Tool]:
    """http, db, mcp, browser, docker, cloud, kubectl and helm. Nothing is connected to before the first call."""
    # Imported by the one process that uses them: their drivers are no small thing.
    from fleet.adapters.tools import BrowserTool, CloudTool, ClusterTool, DbTool, DockerTool, HttpTool, McpTool

    sandbox, blobs, targets, secrets = parts.sandbox, parts.blobs, parts.targets, parts.secrets
    return [
        HttpTool(blobs, hosts=targets.hosts, secrets=secrets),
        DbTool(blobs, databases=targets.databases, secrets=secrets),
        McpTool(blobs, servers=targets.mcp, secrets=secrets),
        BrowserTool(sandbox, blobs),
        DockerTool(blobs, targets=targets, clock=parts.clock),
        CloudTool(sandbox, blobs, targets=targets),
        ClusterTool("kubectl", sandbox, blobs, targets=targets),
        ClusterTool("helm", sandbox, blobs, targets=targets),
    ]
