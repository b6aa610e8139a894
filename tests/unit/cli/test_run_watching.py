"""Who watches a story sits out an outage of the stores, and sees every event once."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from fleet.adapters.memory import MemoryFeed
from fleet.cli.output import Output
from fleet.cli.run import watch_patiently
from fleet.errors import StoreUnavailable
from fleet.ports import FeedHint
from fleet.services.planning_desk import PlanningDesk
from tests.support.bench import World
from tests.support.rules import fsm
from tests.support.story_events import STORY, story


class FeedThatIsAway(MemoryFeed):
    """A feed whose store does not answer the next `outages` waits."""

    outages = 0

    async def meanwhile(self) -> None:
        """What happens while it is away."""

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        if self.outages:
            self.outages -= 1
            await self.meanwhile()
            raise StoreUnavailable("the feed does not answer")
        return await super().wait(cursor, timeout_s=timeout_s)


async def _away(outages: int) -> tuple[World, PlanningDesk, FeedThatIsAway]:
    world = World()
    await story(until="created").write_to(world.log)
    feed = FeedThatIsAway(world.log)
    feed.outages = outages
    return world, PlanningDesk(log=world.log, inbox=world.inbox, feed=feed, clock=world.clock, fsm=fsm()), feed


async def test_outage_is_sat_out_and_every_event_is_seen_once(capsys: pytest.CaptureFixture[str]) -> None:
    world, desk, feed = await _away(1)
    feed.meanwhile = lambda: story(until="scored").write_to(world.log)
    seen: list[int] = []
    async with aclosing(watch_patiently(desk, STORY, Output(as_json=False), after=0)) as events:
        async for event in events:
            seen.append(event.version if event else 0)
            if 2 in seen:
                break
    assert seen == [1, 2]
    assert feed.outages == 0
    assert "the feed does not answer; trying again" in capsys.readouterr().err


async def test_outage_without_end_is_told() -> None:
    _, desk, _ = await _away(10)
    with pytest.raises(StoreUnavailable, match="does not answer"):
        async for _ in watch_patiently(desk, STORY, Output(as_json=False), after=0, patience_s=0):
            pass
