"""The decision on one call: configuration, checks, and the matrix of permissions (pure)."""
