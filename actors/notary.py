"""`notary`: signs where every stream of the log ends."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from actors.shell import Shell
from fleet.wiring import Endpoints, make_notary

__all__ = ["NotaryShell"]


class NotaryShell(Shell):
    """Thin shell over Notary."""

    def __init__(self, name: str, endpoints: Endpoints) -> None:
        super().__init__(name, endpoints)
        self._notary = make_notary(endpoints)
        self.background(self._notary.run)

    async def checkpoint(self) -> dict[str, Any]:
        """Attest everything that is in the log now."""
        return asdict(await self._notary.checkpoint())

    async def drain(self) -> None:
        """Background work has ended, and what the log holds by now is attested: a run may stop right after a story."""
        await super().drain()
        await self._notary.conclude()

    async def status(self) -> dict[str, Any]:
        """What the newest look at the log gave, and why there was none if there was none."""
        last = self._notary.last
        return {"last": asdict(last) if last else None, "problem": self._notary.problem}
