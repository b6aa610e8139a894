"""Routing: which engine gets a call, when it waits, and when it is left alone (pure)."""
