"""In-memory twin of the port Peers."""

from __future__ import annotations

from typing import Protocol

from fleet.ids import RunKey

__all__ = ["MemoryPeers"]


class _Supervisor(Protocol):
    async def holds(self, key: RunKey) -> bool: ...


class MemoryPeers:
    """Supervisors of one process. Implements the port Peers; who was never added is no supervisor."""

    def __init__(self) -> None:
        self._known: dict[str, _Supervisor | None] = {}
        self._gone = set[str]()

    def add(self, name: str, supervisor: _Supervisor | None) -> None:
        """There is a supervisor of this name; None for one that does not answer now."""
        self._known[name] = supervisor
        self._gone.discard(name)

    def end(self, name: str) -> None:
        """It is gone for good."""
        self._gone.add(name)

    async def has_dropped(self, supervisor: str, key: RunKey) -> bool:
        """See the port."""
        if supervisor in self._gone:
            return True
        known = self._known.get(supervisor)
        return known is not None and not await known.holds(key)
