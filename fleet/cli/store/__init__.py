"""Commands on the graph, the dead letters and the sandbox."""
