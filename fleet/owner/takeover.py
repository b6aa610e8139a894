"""Checks a story that a shard took before the shard works on it. Between tries it waits (EV-19, LC-94)."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field
from random import Random

from fleet.audit.port import Witness
from fleet.events.codec import encode
from fleet.events.envelope import Head
from fleet.events.story import StoryParked
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, LogCorrupted, LogRegressed, StoreError, UnsupportedSchema
from fleet.kernel.ids import SYSTEM, CommandId, StreamId
from fleet.log.port import AppendRequest, EventLog, Lease, LeaseStore
from fleet.owner.workbench import Workbench
from fleet.story.ownership import is_suspect
from fleet.story.plan import plan

MAX_DEFECTS = 3
"""Defects met in one story until this incarnation of the shard leaves it alone (LC-94)."""


def incarnations_of(shard: str) -> StreamId:
    """A name without events whose epoch counts the incarnations of the shard: each claims it once, when it starts."""
    slug = "-".join(re.findall("[a-z0-9]+", shard.lower()))
    return StreamId(f"project:pr-incarnations-of-{slug}")


@dataclass(slots=True)
class _Wait:
    tries: int = 0
    until_ms: int = 0


@dataclass(slots=True)
class Patience:
    """When a stream may be tried again: after each failure later, up to a cap, and never all at the same moment.

    Args:
        random: seeded by whoever composes the shard; no other chance enters the sweep.
    """

    clock: Clock
    random: Random
    _waits: dict[StreamId, _Wait] = field(default_factory=dict[StreamId, _Wait])

    def is_due(self, stream: StreamId) -> bool:
        """Whether the stream may be tried now."""
        wait = self._waits.get(stream)
        return wait is None or wait.until_ms <= self.clock.monotonic_ms()

    def failed(self, stream: StreamId, *, base_s: float, cap_s: float) -> int:
        """One more try failed; how many did in a row. The next waits `base_s`, doubled with each, at most `cap_s`."""
        wait = self._waits.setdefault(stream, _Wait())
        wait.tries += 1
        longest_s = min(base_s * 2 ** min(wait.tries - 1, 16), cap_s)
        wait.until_ms = self.clock.monotonic_ms() + int(longest_s * 1000 * self.random.uniform(0.5, 1.0))
        return wait.tries

    def postpone(self, stream: StreamId, *, by_ms: int) -> None:
        """The stream is not tried before this time and a little more; that is no failure."""
        wait = self._waits.setdefault(stream, _Wait())
        wait.until_ms = self.clock.monotonic_ms() + by_ms + int(self.random.uniform(0, 500))

    def forget(self, stream: StreamId) -> None:
        """All is well with the stream."""
        self._waits.pop(stream, None)


async def require_attested(log: EventLog, witness: Witness | None, stream: StreamId) -> None:
    """The log holds what was attested about the stream outside of it.

    Raises LogRegressed otherwise; the stream then takes no appends until an operator accepts the loss (EV-19).
    """
    attested = await witness.attested(stream) if witness is not None else None
    if attested is None or attested.version == 0:
        return
    events = await log.read(stream, after=attested.version - 1, limit=1)
    if events and events[0].hash == attested.hash:
        return
    what = "holds another event there" if events else "ends before it"
    reason = f"version {attested.version} was attested by a checkpoint and the log {what}"
    with contextlib.suppress(StoreError):
        await log.refuse(stream, reason=reason)
    raise LogRegressed(
        f"{stream} went back in time: {reason}; it is not worked on until an operator runs "
        f"`fleet accept-loss {stream}`",
        stream=stream,
        version=attested.version,
    )


def may_be_the_killer(bench: Workbench, owner: str) -> bool:
    """Whether one more crash would park this story, and it has work that could cause one."""
    if not bench.journal.exists or not is_suspect(bench.state, owner):
        return False
    return bool(plan(bench.state, bench.rules.fsm, now_ms=bench.now_ms))


class Defects:
    """Defects of ours, story by story: after three of them a story is parked and left alone by this incarnation.

    Its stream takes the park without a fold, since it may be the fold that fails.
    """

    def __init__(self, log: EventLog, leases: LeaseStore, clock: Clock, *, owner: str, ttl_s: int) -> None:
        self._log, self._leases, self._clock = log, leases, clock
        self._owner, self._ttl_s = owner, ttl_s
        self._counts: dict[StreamId, int] = {}
        self.left_alone: dict[StreamId, str] = {}
        """Stories that are not tried any more, and why."""

    def forgive(self, stream: StreamId) -> None:
        """Somebody looked after the story: it gets all its tries again."""
        self._counts.pop(stream, None)
        self.left_alone.pop(stream, None)

    async def met(self, stream: StreamId, error: Exception) -> None:
        """One more defect was met in this story; events that are too new for this reader count at once (EV-30)."""
        if isinstance(error, LogCorrupted):
            return  # nothing is written to a damaged stream; it is looked at again, for it may be restored
        count = self._counts[stream] = self._counts.get(stream, 0) + 1
        is_too_new = isinstance(error, UnsupportedSchema)
        if count < MAX_DEFECTS and not is_too_new:
            return
        self.left_alone[stream] = str(error)
        code = error.code if isinstance(error, FleetError) else FleetError.code
        payload = StoryParked(
            cause="unsupported_schema" if is_too_new else "internal_error",
            code=code,
            detail=(str(error) if is_too_new else f"working on it failed with {type(error).__name__}: {error}")[:4000],
        )
        with contextlib.suppress(FleetError):
            lease = await self._leases.claim(stream, self._owner, ttl_s=self._ttl_s)
            await self._park(lease, payload)
            await self._leases.release(lease)

    async def _park(self, lease: Lease, payload: StoryParked) -> None:
        head = await self._log.head(lease.stream)
        last = await self._log.read(lease.stream, after=head.version - 1, limit=1)
        if not last or last[0].type == StoryParked.type:
            return
        await self._log.append(
            AppendRequest(
                stream=lease.stream,
                events=[encode(payload)],
                expected=Head(version=head.version, hash=head.hash, epoch=lease.epoch),
                command_id=CommandId(f"{lease.stream.entity}/park/{payload.cause}/{head.version}"),
                actor=SYSTEM,
                ts_ms=self._clock.now_ms(),
            )
        )
