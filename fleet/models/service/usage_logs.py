"""The usage logs of all engines of a fleet, read as they grow: what each story's calls really used (MB-32)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.kernel.ids import StoryId
from fleet.models.port import FinishedCall, UsageLog

_KEPT = 10_000
"""Calls of one engine that are remembered, as many as it keeps itself."""
_FRESH_MS = 2_000
"""Looks that come so soon after another share what it found: a shard has many stories."""
_WAIT_S = 15.0
"""Longest wait for one engine."""


@dataclass
class UsageLogs:
    """What engines said that they did, by engine id.

    An engine that does not answer is left out of this look; what it said before still counts, also when it was
    started again and has forgotten it. Calls of stories only: others are nobody's business here.

    Args:
        logs: by engine id and replica.
    """

    logs: Mapping[str, Mapping[str, UsageLog]]
    clock: Clock
    _known: dict[str, deque[FinishedCall]] = field(default_factory=dict[str, deque[FinishedCall]])
    _read_ms: int | None = None

    def __post_init__(self) -> None:
        # One look at a time: two that run side by side would take the same calls twice.
        self._looking = asyncio.Lock()

    async def calls_of(self, story_id: StoryId) -> dict[str, tuple[FinishedCall, ...]]:
        """The calls that ended for this story, by engine id. Those of engines that are out of reach may be missing."""
        async with self._looking:
            now_ms = self.clock.monotonic_ms()
            if self._read_ms is None or now_ms - self._read_ms >= _FRESH_MS:
                pairs = [(name, log) for replicas in self.logs.values() for name, log in replicas.items()]
                await asyncio.gather(*(self._look(name, log) for name, log in pairs))
                self._read_ms = now_ms
        begin = f"{story_id}/"
        return {
            engine: tuple(c for name in replicas for c in self._known.get(name, ()) if c.request_id.startswith(begin))
            for engine, replicas in self.logs.items()
        }

    async def _look(self, name: str, log: UsageLog) -> None:
        kept = self._known.setdefault(name, deque(maxlen=_KEPT))
        last = kept[-1] if kept else None
        try:
            async with asyncio.timeout(_WAIT_S):
                # One that is known already comes first, unless the log began anew or lost its start meanwhile.
                later = await log.usage(after=last.number - 1 if last else 0)
                if last is not None and later[:1] == (last,):
                    later = later[1:]
                elif last is not None:
                    later = await log.usage()
        except (FleetError, TimeoutError):
            return
        kept.extend(later)
