"""`council:<shard>`: owns the stories it holds leases for and works on them."""

from __future__ import annotations

import os
import time
from typing import Any

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.shell import Shell
    from fleet.wiring.council import make_council_parts
    from fleet.wiring.endpoints import Endpoints


class CouncilShell(Shell):
    """Thin shell over CouncilShard. Each process of the actor is an incarnation of its own."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        incarnation = f"{os.getpid()}-{time.time_ns()}"
        parts = make_council_parts(endpoints, name=name, incarnation=incarnation, telemetry=self.telemetry)
        self._shard = parts.shard
        self.background(self._shard.run)
        self.background(parts.figures.run)

    async def status(self) -> dict[str, Any]:
        """The shard's stories."""
        status = self._shard.status()
        return {"owner": status.owner, "state": status.state, "stories": list(status.stories)}

    async def drain(self) -> None:
        """No story is worked on here any more."""
        await self._shard.drain()
        await super().drain()
