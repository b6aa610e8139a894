"""What a command line, a query or a request of a tool does: reads, writes, or neither for sure (pure)."""
