"""A story: its state, what may happen to it, and what it still owes (pure)."""
