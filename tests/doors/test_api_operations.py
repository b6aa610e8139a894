"""Doors to the audit, to work that stands still, and to what a stream lost; the states are put there by the stores."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from cluster.local.record import find_running
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import MAX_ATTEMPTS, Failure
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.dead_letters import RedisDeadLetters
from fleet.log.redis.log import RedisEventLog
from tests.support.world import STORIES, World

pytestmark = pytest.mark.timeout(600)


def on_stores(world: World, work: Callable[[Redis, Redis], Awaitable[Any]]) -> Any:
    """The result of the work on the log store and the cache of the fleet."""
    running = find_running(world.home)
    assert running is not None

    async def body() -> Any:
        async with AsyncExitStack() as stack:
            clients = [connect_redis(url) for url in (running.addresses.redis_url, running.addresses.cache_url)]
            for client in clients:
                stack.push_async_callback(client.aclose)
            return await work(*clients)

    return asyncio.run(body())


@pytest.mark.door("POST /api/audit/verify", "GET /api/audit/status", "GET /api/audit/checkpoints")
def test_log_is_verified_against_its_checkpoints(world: World) -> None:
    world.create()  # nothing is signed of a log without events
    world.wait(lambda: world.get("/api/audit/checkpoints")["items"])
    world.post("/api/audit/verify")
    status = world.wait(
        lambda: (found := world.get("/api/audit/status"))["ended_at"] and not found["is_running"] and found
    )
    assert (status["is_clean"], status["findings"]) == (True, [])
    assert status["events"] >= status["streams"] > 0
    checkpoint = world.get("/api/audit/checkpoints", params={"limit": 1})["items"][0]
    assert checkpoint["note"].startswith("swe-fleet/log/")
    assert checkpoint["events"] > 0


@pytest.mark.door("GET /api/audit/events")
def test_events_are_shown_as_they_are_stored(world: World) -> None:
    story_id = world.create()
    found = world.get("/api/audit/events", params={"stream": story_id, "type": "StoryCreated"})
    (event,) = found["items"]
    assert (event["stream"], event["version"], event["actor"]) == (f"story:{story_id}", 1, "user:root")
    assert event["body"]["title"] == world.show(story_id)["title"]
    assert base64.b64decode(event["body_base64"])


@pytest.mark.door("GET /api/audit/proof/{story_id}/{version}")
def test_event_that_a_checkpoint_covers_is_proven(world: World) -> None:
    story_id = world.create()

    def proof() -> dict[str, Any] | None:
        response = world.client.get(f"/api/audit/proof/{story_id}/1")
        return world.get(f"/api/audit/proof/{story_id}/1") if response.is_success else None

    found = world.wait(proof)
    assert (found["format"], found["leaf"]["stream"], found["version"]) == ("swe-fleet/proof/1", f"story:{story_id}", 1)
    assert base64.b64decode(found["entries"][0]["fields"]["t"]) == b"StoryCreated"
    assert found["checkpoint"].startswith("swe-fleet/log/")


@pytest.mark.door("GET /api/dlq", "POST /api/dlq/{letter_id}/retry")
def test_dead_letter_is_shown_until_it_is_tried_again(world: World) -> None:
    stream = StreamId.of_story(StoryId(world.create()))
    failure = Failure("projector", stream, 1, code="log_corrupted", reason="no such field")

    async def park(log: Redis, cache: Redis) -> Any:
        for _ in range(MAX_ATTEMPTS):
            letter = await RedisDeadLetters(log, cache).failed(failure)
        return letter

    parked = on_stores(world, park)
    letter = next(one for one in world.get("/api/dlq")["items"] if one["letter_id"] == parked.letter_id)
    assert (letter["source"], letter["stream"], letter["code"]) == ("projector", stream, "log_corrupted")
    assert letter["attempts"] == MAX_ATTEMPTS
    assert world.post(f"/api/dlq/{parked.letter_id}/retry") == letter
    assert parked.letter_id not in [one["letter_id"] for one in world.get("/api/dlq")["items"]]


@pytest.mark.door("POST /api/streams/{stream}/accept-loss")
def test_stream_that_was_refused_takes_events_again_once_its_loss_is_accepted(world: World) -> None:
    story_id = world.create()
    stream = StreamId.of_story(StoryId(story_id))
    on_stores(world, lambda log, _: RedisEventLog(log).refuse(stream, reason="rolled back: for a test"))
    why = {"reason": "the disk of the store died"}
    try:
        assert world.post(f"{STORIES}/{story_id}/cancel", why, status=500)["code"] == "log_regressed"
    finally:
        loss = world.post(f"/api/streams/{story_id}/accept-loss", why)
    assert (loss["stream"], loss["is_new"], loss["refusal"]) == (stream, True, "rolled back: for a test")
    assert (loss["accepted_by"], loss["reason"]) == ("user:root", why["reason"])
    assert world.post(f"{STORIES}/{story_id}/cancel", why)["disposition"] == "cancelled"


@pytest.mark.door("GET /api/streams/consumers")
def test_consumers_of_streams_tell_what_waits_for_them(world: World) -> None:
    groups = {one["group"]: one for one in world.get("/api/streams/consumers")["items"]}
    assert {"council", "projector"} <= groups.keys()
    assert all(one["pending"] >= 0 and one["oldest_ms"] >= 0 and one["what"] for one in groups.values())
