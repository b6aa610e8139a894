"""Actors: thin shells that build a service, delegate to it, and translate errors."""

from actors.bootstrap import actor_names, boot, health, stop

__all__ = ["actor_names", "boot", "health", "stop"]
