"""Runs by key: each key has one recorded result, whoever asks, how often, and after which crash (RC-51, RC-54)."""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakValueDictionary

from fleet.digest import canonical_json
from fleet.errors import FleetError
from fleet.ids import Digest, RunKey, StoryId
from fleet.ports import BlobStore, Claimed, Clock, Done, RunLedger, Running, SandboxBackend, SandboxHealth
from fleet.tools import RunResult, RunSpec

__all__ = ["ToolSupervisor"]

_QUEUE_AND_GRACE_S = 120
_POLL_S = 0.25
_MAX_POLL_S = 2.0


class ToolSupervisor:
    """One sandbox backend behind the run ledger. Implements the port Sandbox.

    Args:
        name: of this supervisor in the ledger; a restarted one has the same name and takes its own runs up again.
    """

    def __init__(self, backend: SandboxBackend, ledger: RunLedger, blobs: BlobStore, clock: Clock, name: str) -> None:
        self._backend = backend
        self._ledger = ledger
        self._blobs = blobs
        self._clock = clock
        self._name = name
        self._live: dict[RunKey, asyncio.Task[RunResult]] = {}
        # Claiming a key and registering its task are one step, or a second caller would take the first for dead.
        self._locks: WeakValueDictionary[RunKey, asyncio.Lock] = WeakValueDictionary()

    async def run(self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int) -> RunResult:
        """Run the command once per key and say how it ended; goes on when the caller is cancelled.

        Raises:
            SandboxUnavailable: nothing could hold it; the key is free again.
            OwnershipLost: a higher epoch was seen for the story.
            IdempotencyMismatch: the key names another specification.
        """
        pause_s = _POLL_S
        while True:
            found = await self._claim(spec, story=story, key=key, epoch=epoch)
            match found:
                case asyncio.Task():
                    return await asyncio.shield(found)
                case Done(result):
                    return await self._recorded(result)
                case Running():
                    await self._clock.sleep(pause_s)
                    pause_s = min(2 * pause_s, _MAX_POLL_S)

    async def cancel(self, key: RunKey) -> bool:
        """Kill the run of this key if it is under way here; its result is recorded as `cancelled`."""
        return key in self._live and await self._backend.cancel(key)

    async def health(self) -> SandboxHealth:
        """What the backend enforces on this node."""
        return await self._backend.health()

    async def sweep(self) -> int:
        """Remove what dead runs left on this node; the number of things removed."""
        return await self._backend.sweep()

    @property
    def active(self) -> int:
        """Runs under way here."""
        return len(self._live)

    async def _claim(
        self, spec: RunSpec, *, story: StoryId, key: RunKey, epoch: int
    ) -> asyncio.Task[RunResult] | Done | Running:
        ttl_s = spec.limits.overall_s + _QUEUE_AND_GRACE_S
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            while True:
                found = await self._ledger.claim(
                    key, story=story, epoch=epoch, spec=spec.digest, supervisor=self._name, ttl_s=ttl_s
                )
                match found:
                    case Claimed() if key not in self._live:
                        return self._start(spec, key, epoch)
                    case Claimed():
                        # The clock of the store ran ahead of our deadline: the run goes on, and is the one of its key.
                        return self._live[key]
                    case Running(supervisor) if supervisor == self._name and key in self._live:
                        return self._live[key]
                    case Running(supervisor) if supervisor == self._name:
                        # An earlier life of ours claimed it; its processes died with it.
                        await self._ledger.forget(key, supervisor=self._name)
                    case _:
                        return found

    def _start(self, spec: RunSpec, key: RunKey, epoch: int) -> asyncio.Task[RunResult]:
        task = self._live[key] = asyncio.create_task(self._carry_out(spec, key, epoch), name=f"run {key[:12]}")
        task.add_done_callback(lambda done: self._ended(key, done))
        return task

    def _ended(self, key: RunKey, task: asyncio.Task[RunResult]) -> None:
        if self._live.get(key) is task:
            del self._live[key]
        if not task.cancelled():
            task.exception()  # every caller may be gone; then nobody else looks at it

    async def _carry_out(self, spec: RunSpec, key: RunKey, epoch: int) -> RunResult:
        try:
            result = await self._backend.run(spec, run_id=key)
        except (FleetError, asyncio.CancelledError):
            # Nothing ran, or it was killed before an end. The backend's error is the one to tell.
            with contextlib.suppress(FleetError):
                await self._ledger.forget(key, supervisor=self._name)
            raise
        digest = await self._blobs.put(canonical_json(result))
        recorded = await self._ledger.finish(key, epoch=epoch, supervisor=self._name, result=digest)
        return result if recorded == digest else await self._recorded(recorded)

    async def _recorded(self, digest: Digest) -> RunResult:
        return RunResult.model_validate_json(await self._blobs.get(digest))
