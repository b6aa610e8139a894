"""Port: time. The only way by which it enters services."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Clock"]


class Clock(Protocol):
    """Wall time for records, monotonic time for waits and margins."""

    def now_ms(self) -> int:
        """UTC milliseconds since the Unix epoch; may step back."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after at least `seconds`."""
        ...
