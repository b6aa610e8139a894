"""Projects, epics, discovery, reviews of the backlog, and the platform: streams without a lease."""
