"""`projector`: the one writer of the decision graph."""

from __future__ import annotations

from typing import Any

from actors.shell import Shell
from fleet.wiring import Endpoints, make_projector

__all__ = ["ProjectorShell"]


class ProjectorShell(Shell):
    """Thin shell over Projector."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._projector = make_projector(endpoints)
        self.background(self._projector.run())

    async def lag(self) -> dict[str, Any]:
        """How many events each stream of the log is ahead of the graph."""
        return await self._projector.lag()
