"""Models: requests, replies, routing and budgets (pure)."""
