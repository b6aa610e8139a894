"""Work by key on the run ledger: attach to it, take its record, or carry it out; one result per key (RC-51, RC-54)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, OutcomeUnknown
from fleet.kernel.ids import Digest, RunKey, StoryId
from fleet.sandbox.port import Claimed, Done, Peers, RunLedger, Running

T = TypeVar("T")

_POLL_S = 0.25
_MAX_POLL_S = 2.0
_FOREVER_S = 3_650 * 86_400
"""The claim of work that is never repeated outlives every reader: nobody claims it anew (RC-52)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaim:
    """What is claimed on the ledger."""

    key: RunKey
    story: StoryId
    epoch: int
    spec: Digest
    """What the key stands for; the ledger refuses the key for anything else."""
    ttl_s: int
    """Seconds after which the work counts as dead unless its claim is renewed."""
    name: str
    """Of the task, for whoever looks at the tasks of the process."""
    is_detached: bool = False
    """Nobody waits for it, so its loss is recorded."""
    unknown: Callable[[str], OutcomeUnknown] | None = None
    """Of work that is never repeated: the error for whoever finds that it was begun and has no end, by the reason."""


@dataclass(eq=False, slots=True)
class Live(Generic[T]):
    """Work under way in this process."""

    is_once: bool
    """It is never repeated, and so it is not cut off half-way either."""
    wants_end: asyncio.Event = field(default_factory=asyncio.Event)
    is_unattended: bool = False
    """Nobody waits for the task: what goes wrong has to be recorded."""
    has_ended: bool = False
    """Only the recording is left."""
    task: asyncio.Task[T] = field(init=False)


Work = Callable[[Live[T]], Coroutine[Any, Any, T]]


class KeyedWork(Generic[T]):
    """The work of one process behind the ledger.

    Args:
        name: of the process in the ledger; a restarted one has the same name and takes its own work up again.
        read: gives the recorded result of a digest.
        admit: raises when no work of a new key is taken on; asked before each claim.
        peers: the others that share the ledger; what one of them has dropped is taken over at once. None knows nobody:
            then such work waits for its deadline.
    """

    def __init__(
        self,
        ledger: RunLedger,
        clock: Clock,
        name: str,
        *,
        read: Callable[[Digest], Awaitable[T]],
        admit: Callable[[RunKey], Awaitable[None]] | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.name, self.live = name, dict[RunKey, Live[T]]()
        self.total = 0
        """Works that were begun here."""
        self._ledger, self._clock, self._read, self._admit, self._peers = ledger, clock, read, admit, peers
        # Claiming a key and registering its task are one step, or a second caller would take the first for dead.
        self._locks: WeakValueDictionary[RunKey, asyncio.Lock] = WeakValueDictionary()

    async def result(self, claim: KeyClaim, work: Work[T]) -> T:
        """The one result of the key; the work goes on when the caller is cancelled.

        Raises:
            OwnershipLost, IdempotencyMismatch: see `RunLedger.claim`.
            OutcomeUnknown: work that is never repeated was begun, and whoever did it is gone.
        """
        pause_s = _POLL_S
        while True:
            match await self.attach(claim, work):
                case Live() as live:
                    return await asyncio.shield(live.task)
                case Done(result):
                    return await self._read(result)
                case Running(deadline_ms=deadline_ms):
                    is_dead = deadline_ms - _FOREVER_S * 1000 < self._clock.now_ms()
                    if claim.unknown is not None and is_dead:
                        raise claim.unknown("whoever sent it is gone")
                    await self._clock.sleep(pause_s)
                    pause_s = min(2 * pause_s, _MAX_POLL_S)

    async def attach(self, claim: KeyClaim, work: Work[T]) -> Live[T] | Done | Running:
        """Who does the work of the key: a task here, which is begun if nobody does, or another process."""
        while True:
            holder = await self._claimed(claim, work)
            if not (isinstance(holder, Running) and await self.is_dropped(claim.key, holder)):
                return holder
            await self._ledger.drop(claim.key, holder)

    async def _claimed(self, claim: KeyClaim, work: Work[T]) -> Live[T] | Done | Running:
        key = claim.key
        async with self.lock(key):
            while True:
                if self._admit is not None:
                    await self._admit(key)
                holder = await self._ledger.claim(
                    key,
                    story=claim.story,
                    epoch=claim.epoch,
                    spec=claim.spec,
                    supervisor=self.name,
                    ttl_s=claim.ttl_s + (0 if claim.unknown is None else _FOREVER_S),
                    is_detached=claim.is_detached,
                )
                match holder:
                    case Claimed() if key not in self.live:
                        return self._begin(claim, work)
                    case Claimed():
                        # The ledger's clock ran ahead of our deadline: the work goes on, and is that of its key.
                        return self.live[key]
                    case Running(name) if name == self.name and key in self.live:
                        return self.live[key]
                    case Running(name) if name == self.name and claim.unknown is not None:
                        raise claim.unknown("an earlier life of this host sent it and died")
                    case Running(name) if name == self.name:
                        # An earlier life of ours claimed it, and its work died with it: it is done again.
                        await self._ledger.forget(key, supervisor=self.name)
                    case _:
                        return holder

    def _begin(self, claim: KeyClaim, work: Work[T]) -> Live[T]:
        live = self.live[claim.key] = Live[T](is_once=claim.unknown is not None)
        self.total += 1
        live.task = asyncio.create_task(work(live), name=claim.name)
        live.task.add_done_callback(lambda _: self._ended(claim.key, live))
        return live

    def _ended(self, key: RunKey, live: Live[T]) -> None:
        if self.live.get(key) is live:
            del self.live[key]
        if not live.task.cancelled():
            live.task.exception()  # every caller may be gone; then nobody else looks at it

    def lock(self, key: RunKey) -> asyncio.Lock:
        """Held while it is found out who does the work of the key."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def is_dropped(self, key: RunKey, holder: Running) -> bool:
        """Whether the process that the ledger names surely does not do the work.

        Never asked with the lock of the key held: the other one needs its own for the answer, and may ask us.
        """
        return (
            self._peers is not None
            and holder.supervisor != self.name
            and await self._peers.has_dropped(holder.supervisor, key)
        )

    async def finish(self, claim: KeyClaim, digest: Digest, result: T) -> T:
        """The recorded result of the key: this one, or the first one if another was recorded before."""
        recorded = await self._ledger.finish(claim.key, epoch=claim.epoch, supervisor=self.name, result=digest)
        return result if recorded == digest else await self._read(recorded)

    async def forget(self, key: RunKey) -> None:
        """The key is free again if the ledger answers: nothing was done under it, or it is done again."""
        with contextlib.suppress(FleetError):
            await self._ledger.forget(key, supervisor=self.name)
