"""The technical report: what a story did, why, at which cost, and what can be traced (pure)."""
