"""Many clients of one stream: each sees every event once and in order, also when its line is cut (AP-101, AP-102)."""

from __future__ import annotations

import pytest

from benchmarks.sse import TOKEN, Watcher, watch_all
from benchmarks.stores import append_one, question
from fleet.config.settings import ServeSettings
from fleet.desk.principals import PrincipalEntry, PrincipalRegistry, hash_token
from fleet.events.envelope import Head
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Principal, StoryId, StreamId
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World
from tests.support.rules import files
from tests.support.tool_front import serving

CLIENTS, BURST = 30, 12
STORY = StoryId("st-watched1")


class Watched:
    """A front over a log of one story, to which events are added by version."""

    def __init__(self) -> None:
        self.world, self.stream, self.head = World(clock=SystemClock()), StreamId.of_story(STORY), Head()
        registry = PrincipalRegistry(
            (
                PrincipalEntry(
                    principal=Principal("user:bench"), roles=frozenset({"po"}), token_sha256=hash_token(TOKEN)
                ),
            )
        )
        self.app = build_gateway(self.world.desk, registry, files().load("serve.yaml", ServeSettings))

    async def append(self, version: int) -> None:
        """The event of this version is recorded."""
        self.head = await append_one(self.world.log, self.stream, self.head, question(version - 1), ts_ms=version)


@pytest.mark.rule("AP-101", "AP-102")
async def test_clients_keep_their_order_and_lose_nothing_though_lines_are_cut():
    front = Watched()
    await front.append(1)
    async with serving(front.app) as url:
        port, path = int(url.rpartition(":")[2]), f"/api/events/stream?storyId={STORY}"
        watchers = [Watcher(port, path, cut_at=BURST // 2 if n % 3 == 0 else None) for n in range(CLIENTS)]
        seen = await watch_all(watchers, front.append, first=2, burst=BURST, single=2)
    assert seen.cuts == CLIENTS // 3
    assert all(one.cut_at is None for one in watchers), "a line was not cut"
    assert len(seen.delays_s) == 2 * CLIENTS


async def test_client_that_misses_an_event_is_found_out():
    """The check can fail: a client that begins behind the first event has not seen it."""
    front = Watched()
    await front.append(1)
    async with serving(front.app) as url:
        path = f"/api/events/stream?storyId={STORY}&after=story:{STORY}/1"
        late = Watcher(int(url.rpartition(":")[2]), path)
        with pytest.raises(AssertionError, match="1 of 1 clients saw something else"):
            await watch_all([late], front.append, first=2, burst=2, single=1)
