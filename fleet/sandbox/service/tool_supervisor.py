"""Runs by key: each key has one recorded result, whoever asks, how often, and after which crash (RC-51, RC-54)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, NotFound, SandboxUnavailable
from fleet.kernel.ids import RunKey, StoryId
from fleet.policy.runs.log_lines import LogLine
from fleet.policy.runs.spec import LiveFolder, RunResult, RunSpec
from fleet.sandbox.port import (
    Done,
    FolderKeeper,
    LogPage,
    Lost,
    Peers,
    RunLedger,
    RunLogs,
    Running,
    RunProgress,
    SandboxBackend,
    SandboxHealth,
)
from fleet.sandbox.service.keyed_work import KeyClaim, KeyedWork, Live
from fleet.sandbox.service.runs import LOST, RunRecords, RunSecrets, refused_result
from fleet.secrets.service import KnownSecrets, SecretBroker
from fleet.trees.port import BlobStore, DiskUse

_KEPT_LINES = 20_000
_BATCH = 500
_PAUSE_S = 0.05
_CLOSE_S = 5.0


class RunLines:
    """Lines between the backend that reads them and the store that readers look at.

    A store that does not answer costs live lines and nothing else: the log of the result has them all.

    Args:
        known: taken out of every line once more; the backend has done so for the secrets of this run.
    """

    def __init__(self, key: RunKey, logs: RunLogs | None, known: KnownSecrets) -> None:
        self._key, self._logs, self._known = key, logs, known
        self._lines: deque[LogLine] = deque(maxlen=_KEPT_LINES)
        self._more = asyncio.Event()

    def take(self, line: LogLine) -> None:
        """The line will be published; called by the backend on the event loop, never blocks and never fails."""
        if self._logs is not None:
            self._lines.append(line)
            self._more.set()

    async def publish(self) -> None:
        """Every line goes to the readers within a moment; runs until it is cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            with contextlib.suppress(FleetError):
                await self._flush()
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """The last lines are published, and the end of the run, if the store answers in time."""
        if self._logs is None:
            return
        with contextlib.suppress(FleetError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._flush()
                await self._logs.end(self._key)

    async def _flush(self) -> None:
        assert self._logs is not None
        while self._lines:
            batch = list(islice(self._lines, _BATCH))
            await self._logs.append(self._key, [self._redacted(line) for line in batch])
            # Only now: a flush that is cancelled is made again, and the store leaves out what it has.
            while self._lines and self._lines[0].n <= batch[-1].n:
                self._lines.popleft()

    def _redacted(self, line: LogLine) -> LogLine:
        # The backend took out what looks like a secret, and the values that this run was given.
        text = self._known.redact_values(line.line).text
        return line if text == line.line else line.model_copy(update={"line": text})


_QUEUE_AND_GRACE_S = 120
_POLL_S = 0.25
_MAX_POLL_S = 2.0
_REFUSED_WITHIN_S = 0.1
"""A run that cannot be started mostly fails at once: `submit` waits so long for that (RC-20)."""
_CANCEL_AGAIN_S = 0.05


class SupervisorLimits(NamedTuple):
    """How much a supervisor takes on, and how often it looks at the ledger; times in seconds."""

    max_runs: int = 1_000
    """Runs under way and waiting; one more is refused."""
    watch_s: float = 1.0
    """Between two looks whether the end of a run was asked for elsewhere."""
    renew_s: float = 60.0
    """Between two new deadlines of a run; a run that waits for its turn must not count as lost."""


class ToolSupervisor:
    """One sandbox backend behind the run ledger. Implements the port Sandbox.

    Args:
        name: of this supervisor in the ledger; a restarted one has the same name and takes its own runs up again.
        logs: where live lines are published; None publishes none.
        secrets: resolves the references of runs; None refuses runs that have any.
        known: the values that `secrets` registers, taken out of all text that comes back.
        peers: the others that share the ledger; a run that one of them has dropped is taken over at once. None knows
            nobody: then such a run waits for its deadline.
        folders: what keeps the folders of work sessions; None where nothing does.
        stored: what the blobs take on the disk of this node; None where they lie elsewhere.
    """

    def __init__(
        self,
        backend: SandboxBackend,
        ledger: RunLedger,
        blobs: BlobStore,
        clock: Clock,
        name: str,
        *,
        logs: RunLogs | None = None,
        secrets: SecretBroker | None = None,
        known: KnownSecrets | None = None,
        peers: Peers | None = None,
        limits: SupervisorLimits | None = None,
        folders: FolderKeeper | None = None,
        stored: Callable[[], Awaitable[DiskUse]] | None = None,
    ) -> None:
        self._folders, self._stored, self.name = folders, stored, name
        self._backend = backend
        self._ledger = ledger
        self._records = RunRecords(blobs)
        self._clock = clock
        self._logs = logs
        self._known = known or KnownSecrets()
        self._secrets = RunSecrets(secrets, self._known)
        self._limits = limits or SupervisorLimits()
        self._work = KeyedWork[RunResult](
            ledger, clock, name, read=self._records.get, admit=self._check_room, peers=peers
        )

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run the command once per key and say how it ended; goes on when the caller is cancelled.

        Raises:
            SandboxUnavailable: nothing could hold it, or too many runs wait; the key is free again.
            PolicyDenied: it refers to secrets that it may not have.
            OwnershipLost: a higher epoch was seen for the story.
            IdempotencyMismatch: the key names another specification.
        """
        self._secrets.check(spec)
        claim = _claim(spec, story=story, key=key, epoch=epoch)
        return await self._work.result(claim, partial(self._carry_out, spec, claim))

    async def submit(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunProgress:
        """Start the run, once per key, and return at once (RC-20). Raises like `run`.

        What goes wrong later is recorded as the run's result, because nobody waits for it; so is the loss of the run
        when this supervisor dies (RC-27).
        """
        self._secrets.check(spec)
        claim = _claim(spec, story=story, key=key, epoch=epoch, is_detached=True)
        match await self._work.attach(claim, partial(self._carry_out, spec, claim)):
            case Live() as live:
                return await self._begun(live)
            case Done(result):
                return _final(await self._records.get(result))
            case Running():
                return RunProgress("running")

    async def progress(self, key: RunKey, *, wait_s: float = 0) -> RunProgress:
        """Where the run is, at the latest after `wait_s` seconds (RC-21). Raises NotFound for an unknown key."""
        until_ms = self._clock.monotonic_ms() + int(wait_s * 1000)
        while True:
            left_s = max(0, until_ms - self._clock.monotonic_ms()) / 1000
            if (live := self._work.live.get(key)) is not None:
                done, _ = await asyncio.wait({live.task}, timeout=left_s)
                if not done:
                    return RunProgress("running")
            state = await self._found(key)
            if isinstance(state, Done):
                return _final(await self._records.get(state.result))
            if left_s <= 0:
                # An earlier life of ours ran it for a caller who will ask again: then it starts anew.
                is_waiting = state.supervisor == self._work.name and not self._is_live(key)
                return RunProgress("pending" if is_waiting or await self._work.is_dropped(key, state) else "running")
            await self._clock.sleep(min(left_s, _POLL_S))

    async def logs(self, key: RunKey, *, after: int = 0, limit: int = 500, wait_s: float = 0) -> LogPage:
        """Lines with a number above `after`: live ones, or those of the log once the run is over (RC-22).

        Raises NotFound for an unknown key.
        """
        until_ms = self._clock.monotonic_ms() + int(wait_s * 1000)
        while True:
            state = await self._found(key)
            if isinstance(state, Done):
                return await self._records.page(state.result, after=after, limit=limit)
            left_s = max(0, until_ms - self._clock.monotonic_ms()) / 1000
            lines = await self._live_lines(key, after=after, limit=limit, wait_s=min(left_s, _MAX_POLL_S))
            if lines.lines or left_s <= 0:
                return LogPage(lines.lines, is_over=False)
            if lines.is_over or self._logs is None:
                await self._clock.sleep(min(left_s, _POLL_S))

    async def cancel(self, key: RunKey) -> bool:
        """End the run of this key, also one of another supervisor (RC-24, RC-26); false when none is under way.

        Its result is recorded as `cancelled`. A run that is over keeps its result.
        """
        live = self._work.live.get(key)
        if live is not None:
            live.wants_end.set()
            return not live.has_ended
        try:
            state = await self._found(key)
        except NotFound:
            return False
        if isinstance(state, Done) or state.supervisor == self._work.name or await self._work.is_dropped(key, state):
            return False
        return await self._ledger.request_cancel(key)

    async def holds(self, key: RunKey) -> bool:
        """Whether this run is under way here. If not, what the ledger says of us is what an earlier life left."""
        async with self._work.lock(key):
            return self._is_live(key)

    async def health(self) -> SandboxHealth:
        """What the backend enforces on this node, and how much is under way (RC-25)."""
        health, disk = await self._backend.health(), await self.disk()
        return replace(health, active=self.active, total=self._work.total, capacity=self._limits.max_runs, disk=disk)

    async def disk(self) -> tuple[DiskUse, ...]:
        """What the fleet has on the disk of this node, kind by kind."""
        uses = await self._folders.usage() if self._folders is not None else ()
        uses = (*uses, await self._stored()) if self._stored is not None else uses
        return tuple(replace(use, node=self.name.removeprefix("sandbox:")) for use in uses)

    def keeps(self, place: LiveFolder) -> bool:
        """Whether a folder of this work session is on this node."""
        return self._folders is not None and self._folders.keeps(place)

    async def sweep(self) -> int:
        """Remove what dead runs left on this node; the number of things removed."""
        return await self._backend.sweep()

    @property
    def active(self) -> int:
        """Runs under way here."""
        return len(self._work.live)

    async def _check_room(self, key: RunKey) -> None:
        if len(self._work.live) < self._limits.max_runs or self._is_live(key):
            return
        # A key that is known needs no room.
        if await self._ledger.lookup(key) is None:
            raise SandboxUnavailable(
                f"{len(self._work.live)} runs are under way or waiting on {self._work.name}, which is all it takes; "
                "try again later, or raise sandbox.max_waiting",
                missing="room",
                active=len(self._work.live),
            )

    async def _found(self, key: RunKey) -> Running | Done:
        """What is known of the key. A detached run without a supervisor is recorded as lost (RC-27)."""
        state = await self._looked_up(key)
        if isinstance(state, Running) and state.is_detached and await self._work.is_dropped(key, state):
            # It may have ended, or given its key back, while we asked.
            again = await self._looked_up(key)
            return await self._lost(key) if again == state else again
        return state

    async def _looked_up(self, key: RunKey) -> Running | Done:
        async with self._work.lock(key):
            state = await self._ledger.lookup(key)
            match state:
                case None:
                    raise NotFound(f"no run has key {key}; check the key", run=key)
                case Lost():
                    return await self._lost(key)
                case Running(supervisor) if (
                    state.is_detached and supervisor == self._work.name and not self._is_live(key)
                ):
                    return await self._lost(key)
                case _:
                    return state

    def _is_live(self, key: RunKey) -> bool:
        return key in self._work.live

    async def _lost(self, key: RunKey) -> Done:
        digest = await self._records.put(LOST)
        return Done(await self._ledger.finish(key, epoch=0, supervisor=self._work.name, result=digest))

    # One run.

    async def _begun(self, live: Live[RunResult]) -> RunProgress:
        await asyncio.wait({live.task}, timeout=_REFUSED_WITHIN_S)
        if live.has_ended:
            return _final(await asyncio.shield(live.task))
        live.is_unattended = True
        return RunProgress("running")

    async def _carry_out(self, spec: RunSpec, claim: KeyClaim, live: Live[RunResult]) -> RunResult:
        key = claim.key
        lines = RunLines(key, self._logs, self._known)
        try:
            result = await self._tended(spec, live, key, lines)
        except (FleetError, asyncio.CancelledError) as error:
            if not (live.is_unattended and isinstance(error, FleetError)):
                # Nothing ran, or it was killed before an end. The backend's error is the one to tell.
                await self._work.forget(key)
                raise
            result = refused_result(error)
        recorded = await self._work.finish(claim, await self._records.put(result), result)
        # Not before: who reads the end of the lines finds a final status.
        await lines.close()
        return recorded

    async def _tended(self, spec: RunSpec, live: Live[RunResult], key: RunKey, lines: RunLines) -> RunResult:
        beside = [
            asyncio.create_task(lines.publish(), name=f"lines of run {key[:12]}"),
            asyncio.create_task(self._watch(live, key, _ttl_s(spec)), name=f"watch of run {key[:12]}"),
        ]
        try:
            delivery = await self._secrets.delivery(spec)
            return self._secrets.redacted(await self._backend.run(spec, run_id=key, log=lines.take, secrets=delivery))
        finally:
            live.has_ended = True
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _watch(self, live: Live[RunResult], key: RunKey, ttl_s: int) -> None:
        """The backend is told once the end was asked for, here or in the ledger. Until then the deadline moves on."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while not live.wants_end.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.watch_s):
                    await live.wants_end.wait()
                    break
            with contextlib.suppress(FleetError):  # a store that is down is asked again
                state = await self._ledger.lookup(key)
                if isinstance(state, Running) and state.supervisor == self._work.name and state.is_cancel_requested:
                    live.wants_end.set()
                if loop.time() - renewed >= self._limits.renew_s:
                    await self._ledger.renew(key, supervisor=self._work.name, ttl_s=ttl_s)
                    renewed = loop.time()
        # The backend does not know a run yet that still waits for its secrets or for the probes.
        while not await self._backend.cancel(key):
            await asyncio.sleep(_CANCEL_AGAIN_S)

    async def _live_lines(self, key: RunKey, *, after: int, limit: int, wait_s: float) -> LogPage:
        if self._logs is None:
            return LogPage((), is_over=False)
        return await self._logs.read(key, after=after, limit=limit, wait_s=wait_s)


def _claim(spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int, is_detached: bool = False) -> KeyClaim:
    return KeyClaim(
        key=key,
        story=story,
        epoch=epoch,
        spec=spec.digest,
        ttl_s=_ttl_s(spec),
        name=f"run {key[:12]}",
        is_detached=is_detached,
    )


def _ttl_s(spec: RunSpec) -> int:
    return spec.limits.overall_s + _QUEUE_AND_GRACE_S


def _final(result: RunResult) -> RunProgress:
    return RunProgress(result.status, result)
