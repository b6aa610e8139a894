"""Policy: which role may call which tool on which target, and what a run may use (pure)."""
