"""How the in-memory adapters wait: for a change, by their clock."""

from __future__ import annotations

import asyncio

from fleet.ports import Clock

__all__ = ["Signal"]


class Signal:
    """Tells waiting tasks that something has changed. They look again, and wait again when it was not for them."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Every task that waits now goes on."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, clock: Clock, *, until_ms: int) -> bool:
        """True as soon as something has changed, False when `until_ms` of the clock's monotonic time is reached."""
        left_ms = until_ms - clock.monotonic_ms()
        if left_ms <= 0:
            return False
        changed = asyncio.ensure_future(self._changed.wait())
        slept = asyncio.ensure_future(clock.sleep(left_ms / 1000))
        try:
            await asyncio.wait({changed, slept}, return_when=asyncio.FIRST_COMPLETED)
            return changed.done()
        finally:
            changed.cancel()
            slept.cancel()
            await asyncio.gather(changed, slept, return_exceptions=True)
