"""Folds events into the state of a story, one module per part of the state (pure)."""
