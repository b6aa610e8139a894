"""In-memory twin of the port RunLedger."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fleet.adapters.claiming import key_reused, run_fenced
from fleet.adapters.clock import SystemClock
from fleet.ids import Digest, RunKey, StoryId
from fleet.ports import Claimed, Clock, Done, Lost, Running

__all__ = ["MemoryRunLedger"]


@dataclass(frozen=True, slots=True)
class _Entry:
    spec: Digest | None
    state: Running | Done


class MemoryRunLedger:
    """Runs by key, kept as long as the object. Implements the port RunLedger.

    Args:
        clock: the store's clock, which deadlines are measured by.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._entries: dict[RunKey, _Entry] = {}
        self._epochs: dict[StoryId, int] = {}

    async def claim(
        self,
        key: RunKey,
        *,
        story: StoryId,
        epoch: int,
        spec: Digest,
        supervisor: str,
        ttl_s: int,
        is_detached: bool = False,
    ) -> Claimed | Running | Done:
        """Who runs the key (RC-54)."""
        seen = self._epochs.get(story, 0)
        if epoch < seen:
            raise run_fenced(key, story=story, epoch=epoch, seen=seen)
        entry = self._entries.get(key)
        if entry is not None and entry.spec not in (None, spec):
            raise key_reused(key, spec=spec, known=str(entry.spec))
        self._epochs[story] = epoch
        known = await self.lookup(key)
        if isinstance(known, Running | Done):
            return known
        running = Running(supervisor=supervisor, deadline_ms=self._deadline_ms(ttl_s), is_detached=is_detached)
        self._entries[key] = _Entry(spec, running)
        return Claimed()

    async def finish(self, key: RunKey, *, epoch: int, supervisor: str, result: Digest) -> Digest:
        """The recorded result of the key: the first one stays."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Done):
            return entry.state.result
        self._entries[key] = _Entry(entry.spec if entry else None, Done(result=result))
        return result

    async def lookup(self, key: RunKey) -> Running | Lost | Done | None:
        """What the ledger knows of the key; None also for one that is not detached and whose deadline has passed."""
        entry = self._entries.get(key)
        if entry is None or isinstance(entry.state, Done):
            return entry and entry.state
        if entry.state.deadline_ms > self._clock.now_ms():
            return entry.state
        return Lost(entry.state.supervisor) if entry.state.is_detached else None

    async def renew(self, key: RunKey, *, supervisor: str, ttl_s: int) -> None:
        """This supervisor's RUNNING entry has a new deadline."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Running) and entry.state.supervisor == supervisor:
            self._entries[key] = _Entry(entry.spec, replace(entry.state, deadline_ms=self._deadline_ms(ttl_s)))

    async def request_cancel(self, key: RunKey) -> bool:
        """Whoever runs the key finds the request at its next lookup."""
        found = await self.lookup(key)
        if isinstance(found, Running):
            self._entries[key] = _Entry(self._entries[key].spec, replace(found, is_cancel_requested=True))
        return isinstance(found, Running)

    async def forget(self, key: RunKey, *, supervisor: str) -> None:
        """Drop this supervisor's RUNNING entry; anything else stays."""
        entry = self._entries.get(key)
        if entry is not None and isinstance(entry.state, Running) and entry.state.supervisor == supervisor:
            del self._entries[key]

    async def drop(self, key: RunKey, found: Running) -> None:
        """Drop the RUNNING entry if it still is the one that was found."""
        entry = self._entries.get(key)
        if entry is None or not isinstance(entry.state, Running):
            return
        if (entry.state.supervisor, entry.state.deadline_ms) == (found.supervisor, found.deadline_ms):
            del self._entries[key]

    def _deadline_ms(self, ttl_s: int) -> int:
        return self._clock.now_ms() + ttl_s * 1000
