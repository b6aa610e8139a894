"""`notary`: signs where every stream of the log ends."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fleet.kernel.collector import all_alive

# What is imported stays: a search for garbage meanwhile would find none.
with all_alive():
    from actors.shell import Shell
    from fleet.audit.port import AcceptedLoss
    from fleet.kernel.ids import CommandId, Principal, StreamId
    from fleet.wiring.audit import make_notary_parts
    from fleet.wiring.endpoints import Endpoints


class NotaryShell(Shell):
    """Thin shell over Notary, and over the desk that signs accepted losses with the same key."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        parts = make_notary_parts(endpoints)
        self._notary, self._losses = parts.notary, parts.losses
        self.background(self._notary.run)

    async def checkpoint(self) -> dict[str, Any]:
        """Attest everything that is in the log now."""
        return asdict(await self._notary.checkpoint())

    async def accept_loss(
        self, stream: StreamId, *, by: Principal, reason: str, command_id: CommandId | None = None
    ) -> AcceptedLoss:
        """A person gives up what a stream lost; whoever sends this has looked at who it is. See `Losses.accept`."""
        return await self._losses.accept(stream, by=by, reason=reason, command_id=command_id)

    async def drain(self) -> None:
        """Background work has ended, and what the log holds by now is attested: a run may stop right after a story."""
        await super().drain()
        await self._notary.conclude()

    async def status(self) -> dict[str, Any]:
        """What the newest look at the log gave, and why there was none if there was none."""
        last = self._notary.last
        return {"last": asdict(last) if last else None, "problem": self._notary.problem}
