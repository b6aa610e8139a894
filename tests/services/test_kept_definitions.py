"""A story keeps the definitions that it began with, in the services that the product is composed of (GL-23)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.local.local_principals import ensure_principals, local_principal
from fleet.config.files import packaged_directory
from fleet.desk.planning import PlanningDesk
from fleet.events.approval import ApprovalRequested
from fleet.events.codec import decode
from fleet.events.story import ConfigMigrated
from fleet.kernel.digest import digest_of
from fleet.kernel.ids import SYSTEM, Principal, StoryId
from fleet.log.redis.connection import RedisClient, connect_redis
from fleet.owner.definitions import KEPT_FILES
from fleet.story.commands.request_approval import RequestApproval
from fleet.story.commands.text import CreateStory
from fleet.trees.memory import MemoryBlobStore
from fleet.wiring import council
from fleet.wiring.desk.desk import open_desk
from fleet.wiring.endpoints import Endpoints, kept_definitions
from fleet.wiring.stores import stores
from tests.support.bench import STORY_TEXT
from tests.support.endpoints import endpoints_at

OLD, NEW = StoryId("st-old1"), StoryId("st-new1")
pytestmark = pytest.mark.rule("GL-23", "EV-106")


@pytest.fixture
async def endpoints(tmp_path: Path, redis_url: str) -> AsyncIterator[Endpoints]:
    """A fleet of one shard with a configuration of its own."""
    ensure_principals(tmp_path / "principals.json")
    overlay = tmp_path / "config"
    overlay.mkdir()
    redis = connect_redis(redis_url)
    await redis.flushdb()
    yield endpoints_at(tmp_path, config=str(overlay), redis_url=redis_url, cache_url=redis_url, sweep_s=1)
    await redis.flushdb()
    await redis.aclose()


def scope_waits(endpoints: Endpoints, seconds: int) -> bytes:
    """The lifecycles in force ask for the scope of a story for so long; gives the file."""
    text = (packaged_directory() / "fsm.yaml").read_text()
    text, count = re.subn(r"(  approve_scope: \{.*?request_ttl_s: )\d+", rf"\g<1>{seconds}", text)
    assert count >= 1
    path = Path(endpoints.config or "") / "fsm.yaml"
    path.write_text(text)
    return path.read_bytes()


@asynccontextmanager
async def fleet(endpoints: Endpoints, incarnation: str) -> AsyncIterator[PlanningDesk]:
    """What people ask, with one shard behind it that was started with the files as they are now."""
    opened: list[RedisClient] = []

    def connect(url: str, **given: Any) -> RedisClient:
        # A shard keeps its connections as long as its process lives, which here lives on.
        opened.append(connect_redis(url, **given))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        for module in (council, stores):
            patch.setattr(module, "connect_redis", connect)
        shard = council.make_council_parts(endpoints, name="council:0", incarnation=incarnation).shard
    task = asyncio.create_task(shard.run())
    try:
        async with open_desk(endpoints) as desk:
            yield desk
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await shard.drain()
        for client in opened:
            await client.aclose()


async def create(desk: PlanningDesk, story_id: StoryId) -> None:
    me = Principal(local_principal())
    await desk.require(story_id, CreateStory(story=STORY_TEXT), principal=me, key=f"create-{story_id}")


async def asked_for_s(desk: PlanningDesk, story_id: StoryId) -> int:
    """How long a decision about the scope is waited for, asked for now."""
    me = Principal(local_principal())
    await desk.require(story_id, RequestApproval(gate="approve_scope"), principal=me, key=f"ask-{story_id}")
    event = next(e for e in await desk.events(story_id) if e.type == ApprovalRequested.type)
    asked = decode(event)
    assert isinstance(asked, ApprovalRequested)
    return round((asked.expires_at - event.ts_ms) / 1000)


async def test_edited_lifecycle_is_that_of_new_stories_and_a_running_one_keeps_its_own(endpoints: Endpoints) -> None:
    first = scope_waits(endpoints, 4000)
    async with fleet(endpoints, "1") as desk:
        await create(desk, OLD)
    scope_waits(endpoints, 500)
    async with fleet(endpoints, "2") as desk:
        await create(desk, NEW)
        assert await asked_for_s(desk, OLD) == 4000
        assert await asked_for_s(desk, NEW) == 500
        state = await desk.state(OLD)
        assert state.config["fsm.yaml"] == digest_of(first)
        assert desk.fsm_of(state).gates["approve_scope"].request_ttl_s == 4000
        assert desk.fsm_of(await desk.state(NEW)).gates["approve_scope"].request_ttl_s == 500
        assert [e for e in await desk.events(OLD) if e.type == ConfigMigrated.type] == []


async def test_story_whose_definitions_were_never_kept_follows_those_in_force_and_says_so(endpoints: Endpoints) -> None:
    first = scope_waits(endpoints, 4000)
    async with fleet(endpoints, "1") as desk:
        await create(desk, OLD)
    # As an earlier version left it, which wrote down digests alone.
    kept = [p for p in endpoints.blob_root.rglob("*") if p.is_file() and p.read_bytes() == first]
    assert len(kept) == 1
    kept[0].unlink()
    second = scope_waits(endpoints, 500)
    async with fleet(endpoints, "2") as desk:
        assert await asked_for_s(desk, OLD) == 500
        moves = [decode(e) for e in await desk.events(OLD) if e.type == ConfigMigrated.type]
        assert moves == [
            ConfigMigrated(file="fsm.yaml", from_digest=digest_of(first), to_digest=digest_of(second), by=SYSTEM)
        ]
    # What it follows now it keeps.
    scope_waits(endpoints, 900)
    async with fleet(endpoints, "3") as desk:
        state = await desk.state(OLD)
        assert state.config["fsm.yaml"] == digest_of(second)
        assert desk.fsm_of(state).gates["approve_scope"].request_ttl_s == 500


async def test_definitions_that_this_version_cannot_read_are_replaced_on_record(endpoints: Endpoints) -> None:
    present = scope_waits(endpoints, 500)
    blobs = MemoryBlobStore()
    other = {name: await blobs.put(endpoints.files.read(name)) for name in KEPT_FILES}
    other["fsm.yaml"] = await blobs.put(present + b"\nof_a_later_version: true\n")
    kept = kept_definitions(endpoints.files, blobs, targets=())
    await kept.learn(other)
    assert kept.of(other) is kept.present
    move = ConfigMigrated(file="fsm.yaml", from_digest=other["fsm.yaml"], to_digest=kept.digests["fsm.yaml"], by=SYSTEM)
    assert kept.moves(other) == (move,)
    # What it moved to is what it keeps: nothing is left to record.
    assert kept.moves(kept.digests) == ()
