"""In-memory twin of the port ModelBoard."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.adapters.memory.clock import MemoryClock
from fleet.models import ModelFigures
from fleet.ports import Clock

__all__ = ["MemoryModelBoard"]


class MemoryModelBoard:
    """A board kept as long as the object. Implements the port ModelBoard."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MemoryClock()
        self._said: dict[str, tuple[int, tuple[ModelFigures, ...]]] = {}

    async def post(self, reporter: str, figures: Sequence[ModelFigures], *, ttl_s: int) -> None:
        """This is what the reporter says from now on."""
        self._said[reporter] = (self._clock.monotonic_ms() + ttl_s * 1000, tuple(figures))

    async def read(self) -> list[ModelFigures]:
        """What all reporters said that is still good."""
        now_ms = self._clock.monotonic_ms()
        return [row for _, (until_ms, rows) in sorted(self._said.items()) if now_ms < until_ms for row in rows]
