"""A council shard: owns stories by lease and epoch, answers commands, and takes over stories without an owner.

Exclusivity is never assumed: the lease is liveness, and the epoch that every append carries is safety (GL-19).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from fleet.errors import FleetError, LeaseHeld, OwnershipError, Retry, StoreError
from fleet.ids import StoryId, StreamId
from fleet.ports import Answer, Clock, Delivery, EventLog, Inbox, Lease, LeaseStore
from fleet.services.commands import CommandHandler
from fleet.services.procedures.gates import take_ownership
from fleet.services.story_owner import StoryOwner
from fleet.services.workbench import Workbench

__all__ = ["CouncilShard", "ShardStatus"]

MakeBench = Callable[[StoryId, int], Awaitable[Workbench]]


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What the shard is at: ready or draining, and the stories it owns."""

    name: str
    owner: str
    state: str
    stories: tuple[str, ...]


@dataclass(slots=True)
class _Owned:
    lease: Lease
    owner: StoryOwner
    task: asyncio.Task[None]
    renewed_ms: int


class CouncilShard:
    """Runs until drained. One asyncio task per story; nothing here blocks the loop."""

    def __init__(
        self,
        *,
        name: str,
        incarnation: str,
        log: EventLog,
        leases: LeaseStore,
        inbox: Inbox,
        clock: Clock,
        make_bench: MakeBench,
        commands: CommandHandler,
        ttl_s: int = 15,
        sweep_s: float = 3.0,
    ) -> None:
        self.name, self.owner_id = name, f"{name}/{incarnation}"
        self._log, self._leases, self._inbox, self._clock = log, leases, inbox, clock
        self._make_bench, self._commands = make_bench, commands
        self._ttl_s, self._sweep_s = ttl_s, sweep_s
        self._owned: dict[StreamId, _Owned] = {}
        # Claiming is serial per shard: two deliveries for one stream must not raise its epoch twice.
        self._claiming = asyncio.Lock()
        self._draining = False

    def status(self) -> ShardStatus:
        """The shard's own view."""
        state = "draining" if self._draining else "ready"
        return ShardStatus(self.name, self.owner_id, state, tuple(str(s.entity) for s in self._owned))

    async def run(self) -> None:
        """Serve commands, renew leases and sweep, until `drain`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self._serve, pause_s=0))
            group.create_task(self._forever(self._renew, pause_s=self._ttl_s / 3))
            group.create_task(self._forever(self._sweep, pause_s=self._sweep_s))

    async def drain(self) -> None:
        """No story is worked on any more, and every lease is free."""
        self._draining = True
        for stream in list(self._owned):
            await self._drop(stream, release=True)

    async def _forever(self, duty: Callable[[], Awaitable[None]], *, pause_s: float) -> None:
        while not self._draining:
            try:
                await duty()
            except FleetError:
                # Outages are waited out: each duty looks at the whole state again the next time.
                await self._clock.sleep(1.0)
            if pause_s:
                await self._clock.sleep(pause_s)

    async def _serve(self) -> None:
        for delivery in await self._inbox.take(self.owner_id, timeout_s=2.0):
            answer = replace(await self._answer(delivery), request=delivery.command.request)
            await self._inbox.acknowledge(delivery, answer)

    async def _answer(self, delivery: Delivery) -> Answer:
        try:
            owned = await self._claim(delivery.command.stream)
            result = await self._commands.handle(owned.owner.bench, delivery.command)
            if delivery.command.name == "create_story":
                epoch = owned.lease.epoch
                await take_ownership(
                    owned.owner.bench, epoch=epoch, previous=epoch - 1, owner=self.owner_id, cause="new"
                )
            owned.owner.wake()
        except FleetError as error:
            await self._forget_nothing(delivery.command.stream)
            return Answer(ok=False, problem=error.to_wire())
        except Exception as error:
            message = f"command {delivery.command.name} failed with {type(error).__name__}: {error}"
            return Answer(ok=False, problem=FleetError(message).to_wire())
        return Answer(ok=True, result=result)

    async def _forget_nothing(self, stream: StreamId) -> None:
        """A stream that a refused command left without any event is not owned any longer."""
        owned = self._owned.get(stream)
        if owned is not None and not owned.owner.bench.journal.exists:
            await self._drop(stream, release=True)

    async def _claim(self, stream: StreamId) -> _Owned:
        async with self._claiming:
            known = self._owned.get(stream)
            if known is not None and not known.task.done():
                return known
            before = await self._log.head(stream)
            lease = await self._leases.claim(stream, self.owner_id, ttl_s=self._ttl_s)
            bench = await self._make_bench(StoryId(stream.entity), lease.epoch)
            owner = StoryOwner(bench)
            if bench.journal.exists and not bench.state.closed:
                cause = "expired" if before.epoch else "new"
                await take_ownership(bench, epoch=lease.epoch, previous=before.epoch, owner=self.owner_id, cause=cause)
            task = asyncio.create_task(self._work(stream, owner), name=f"story {stream.entity}")
            owned = _Owned(lease, owner, task, self._clock.monotonic_ms())
            self._owned[stream] = owned
            return owned

    async def _work(self, stream: StreamId, owner: StoryOwner) -> None:
        try:
            await owner.run()
        except Exception:
            # The task boundary of a story. Usually somebody else owns it, or the log is out of reach: write nothing
            # more, and let the lease end; the sweep of a shard looks at the story again.
            self._owned.pop(stream, None)
            return
        await self._release(stream)

    async def _release(self, stream: StreamId) -> None:
        owned = self._owned.pop(stream, None)
        if owned is not None:
            await self._leases.release(owned.lease)

    async def _drop(self, stream: StreamId, *, release: bool) -> None:
        owned = self._owned.pop(stream, None)
        if owned is None:
            return
        owned.task.cancel()
        await asyncio.gather(owned.task, return_exceptions=True)
        if release:
            await self._leases.release(owned.lease)

    async def _renew(self) -> None:
        for stream, owned in list(self._owned.items()):
            try:
                await self._leases.renew(owned.lease)
                owned.renewed_ms = self._clock.monotonic_ms()
            except OwnershipError:
                await self._drop(stream, release=False)
            except StoreError:
                # Self-fence well before the lease ends: a shard that cannot renew must not start effects.
                if self._clock.monotonic_ms() - owned.renewed_ms > self._ttl_s * 1000 * 2 // 3:
                    await self._drop(stream, release=False)

    async def _sweep(self) -> None:
        for stream in await self._log.open_streams():
            if not stream.startswith("story:") or stream in self._owned:
                continue
            try:
                await self._claim(stream)
            except LeaseHeld:
                continue
            except StoreError as error:
                # A stream that cannot be read stays as it is; the others must not wait for it.
                if error.retry is Retry.LATER:
                    raise

    def result_of(self, stream: StreamId) -> dict[str, Any]:
        """State and version of an owned story, for the status page."""
        owned = self._owned.get(stream)
        return (
            {}
            if owned is None
            else {"state": owned.owner.bench.state.state, "version": owned.owner.bench.state.version}
        )
