"""A council shard: owns stories by lease and epoch, answers commands, and takes over stories without an owner.

Exclusivity is never assumed: the lease is liveness, and the epoch that every append carries is safety (GL-19).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol

from fleet.audit.port import Witness
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, LeaseHeld, LogRegressed, OwnershipError, OwnershipLost, Retry, StoreError
from fleet.kernel.ids import CommandId, StoryId, StreamId
from fleet.log.port import Answer, Command, Delivery, EventLog, Inbox, Lease, LeaseStore
from fleet.owner.commands.handler import CommandHandler, recorded_result
from fleet.owner.duties.gates import take_ownership
from fleet.owner.story_owner import StoryOwner
from fleet.owner.takeover import Defects, Patience, incarnations_of, may_be_the_killer, require_attested
from fleet.owner.tenure import Tenure
from fleet.owner.workbench import Workbench

MakeBench = Callable[[StoryId, int], Awaitable[Workbench]]

_LOG = logging.getLogger(__name__)
_COMMAND_PATIENCE_MS = 30_000
"""How long a command waits for a story of another shard before its sender is told."""
_PROBATION_TTLS = 10
"""How many times the life of a lease one suspect is waited for at most, when it neither gets on nor kills anything."""
_RENEWED_TOGETHER = 64
"""Leases that one call renews."""
_OUTAGE = 3
"""Streams in a row that the store does not answer for: then the whole store is away, and the sweep ends."""


class BriefOwner(Protocol):
    """Owns streams for the moment of each command."""

    async def handle(self, command: Command) -> dict[str, Any]:
        """The result of the command. Raises what the domain refuses, and LeaseHeld while another owner is at it."""
        ...

    async def work(self) -> None:
        """Whatever its streams owe beside commands is done."""
        ...


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What the shard is at: ready, draining, or superseded by a newer incarnation; and the stories it owns."""

    name: str
    owner: str
    state: str
    stories: tuple[str, ...]
    left_alone: dict[str, str] = field(default_factory=dict[str, str])
    """Stories that this incarnation does not work on any more, and why."""


@dataclass(slots=True)
class _Owned:
    lease: Lease
    owner: StoryOwner
    task: asyncio.Task[None]
    tenure: Tenure
    suspect_until_ms: int

    def is_on_probation(self, now_ms: int) -> bool:
        """Whether it is still to be seen that this story does not kill the process."""
        return self.suspect_until_ms > now_ms and self.owner.bench.state.takeovers_without_progress > 0


class CouncilShard:
    """Runs until drained. One asyncio task per story; nothing here blocks the loop.

    Args:
        incarnation: another one for each process of this shard.
        ttl_s: of a lease; it is renewed each third of it, and no effect is started two thirds after a good renewal.
        witness: what was attested about the log outside of it; None knows nothing.
        random: spreads the tries of several shards; seeded by the incarnation unless given.
        max_claims: most stories that one sweep takes.
    """

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
        witness: Witness | None = None,
        random: Random | None = None,
        max_claims: int = 128,
        projects: BriefOwner | None = None,
    ) -> None:
        self.name, self.owner_id = name, f"{name}/{incarnation}"
        self._log, self._leases, self._inbox, self._clock = log, leases, inbox, clock
        self._make_bench, self._commands, self._witness = make_bench, commands, witness
        self._ttl_s, self._sweep_s, self._max_claims, self._projects = ttl_s, sweep_s, max_claims, projects
        self._random = random or Random(self.owner_id)
        self._patience = Patience(clock, self._random)
        self._owned: dict[StreamId, _Owned] = {}
        self._defects = Defects(log, leases, clock, owner=self.owner_id, ttl_s=ttl_s)
        self._waiting_since: dict[CommandId, int] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._incarnations, self._rank = incarnations_of(name), 0
        # Claiming is serial per shard: two deliveries for one stream must not raise its epoch twice.
        self._claiming = asyncio.Lock()
        self._draining = self._superseded = False

    def status(self) -> ShardStatus:
        """The shard's own view."""
        state = "superseded" if self._superseded else "draining" if self._draining else "ready"
        left_alone = {str(s.entity): why for s, why in self._defects.left_alone.items()}
        return ShardStatus(self.name, self.owner_id, state, tuple(str(s.entity) for s in self._owned), left_alone)

    async def run(self) -> None:
        """Serve commands, renew leases and sweep, until `drain`, or until a newer incarnation of this shard started."""
        await self._forever(self._enlist, until=lambda: self._rank > 0)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._forever(self._serve))
            group.create_task(self._forever(self._renew, pause_s=self._ttl_s / 3))
            group.create_task(self._forever(self._guard, pause_s=self._ttl_s / 15))
            group.create_task(self._forever(self._sweep, pause_s=self._sweep_s))
            if self._projects is not None:
                group.create_task(self._forever(self._projects.work, pause_s=self._sweep_s))

    async def drain(self) -> None:
        """No story is worked on any more, and every lease is free."""
        self._draining = True
        for stream, owned in list(self._owned.items()):
            await self._drop(stream, owned)
            await self._leases.release(owned.lease)

    async def _forever(
        self, duty: Callable[[], Awaitable[None]], *, pause_s: float = 0, until: Callable[[], bool] = lambda: False
    ) -> None:
        said = ""
        while not (self._draining or until()):
            try:
                await duty()
                said = ""
            except Exception as error:
                # The task boundary of an actor. Outages are waited out, and a defect in one duty must not end the
                # others: each duty looks at the whole state again the next time.
                if said != (said := f"{type(error).__name__}: {error}"):
                    name = getattr(duty, "__name__", "a duty").strip("_")
                    # An outage says what it is; of a defect the place is what helps. Once, not each second.
                    place = None if isinstance(error, FleetError) else error
                    _LOG.warning("shard %s: %s failed and is tried again: %s", self.name, name, said, exc_info=place)
                await self._clock.sleep(1.0)
            if pause_s:
                await self._clock.sleep(pause_s)

    async def _enlist(self) -> None:
        lease = await self._leases.claim(self._incarnations, self.owner_id, ttl_s=self._ttl_s)
        self._rank = lease.epoch

    async def _require_newest(self) -> None:
        """No newer incarnation of this shard was started. Otherwise this one stops all its work (EV-4)."""
        if self._rank and (await self._log.head(self._incarnations)).epoch > self._rank:
            self._draining = self._superseded = True
            for stream, owned in list(self._owned.items()):
                await self._lose(stream, owned)
            raise OwnershipLost(f"a newer incarnation of {self.name} was started: {self.owner_id} stops its work")

    async def _serve(self) -> None:
        for delivery in await self._inbox.take(self.owner_id, timeout_s=2.0):
            try:
                answer = await self._answer(delivery)
            except FleetError:
                # An outage, or another owner: the command waits for whoever can carry it out (AP-43, EV-23).
                await self._inbox.defer(delivery)
                continue
            self._waiting_since.pop(delivery.command.command_id, None)
            await self._inbox.acknowledge(delivery, replace(answer, request=delivery.command.request))

    async def _answer(self, delivery: Delivery) -> Answer:
        command = delivery.command
        try:
            if self._projects is not None and not command.stream.startswith("story:"):
                return Answer(ok=True, result=await self._projects.handle(command))
            owned = await self._claim(command.stream, for_command=True)
            assert owned is not None
            bench = owned.owner.bench
            result = await self._commands.handle(bench, command)
            await take_ownership(bench, epoch=owned.lease.epoch, owner=self.owner_id)
            owned.owner.wake()
            if bench.state.disposition == "cancelled":
                await self._end(command.stream, owned)
        except FleetError as error:
            if self._is_to_wait(command.command_id, error):
                raise
            await self._forget_nothing(command.stream)
            if isinstance(error, LeaseHeld) and (recorded := await recorded_result(self._log, command)):
                return Answer(ok=True, result=recorded)
            return Answer(ok=False, problem=error.to_wire())
        except Exception as error:
            message = f"command {command.name} failed with {type(error).__name__}: {error}"
            return Answer(ok=False, problem=FleetError(message).to_wire())
        return Answer(ok=True, result=result)

    def _is_to_wait(self, command_id: CommandId, error: FleetError) -> bool:
        """Whether the error says nothing about the command, but about who may carry it out, and when."""
        if isinstance(error, LeaseHeld):
            since_ms = self._waiting_since.setdefault(command_id, self._clock.monotonic_ms())
            return self._clock.monotonic_ms() - since_ms < _COMMAND_PATIENCE_MS
        return isinstance(error, OwnershipError | StoreError) and error.retry is Retry.LATER

    async def _forget_nothing(self, stream: StreamId) -> None:
        """A stream that a refused command left without any event is not owned any longer."""
        owned = self._owned.get(stream)
        if owned is not None and not owned.owner.bench.journal.exists:
            await self._drop(stream, owned)
            await self._leases.release(owned.lease)

    async def _end(self, stream: StreamId, owned: _Owned) -> None:
        """The story was given up: its runs are killed, and it needs no owner (LC-93)."""
        await self._lose(stream, owned)
        await self._leases.release(owned.lease)

    async def _claim(self, stream: StreamId, *, for_command: bool = False) -> _Owned | None:
        """The story in this shard's hands. None when it is better left for later, which a command never is."""
        async with self._claiming:
            held = self._owned.get(stream)
            if held is not None and not held.task.done():
                return held
            await self._require_newest()
            # A sweep or a delivery that is under way would take again what `drain` has just freed for others.
            self._require_not_draining(stream)
            asked_ms = self._clock.monotonic_ms()
            lease = await self._leases.claim(stream, self.owner_id, ttl_s=self._ttl_s)
            try:
                self._require_not_draining(stream)
                owned = await self._open(lease, asked_ms, for_command=for_command)
                if owned is not None and self._draining:
                    # All that this shard had was dropped meanwhile, and nobody would renew for this one.
                    await self._drop(stream, owned)
                    self._require_not_draining(stream)
            except Exception:
                with contextlib.suppress(FleetError):
                    await self._leases.release(lease)
                raise
            if owned is None:
                await self._leases.release(lease)
            return owned

    def _require_not_draining(self, stream: StreamId) -> None:
        if self._draining:
            raise OwnershipLost(f"{self.owner_id} stopped its work before it had opened {stream}")

    async def _open(self, lease: Lease, asked_ms: int, *, for_command: bool) -> _Owned | None:
        stream = lease.stream
        await require_attested(self._log, self._witness, stream)
        bench = await self._make_bench(StoryId(stream.entity), lease.epoch)
        now_ms = self._clock.monotonic_ms()
        if now_ms - asked_ms > self._ttl_s * 1000 // 3:
            # A long story took a while to fold; nobody renews for it yet.
            await self._leases.renew(lease)
            asked_ms = now_ms
        tenure = Tenure(lease, self._clock, since_ms=asked_ms)
        bench.journal.hold(tenure)
        is_suspect = may_be_the_killer(bench, self.owner_id)
        if is_suspect and not for_command and any(o.is_on_probation(now_ms) for o in self._owned.values()):
            # One at a time: if one of them kills this process too, only that one has a third death to its name (LC-94).
            self._patience.postpone(stream, by_ms=1000)
            return None
        await take_ownership(bench, epoch=lease.epoch, owner=self.owner_id)
        owner = StoryOwner(bench)
        task = asyncio.create_task(self._work(stream, owner), name=f"story {stream.entity}")
        until_ms = now_ms + _PROBATION_TTLS * self._ttl_s * 1000 if is_suspect else 0
        owned = self._owned[stream] = _Owned(lease, owner, task, tenure, until_ms)
        if for_command:
            # Somebody looked after the story: it gets all its tries again.
            self._defects.forgive(stream)
        return owned

    async def _work(self, stream: StreamId, owner: StoryOwner) -> None:
        try:
            await owner.run()
        except Exception as error:
            # The task boundary of a story: whatever it was, the other stories of this shard go on.
            if (owned := self._taken_out(stream, owner)) is not None:
                await self._ended(stream, owned, error)
            return
        except asyncio.CancelledError:
            # Whoever ends a story here takes it out first. Otherwise nobody works on it: its lease is not renewed.
            if (owned := self._taken_out(stream, owner)) is not None:
                await self._ended(stream, owned, OwnershipLost(f"the owner of {stream} was cancelled from elsewhere"))
            raise
        if (owned := self._taken_out(stream, owner)) is not None:
            await self._leases.release(owned.lease)

    def _taken_out(self, stream: StreamId, owner: StoryOwner) -> _Owned | None:
        owned = self._owned.get(stream)
        return self._owned.pop(stream) if owned is not None and owned.owner is owner else None

    async def _ended(self, stream: StreamId, owned: _Owned, error: Exception) -> None:
        owned.tenure.end()
        match error:
            case OwnershipError():
                self._abandon(owned)
            case LogRegressed():
                self._patience.failed(stream, base_s=1.0, cap_s=5.0)
            case StoreError() if error.retry is Retry.LATER:
                self._patience.failed(stream, base_s=1.0, cap_s=5.0)
            case _:
                await self._met(stream, error)

    async def _met(self, stream: StreamId, error: Exception) -> None:
        self._patience.failed(stream, base_s=self._sweep_s, cap_s=60.0)
        await self._defects.met(stream, error)

    def _abandon(self, owned: _Owned) -> None:
        """The supervisors are told to kill the runs of this epoch, beside all else: they may be out of reach too."""
        journal = owned.owner.bench.journal
        if keys := journal.running:
            self._beside(journal.abandon(keys))

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _lose(self, stream: StreamId, owned: _Owned) -> None:
        """The story is somebody else's: its task ends, its runs are killed, and nothing more is written (GL-19)."""
        await self._drop(stream, owned)
        self._abandon(owned)

    async def _drop(self, stream: StreamId, owned: _Owned) -> None:
        owned.tenure.end()
        if self._owned.get(stream) is owned:
            del self._owned[stream]
        owned.task.cancel()
        await asyncio.gather(owned.task, return_exceptions=True)

    async def _renew(self) -> None:
        # Side by side: one answer that does not come must not cost the other stories their leases. Many in one call: a
        # shard of a thousand stories that asked for each by itself would be late with all of them, lose them to the
        # other shards, and they to it.
        held = list(self._owned.items())
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(held), _RENEWED_TOGETHER):
                group.create_task(self._renew_some(held[start : start + _RENEWED_TOGETHER]))

    async def _renew_some(self, some: Sequence[tuple[StreamId, _Owned]]) -> None:
        asked_ms = self._clock.monotonic_ms()
        try:
            lost = await self._leases.renew_all([owned.lease for _, owned in some])
        except StoreError:
            return  # `_guard` ends the stories when this goes on for too long
        for stream, owned in some:
            if stream in lost:
                await self._lose(stream, owned)
            else:
                owned.tenure.renewed(asked_ms=asked_ms)

    async def _guard(self) -> None:
        """Stories whose lease could not be renewed in time are let go, well before it ends (EV-4)."""
        for stream, owned in list(self._owned.items()):
            if owned.tenure.is_over:
                await self._lose(stream, owned)

    async def _sweep(self) -> None:
        await self._require_newest()
        refused = await self._log.refused()
        free = [s for s in await self._log.open_streams() if self._is_free(s) and s not in refused]
        self._random.shuffle(free)
        outages = 0
        for stream in free[: self._max_claims]:
            if self._is_late:
                return
            outages = 0 if await self._take_over(stream) else outages + 1
            if outages == _OUTAGE:
                return

    @property
    def _is_late(self) -> bool:
        """Whether a renewal is overdue: who cannot keep up with what it has takes nothing more."""
        now_ms = self._clock.monotonic_ms()
        return any(now_ms - owned.tenure.good_ms > self._ttl_s * 500 for owned in self._owned.values())

    def _is_free(self, stream: StreamId) -> bool:
        is_ours = stream in self._owned or stream in self._defects.left_alone
        return stream.startswith("story:") and not is_ours and self._patience.is_due(stream)

    async def _take_over(self, stream: StreamId) -> bool:
        """The story is worked on here, or is tried again later; False when the store does not answer."""
        try:
            if await self._claim(stream) is not None:
                self._patience.forget(stream)
        except LeaseHeld as error:
            self._patience.postpone(stream, by_ms=int(error.details.get("expires_in_ms", 0)))
        except (OwnershipError, LogRegressed):
            # A stream that went back is refused by the log, and found again once the loss was accepted.
            self._patience.failed(stream, base_s=1.0, cap_s=5.0)
        except StoreError as error:
            if error.retry is Retry.LATER:
                self._patience.failed(stream, base_s=1.0, cap_s=5.0)
                return False
            await self._met(stream, error)
        except Exception as error:
            # One story that cannot be read or planned must not keep the sweep from the others (LC-94).
            await self._met(stream, error)
        return True

    def result_of(self, stream: StreamId) -> dict[str, Any]:
        """State and version of an owned story, for the status page."""
        if (owned := self._owned.get(stream)) is None:
            return {}
        state = owned.owner.bench.state
        return {"state": state.state, "version": state.version}
