"""The tools that reach outside of the workspace, from the policy's targets."""

from __future__ import annotations

from fleet.tools.kit.parts import ToolParts
from fleet.tools.port import Tool


def remote_tools(parts: ToolParts) -> list[Tool]:
    """http, db, mcp, browser, docker, cloud, kubectl and helm. Nothing is connected to before the first call."""
    # Imported by the one process that uses them: their drivers are no small thing.
    from fleet.extensions.browser.browser import BrowserTool
    from fleet.extensions.operations.cloud import CloudTool
    from fleet.extensions.operations.cluster import ClusterTool
    from fleet.extensions.operations.db import DbTool
    from fleet.extensions.operations.docker import DockerTool
    from fleet.extensions.operations.http import HttpTool
    from fleet.extensions.operations.mcp import McpTool

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
