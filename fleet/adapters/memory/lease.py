"""In-memory twin of the port LeaseStore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.adapters.claiming import lease_held, lease_lost, shard_of
from fleet.adapters.clock import SystemClock
from fleet.adapters.memory.log import MemoryEventLog
from fleet.errors import OwnershipLost
from fleet.ids import StreamId
from fleet.ports import Clock, Lease

__all__ = ["MemoryLeaseStore"]


@dataclass(frozen=True, slots=True)
class _Held:
    owner: str
    epoch: int
    expires_ms: int


class MemoryLeaseStore:
    """Leases on the streams of one MemoryEventLog, whose heads hold the epochs. Implements the port LeaseStore."""

    def __init__(self, log: MemoryEventLog, clock: Clock | None = None) -> None:
        self._log = log
        self._clock = clock or SystemClock()
        self._held: dict[StreamId, _Held] = {}
        log.on_erase.append(lambda stream: self._held.pop(stream, None))

    async def claim(self, stream: StreamId, owner: str, *, ttl_s: int) -> Lease:
        """The caller owns the stream for `ttl_s` under a new epoch; LeaseHeld while another shard's lease lives."""
        held, now_ms = self._held.get(stream), self._clock.now_ms()
        if held and held.expires_ms > now_ms and shard_of(held.owner) != shard_of(owner):
            raise lease_held(stream, owner=held.owner, expires_in_ms=held.expires_ms - now_ms)
        epoch = self._log.raise_epoch(stream)
        self._held[stream] = _Held(owner, epoch, now_ms + ttl_s * 1000)
        return Lease(stream=stream, owner=owner, epoch=epoch, ttl_s=ttl_s)

    async def renew(self, lease: Lease) -> None:
        """The lease lives for another `ttl_s`; OwnershipLost when it is no longer this owner's."""
        if not self._holds(lease):
            raise lease_lost(lease)
        self._held[lease.stream] = _Held(lease.owner, lease.epoch, self._clock.now_ms() + lease.ttl_s * 1000)

    async def renew_all(self, leases: Sequence[Lease]) -> frozenset[StreamId]:
        """The leases live for another `ttl_s`; the streams of those that were lost."""
        lost: set[StreamId] = set()
        for lease in leases:
            try:
                await self.renew(lease)
            except OwnershipLost:
                lost.add(lease.stream)
        return frozenset(lost)

    async def release(self, lease: Lease) -> None:
        """The stream is free if the lease still held it."""
        if self._holds(lease):
            del self._held[lease.stream]

    def _holds(self, lease: Lease) -> bool:
        held = self._held.get(lease.stream)
        if held is None or (held.owner, held.epoch) != (lease.owner, lease.epoch):
            return False
        return held.expires_ms > self._clock.now_ms()
