"""What a council shard says of the stories that it owns, and of the queue of commands, every few seconds."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError
from fleet.log.port import DeadLetters, HasBacklog
from fleet.owner.shard import ShardStatus
from fleet.remote.observed_log import ObservedLog
from fleet.telemetry.open_stories import ages_of
from fleet.telemetry.port import Meter

_EVERY_S = 10.0


class ShardFigures:
    """Gauges of one shard. The queues are those of the whole fleet: every shard says the same of them."""

    def __init__(
        self,
        look: Callable[[], ShardStatus],
        log: ObservedLog,
        *,
        meter: Meter,
        clock: Clock,
        inbox: HasBacklog,
        letters: DeadLetters,
    ) -> None:
        self._look, self._log, self._meter, self._clock = look, log, meter, clock
        self._inbox, self._letters = inbox, letters

    async def run(self) -> None:
        """Tells until it is cancelled; while the log store is away the gauges keep what was last known."""
        while True:
            self.tell_stories()
            with contextlib.suppress(FleetError):
                await self.tell_queues()
            await self._clock.sleep(_EVERY_S)

    def tell_stories(self) -> None:
        """The gauges say what the shard owns."""
        status = self._look()
        self._log.keep(status.stories)
        stories, shard = self._log.stories(status.stories), {"shard": status.name}
        self._meter.set("fleet_council_stories", len(status.stories), shard)
        self._meter.set("fleet_council_stories_left_alone", len(status.left_alone), shard)
        counts = Counter(story.disposition for story in stories)
        for disposition in ("active", "paused", "parked"):
            labels = {"disposition": disposition}
            self._meter.set("fleet_stories_open", counts[disposition], {**shard, **labels})
        for age, number in ages_of(stories, now_ms=self._clock.now_ms()).items():
            self._meter.set("fleet_approvals_pending", number, {**shard, "age": age})

    async def tell_queues(self) -> None:
        """The gauges say what waits; StoreUnavailable."""
        backlog = await self._inbox.backlog()
        self._meter.set("fleet_commands_waiting", backlog.pending)
        self._meter.set("fleet_commands_oldest_seconds", backlog.oldest_ms / 1000)
        self._meter.set("fleet_dead_letters", len(await self._letters.letters()))
