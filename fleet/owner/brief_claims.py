"""Claims a stream for one append at a time. So any shard may write to it (EV-4, EV-17, GL-19)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from fleet.events.codec import encode
from fleet.events.payload import Payload
from fleet.kernel.clock import Clock
from fleet.kernel.errors import CommitUnknown, StoreError
from fleet.kernel.ids import CommandId, Principal, StreamId
from fleet.log.port import AppendRequest, EventLog, Lease, LeaseStore

_TRIES = 5


@dataclass(frozen=True, slots=True)
class BriefClaims:
    """Writes to streams under a lease that ends with the append.

    Args:
        owner: `<shard>/<incarnation>` for the leases.
        ttl_s: of a lease, for a process that dies between its claim and its append.
    """

    log: EventLog
    leases: LeaseStore
    clock: Clock
    owner: str
    ttl_s: int = 15

    async def record(
        self,
        stream: StreamId,
        command_id: CommandId,
        decide: Callable[[], Awaitable[Sequence[Payload]]],
        *,
        actor: Principal,
        trace_id: str = "",
    ) -> None:
        """What is decided under the lease is on record, once; `decide` looks at the stream as nobody else changes it.

        Raises what `decide` refuses, and LeaseHeld while another owner is at the stream.
        """
        async with self.leased(stream) as lease:
            # The head before the decision: who wrote in between is noticed by the append.
            head = replace(await self.log.head(stream), epoch=lease.epoch)
            request = AppendRequest(
                stream=stream,
                events=[encode(payload, trace_id=trace_id) for payload in await decide()],
                expected=head,
                command_id=command_id,
                actor=actor,
                ts_ms=self.clock.now_ms(),
            )
            for _ in range(_TRIES - 1):
                with suppress(CommitUnknown):
                    await self.log.append(request)
                    return
            await self.log.append(request)

    @asynccontextmanager
    async def leased(self, stream: StreamId, *, ttl_s: int | None = None) -> AsyncGenerator[Lease]:
        """The stream is this owner's until the block ends; LeaseHeld while it is another's."""
        lease = await self.leases.claim(stream, self.owner, ttl_s=ttl_s or self.ttl_s)
        try:
            yield lease
        finally:
            # A lease that cannot be given back ends by itself.
            with suppress(StoreError):
                await self.leases.release(lease)
