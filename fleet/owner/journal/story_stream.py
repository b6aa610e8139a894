"""The stream of one story in the hands of its owner: its state, its head, and the only way to append to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence

from fleet.events.codec import decode, encode
from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.events.payload import Payload
from fleet.kernel.clock import Clock
from fleet.kernel.errors import CommitUnknown, FleetError, LogRegressed, OwnershipLost, StoreError, VersionConflict
from fleet.kernel.ids import SYSTEM, CommandId, Principal, StoryId, StreamId
from fleet.log.port import Appended, AppendRequest, Duplicate, EventLog, Snapshot, SnapshotStore
from fleet.owner.tenure import Tenure
from fleet.story.evolve.story import fold
from fleet.story.snapshot import confirmed_state, encode_state, state_schema
from fleet.story.state import StoryState
from fleet.story.text import staleness

SNAPSHOT_EVERY = 200
"""Events between two snapshots (EV-6)."""
_APPEND_TRIES = 5
_FOLD_AT_ONCE = 100


class StoryStream:
    """Events in, state out. Nothing is appended once the owner's tenure is over."""

    def __init__(
        self,
        *,
        log: EventLog,
        clock: Clock,
        story_id: StoryId,
        epoch: int,
        snapshots: SnapshotStore | None = None,
    ) -> None:
        self._log, self.clock, self._snapshots = log, clock, snapshots
        self.story_id, self.stream = story_id, StreamId.of_story(story_id)
        self._epoch = epoch
        self._tenure: Tenure | None = None
        self._state: StoryState | None = None
        self._head = Head(epoch=epoch)
        self._snapped = 0
        self._commands: set[str] = set()
        self._watchers: list[Callable[[], None]] = []
        # One writer at a time: each append must name the head that the one before it left.
        self._lock = asyncio.Lock()

    @property
    def epoch(self) -> int:
        """Under which this owner holds the story."""
        return self._epoch

    @property
    def exists(self) -> bool:
        """Whether the story has any event."""
        return self._state is not None

    @property
    def state(self) -> StoryState:
        """The fold of everything recorded so far."""
        assert self._state is not None, f"story {self.story_id} has no events"
        return self._state

    async def payloads(self) -> list[Payload]:
        """Everything on record, in order; read from the log, for what the state does not keep."""
        return [payload for _, payload in await self.history()]

    async def history(self) -> list[tuple[StoredEvent, Payload]]:
        """As `payloads`, each with its event."""
        return [(event, decode(event)) for event in await self._log.read(self.stream)]

    def knows(self, command_id: CommandId) -> bool:
        """Whether events of this command are on record."""
        return command_id in self._commands

    def hold(self, tenure: Tenure) -> None:
        """Effects and appends are started within this tenure only."""
        self._tenure = tenure

    def admit(self) -> None:
        """An effect may be started now. Raises OwnershipLost when the tenure is over."""
        if self._tenure is not None:
            self._tenure.require()

    async def load(self) -> None:
        """State and head are those of the log; a snapshot that the log confirms saves folding from the start."""
        async with self._lock:
            if not (self._state is None and await self._restore()):
                await self._catch_up()
        await self._snapshot()

    async def _restore(self) -> bool:
        """Begin from the snapshot. False when there is none that the log confirms."""
        cached = await self._cached()
        if cached is None or self._snapshots is None:
            return False
        tail = await self._log.read(self.stream, after=cached.version - 1)
        if (state := confirmed_state(cached, tail)) is None:
            return False
        self._state, self._snapped = state, cached.version
        self._head = Head(version=cached.version, hash=cached.hash, epoch=self._epoch)
        self._commands.update(await self._log.commands(self.stream))
        await self._take(tail[1:])
        return True

    async def _cached(self) -> Snapshot | None:
        if self._snapshots is None:
            return None
        with contextlib.suppress(FleetError):
            snapshot = await self._snapshots.get(self.stream)
            return snapshot if snapshot and snapshot.version > 0 and snapshot.schema == state_schema() else None
        return None

    async def _catch_up(self) -> None:
        await self._take(await self._log.read(self.stream, after=self._head.version))

    async def _take(self, events: Sequence[StoredEvent]) -> None:
        for start in range(0, len(events), _FOLD_AT_ONCE):
            part = events[start : start + _FOLD_AT_ONCE]
            self._state = fold(part, self._state)
            self._commands.update(e.command_id for e in part)
            self._head = Head(version=part[-1].version, hash=part[-1].hash, epoch=self._epoch)
            # Other stories live in this loop; a long fold must not keep them from renewing their leases.
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def watched(self, look: Callable[[], None]) -> Generator[None]:
        """`look` is called after each append of this owner, until the block ends."""
        self._watchers.append(look)
        try:
            yield
        finally:
            self._watchers.remove(look)

    async def record(
        self,
        phase: str,
        *payloads: Payload,
        actor: Principal = SYSTEM,
        closes: bool = False,
        only_if: Callable[[StoryState], bool] | None = None,
    ) -> bool:
        """The payloads are stored under command id `<story>/<phase>`; False when that id was recorded before.

        Args:
            only_if: asked of the state that the append follows; where it says no, nothing is stored.
        """
        command_id = CommandId(f"{self.story_id}/{phase}")
        return await self.record_command(command_id, payloads, actor=actor, closes=closes, only_if=only_if)

    async def record_command(
        self,
        command_id: CommandId,
        payloads: tuple[Payload, ...],
        *,
        actor: Principal,
        closes: bool = False,
        trace_id: str = "",
        only_if: Callable[[StoryState], bool] | None = None,
    ) -> bool:
        """As `record`, for a command that brings its own id (an API command), and its trace.

        Raises:
            OwnershipLost: the tenure is over, or a higher epoch exists; nothing was stored.
            VersionConflict: the stream had grown, and the state is reloaded; or the payloads were decided on a state
                that is past (LC-8). Decide again.
            LogRegressed: the log lost events that this owner knows of; it takes no appends from here on (EV-19).
            CommitUnknown: every reply was lost; the same command id later (EV-18).
        """
        if command_id in self._commands:
            # It is folded too: the log would answer with what it has of this command, which is known here already.
            self.admit()
            return False
        events = [encode(p, trace_id=trace_id) for p in payloads]
        async with self._lock:
            self.admit()
            self._require_fresh(command_id, payloads)
            if only_if is not None and not only_if(self.state):
                return False
            try:
                outcome = await self._append(command_id, events, actor=actor, closes=closes)
            except VersionConflict:
                await self._require_history()
                await self._catch_up()
                raise
            except OwnershipLost as error:
                # A log that lost its tail has lost epochs too, and then fences the very owner that knows of the loss.
                if error.details.get("actual", self._epoch) < self._epoch:
                    await self._require_history()
                raise
            if isinstance(outcome, Appended):
                self._state = fold(outcome.events, self._state)
                self._commands.add(command_id)
                self._head = outcome.head
            else:
                await self._catch_up()
        for look in tuple(self._watchers):
            look()
        await self._snapshot()
        return isinstance(outcome, Appended)

    def _require_fresh(self, command_id: CommandId, payloads: tuple[Payload, ...]) -> None:
        # A command that is on record is answered from there, however old its decision is.
        if self._state is None or command_id in self._commands:
            return
        why = staleness(self._state, payloads)
        if why is not None:
            raise VersionConflict(f"{why}: decide again", actual=self._state.version, story_id=self.story_id)

    async def _append(
        self, command_id: CommandId, events: list[NewEvent], *, actor: Principal, closes: bool
    ) -> Appended | Duplicate:
        request = AppendRequest(
            stream=self.stream,
            events=events,
            expected=self._head,
            command_id=command_id,
            actor=actor,
            ts_ms=self.clock.now_ms(),
            closes=closes,
        )
        for attempt in range(1, _APPEND_TRIES + 1):
            try:
                return await self._log.append(request)
            except CommitUnknown:
                if attempt == _APPEND_TRIES or (self._tenure is not None and self._tenure.is_over):
                    raise
        raise AssertionError("unreachable")

    async def _require_history(self) -> None:
        """The log still holds what this owner knows of. Raises LogRegressed, and refuses the stream, otherwise."""
        head = self._head
        if head.version == 0:
            return
        events = await self._log.read(self.stream, after=head.version - 1, limit=1)
        if events and events[0].hash == head.hash:
            return
        what = "holds another event there" if events else "ends before it"
        reason = f"version {head.version} was acknowledged to the owner under epoch {self._epoch} and the log {what}"
        with contextlib.suppress(StoreError):
            await self._log.refuse(self.stream, reason=reason)
        raise LogRegressed(
            f"{self.stream} went back in time: {reason}; nothing more is written to it until an operator runs "
            f"`fleet accept-loss {self.stream}`",
            stream=self.stream,
            version=head.version,
        )

    async def _snapshot(self) -> None:
        """Keep the state for the next owner, now and then. A cache: nothing that goes wrong here matters."""
        if self._snapshots is None or self._state is None or self._head.version - self._snapped < SNAPSHOT_EVERY:
            return
        state, head = self._state, self._head
        # Set first, so that a store which does not answer is not asked again at once.
        self._snapped = head.version
        with contextlib.suppress(FleetError):
            await self._snapshots.put(
                self.stream,
                Snapshot(version=head.version, hash=head.hash, schema=state_schema(), data=encode_state(state)),
            )
