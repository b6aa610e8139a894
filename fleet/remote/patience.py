"""Calls of an actor that Ray is starting again: they wait for it instead of failing at once."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from fleet.kernel.errors import FleetError


class Calls(Protocol):
    """Calls actors by name; see ActorResolver."""

    async def call(self, name: str, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """The method's result."""
        ...


class PatientCalls:
    """Makes a call again while its actor restarts. For methods alone that may be repeated, by a key or by nature.

    An actor that is gone for good, and one that does not answer in time, are told of at once.

    Args:
        within_s: from the first failure until it has to be there again.
        again_s: between two tries.
    """

    def __init__(self, calls: Calls, *, within_s: float = 60.0, again_s: float = 0.5) -> None:
        self._calls, self._within_s, self._again_s = calls, within_s, again_s

    async def call(self, name: str, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> Any:
        """The method's result. Raises as ActorResolver.call."""
        clock, until = asyncio.get_running_loop(), None
        while True:
            try:
                return await self._calls.call(name, method, *args, timeout_s=timeout_s, **kwargs)
            except FleetError as error:
                until = until or clock.time() + self._within_s
                if not error.details.get("is_restarting") or clock.time() > until:
                    raise
            await asyncio.sleep(self._again_s)
