"""Port: how much a group of consumers has still to do (AP-121)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Backlog", "HasBacklog"]


@dataclass(frozen=True, slots=True)
class Backlog:
    """`pending` entries were not acknowledged yet, delivered or not; the oldest waits for `oldest_ms` (0 if none)."""

    pending: int
    oldest_ms: int


class HasBacklog(Protocol):
    """A queue that can be measured: the inbox and the feed's group."""

    async def backlog(self) -> Backlog:
        """What waits just now, over all partitions. StoreUnavailable."""
        ...
