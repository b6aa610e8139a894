"""F15 and F19: an owner that cannot reach the log, or whose wall clock is wrong. Another one takes over."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

import pytest
from redis.asyncio import Redis

from fleet.events.envelope import Head, StoredEvent
from fleet.kernel.errors import OwnershipLost
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.log import RedisEventLog
from fleet.story.state import StoryState
from tests.support.chaos_shards import Outside, RunningShard, SkewedClock, deliver, running_shard, state_of
from tests.support.fault_proxy import proxied
from tests.support.oracle import Effects, check, state_digest
from tests.support.sim_judge import NOT_COMPARED
from tests.support.stores import append_request, empty_database, eventually, own_database

pytestmark = pytest.mark.timeout(600)

Fault = Literal["silent", "held", "half_open"]
TAKEOVER_S = 90
"""How long after the end of a lease its story may be without an owner."""
SOME_EFFECTS = 8


async def is_over(client: Redis, story_id: StoryId) -> StoryState | None:
    """The story when it has ended; a park fails the test."""
    state = await state_of(client, story_id)
    assert state.park is None, state.park
    return state if state.closed else None


async def undisturbed(url: str) -> dict[StoryId, str]:
    """What the story comes to without any fault."""
    async with empty_database(url) as client, running_shard("council:peace", url, Outside(client), ttl_s=15):
        story_id = await deliver(client)
        state = await eventually(lambda: is_over(client, story_id), within_s=400)
        assert state
        return {story_id: state_digest(state, ignore=NOT_COMPARED)}


async def begun_by(shard: RunningShard, client: Redis, outside: Outside) -> StoryId:
    """A story that this shard, the only one, is in the middle of."""
    story_id = await deliver(client)
    assert await eventually(lambda: len(outside.started) >= SOME_EFFECTS, within_s=400)
    assert shard.stories == (story_id,)
    return story_id


def hands(events: list[StoredEvent]) -> list[str]:
    """The shards that held the story, one after the other."""
    owners = [json.loads(e.body)["owner"].partition("/")[0] for e in events if e.type == "OwnershipTaken"]
    return [owner for n, owner in enumerate(owners) if n == 0 or owner != owners[n - 1]]


def acknowledged(*shards: RunningShard) -> list[StoredEvent]:
    return [event for shard in shards for event in shard.log.acknowledged]


@pytest.mark.parametrize(
    ("fault", "ttl_s", "hole_s"),
    [
        ("held", 3, 0),
        pytest.param("silent", 3, 0, marks=pytest.mark.slow),
        pytest.param("half_open", 3, 0, marks=pytest.mark.slow),
        pytest.param("held", 15, 30, marks=pytest.mark.slow),
        pytest.param("silent", 15, 30, marks=pytest.mark.slow),
    ],
)
@pytest.mark.rule("EV-3", "EV-4", "EV-14", "GL-19")
async def test_owner_cut_off_from_the_log_starts_nothing_more_and_is_fenced_on_return(
    redis_url: str, fault: Fault, ttl_s: int, hole_s: int
) -> None:
    url, loop = own_database(redis_url), asyncio.get_running_loop()
    expected = await undisturbed(url) if hole_s else None
    async with empty_database(url) as client, proxied(url) as (proxy, through):
        outside = Outside(client)
        async with running_shard("council:first", through, outside, ttl_s=ttl_s) as first:
            story_id = await begun_by(first, client, outside)
            stream = StreamId.of_story(story_id)
            async with running_shard("council:second", url, outside, ttl_s=ttl_s) as second:
                before = await RedisEventLog(client).head(stream)
                setattr(proxy, f"is_{fault}", True)
                cut_s = loop.time()

                # It lets go by itself before its lease ends, and only then another one can take the story.
                assert await eventually(lambda: first.stories == (), within_s=ttl_s)
                assert second.stories == ()
                assert await eventually(lambda: second.stories == (story_id,), within_s=ttl_s + TAKEOVER_S)
                assert loop.time() - cut_s <= ttl_s + TAKEOVER_S
                assert await eventually(lambda: is_over(client, story_id), within_s=400)
                await asyncio.sleep(max(0.0, cut_s + hole_s - loop.time()))

                proxy.heal()
                with pytest.raises(OwnershipLost):
                    await first.log.append(append_request(stream, Head(before.version, before.hash, before.epoch)))
                answered = [(await first.log.head(stream)).epoch > before.epoch for _ in range(3)]
                assert first.stories == ()
        late = [e for e in outside.started if e.owner == "council:first" and e.at_s > cut_s + ttl_s * 2 / 3]
        assert late == []
        verdict = await check(
            RedisEventLog(client),
            acknowledged=acknowledged(first, second),
            effects=Effects(keyed=outside.forge.moved),
            expected=expected,
            ignore=NOT_COMPARED,
            endpoints={"head": answered},
            fired={"cut off": proxy.swallowed + proxy.held},
            sometimes={
                "fenced": first.log.outcomes["ownership_lost"],
                "both started effects": len({effect.owner for effect in outside.started}) == 2,
            },
        )
        # It changed hands once: nobody else takes it back from the second, who may renew its short lease too late.
        assert hands(verdict.events[stream]) == ["council:first", "council:second"]


@pytest.mark.parametrize("compares", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["fast", "compared"])
@pytest.mark.rule("EV-4", "GL-11")
async def test_wall_clocks_of_workers_decide_nothing_about_leases_and_order(redis_url: str, compares: bool) -> None:
    # Long enough that a busy machine does not hold up a renewal until the lease has truly ended.
    url, ttl_s, loop = own_database(redis_url), 9, asyncio.get_running_loop()
    expected = await undisturbed(url) if compares else None
    async with empty_database(url) as client:
        outside, fast, slow = Outside(client), SkewedClock(600), SkewedClock(-600)
        async with running_shard("council:fast", url, outside, ttl_s=ttl_s, clock=fast) as first:
            story_id = await begun_by(first, client, outside)
            async with running_shard("council:slow", url, outside, ttl_s=ttl_s, clock=slow) as second:
                # A lease that is renewed is respected, however late it is by the second shard's clock, or the first's.
                renewed_until = loop.time() + 1.5 * ttl_s
                outside.effect_s = 1.5
                fast.offset_s = -1200
                while loop.time() < renewed_until:
                    assert second.stories == ()
                    assert first.stories == (story_id,)
                    await asyncio.sleep(0.02)
                outside.effect_s = 0.03
                await first.die()
                died_s = loop.time()
                assert await eventually(lambda: second.stories == (story_id,), within_s=ttl_s + TAKEOVER_S)
                assert loop.time() - died_s <= ttl_s + TAKEOVER_S
                slow.offset_s = 600
                assert await eventually(lambda: is_over(client, story_id), within_s=400)
        log = RedisEventLog(client)
        stamps = [event.ts_ms for event in await log.read(StreamId.of_story(story_id))]
        back = sum(later < earlier - 60_000 for earlier, later in zip(stamps, stamps[1:], strict=False))
        verdict = await check(
            log,
            acknowledged=acknowledged(first, second),
            effects=Effects(keyed=outside.forge.moved),
            expected=expected,
            ignore=NOT_COMPARED,
            fired={"wall clock stepped back": back},
        )
        # A shard that a busy machine holds up past its short lease gives the story up by itself.
        assert verdict.takeovers >= 1
        (events,) = verdict.events.values()
        finished = [json.loads(event.body) for event in events if event.type == "StepFinished"]
        assert finished
        assert min(body["cost"]["latency_ms"] for body in finished) >= 0
