"""Actors: thin shells that build a service, delegate to it, and translate errors."""

from typing import TYPE_CHECKING

from fleet.on_demand import on_demand

if TYPE_CHECKING:
    from actors.bootstrap import actor_names, boot, health, stop
else:
    __getattr__ = on_demand(__name__, __file__)

__all__ = ["actor_names", "boot", "health", "stop"]
