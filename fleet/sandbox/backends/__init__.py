"""Backends that run a command in isolation, and what they share."""
