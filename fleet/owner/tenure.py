"""How long an owner may still start effects: it stops well before its lease ends (EV-4, GL-19)."""

from __future__ import annotations

from fleet.kernel.clock import Clock
from fleet.kernel.errors import OwnershipLost
from fleet.log.port import Lease


class Tenure:
    """Two thirds of the lease after its last good renewal; then nothing more is started under it.

    A renewal counts from the moment it was asked for, so an answer that comes late adds nothing. Safety does not rest
    on this: the append script and the supervisors check the epoch. It spares work that would be thrown away.

    Args:
        since_ms: monotonic time just before the lease was asked for.
    """

    def __init__(self, lease: Lease, clock: Clock, *, since_ms: int) -> None:
        self.lease = lease
        self._clock = clock
        self.good_ms = since_ms
        """Monotonic time at which the last good renewal was asked for."""
        self._margin_ms = lease.ttl_s * 1000 * 2 // 3
        self._ended = False

    @property
    def is_over(self) -> bool:
        """Whether the owner has to stop. Once true, it stays true."""
        if self._clock.monotonic_ms() - self.good_ms > self._margin_ms:
            self._ended = True
        return self._ended

    def renewed(self, *, asked_ms: int) -> None:
        """A renewal that was asked for at this monotonic time succeeded; it counts unless the tenure is over."""
        if not self.is_over:
            self.good_ms = max(self.good_ms, asked_ms)

    def end(self) -> None:
        """The owner stops from here on."""
        self._ended = True

    def require(self) -> None:
        """Nothing happens while the owner may start effects. Raises OwnershipLost afterwards."""
        if self.is_over:
            raise OwnershipLost(
                f"{self.lease.owner} could not renew its lease of {self.lease.stream} in time: it starts nothing more "
                "and leaves the stream to the next owner",
                stream=self.lease.stream,
                owner=self.lease.owner,
                epoch=self.lease.epoch,
            )
