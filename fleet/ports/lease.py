"""Port: who owns a stream. The lease is liveness, its epoch is safety.

Source: EV-3, EV-4; docs/design/design.md, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.ids import StreamId

__all__ = ["Lease", "LeaseStore"]


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease. `owner` is `<shard>/<incarnation>`; `epoch` is new at every claim and never reused."""

    stream: StreamId
    owner: str
    epoch: int
    ttl_s: int


class LeaseStore(Protocol):
    """Leases by the store's own clock. The epoch lives in the stream's head and outlives every lease."""

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """The caller owns the stream for `ttl_s`; every claim raises the epoch, also one by the same owner.

        A lease of an earlier incarnation of the same shard (`<shard>/...`) is taken over at once.
        Raises LeaseHeld (details: owner, expires_in_ms) while another shard's lease lives.
        """
        ...

    async def renew(self, lease: Lease) -> None:
        """The lease lives for another `ttl_s`; OwnershipLost when owner or epoch are no longer those of the lease."""
        ...

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """As `renew` for each of them, in one call; the streams whose lease is lost."""
        ...

    async def release(self, lease: Lease) -> None:
        """The stream is free if the lease still held it; otherwise nothing changes. The epoch stays."""
        ...
