"""Tools for operations: HTTP, databases, containers, clouds, clusters, MCP servers."""
