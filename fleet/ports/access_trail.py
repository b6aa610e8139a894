"""Port: the durable audit lines of secrets (RT-65)."""

from __future__ import annotations

from typing import Protocol

from fleet.tools import SecretAccess

__all__ = ["AccessTrail"]


class AccessTrail(Protocol):
    """One line for each use of a secret, in the order of recording; about the last million of them."""

    async def record(self, line: SecretAccess) -> None:
        """The line is on disk; a lost reply may leave it there twice.

        Raises StoreUnavailable, StoreFull or CommitUnknown; the value must not be handed out then.
        """
        ...

    async def newest(self, *, limit: int = 100) -> list[SecretAccess]:
        """The last lines, the newest first."""
        ...
