"""Port: what a supervisor can find out about the others that share its ledger (RC-26, RC-27)."""

from __future__ import annotations

from typing import Protocol

from fleet.ids import RunKey

__all__ = ["Peers"]


class Peers(Protocol):
    """The other supervisors of a fleet, by the names that they have in the ledger."""

    async def has_dropped(self, supervisor: str, key: RunKey) -> bool:
        """Whether this run surely is not under way with that supervisor, whatever the ledger says.

        So it is when the supervisor is gone for good, with its node, and when it lives and knows nothing of the run,
        which an earlier life of it had claimed. False for one that is just starting again or does not answer, because
        it may take its runs up again, and for a name that is no supervisor's. Raises nothing.
        """
        ...
