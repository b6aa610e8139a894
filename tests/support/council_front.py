"""A front whose shard works on one story in DRAFT, with councils whose members answer from a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.events.story import StoryScored
from fleet.events.task import TreeMerged
from fleet.kernel.clock import SystemClock
from fleet.kernel.errors import ModelUnavailable
from fleet.models.port import AgentRequest
from fleet.owner.shard import CouncilShard
from fleet.trees.tree import FileEntry, encode_tree
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import ScriptedAgents, World
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import CONTENT, PO, STORY, StoryLog, created_payload
from tests.support.tool_front import REGISTRY, ROOT, keyed
from tests.unit.owner.test_requested_councils import PATH, reported

START = f"/api/planner/stories/{STORY}/start"


def voters(vote: str, **others: Callable[[AgentRequest], dict[str, Any]]) -> ScriptedAgents:
    """Voters of one mind, and who answers other kinds of requests; for the rest there is nobody."""

    def answer(request: AgentRequest) -> dict[str, Any] | BaseException:
        if request.kind == "vote":
            return {"votes": [{"label": "A", "vote": vote, "reason": "so it seems"}]}
        return others[request.kind](request) if request.kind in others else ModelUnavailable("nobody else is there")

    return ScriptedAgents(answer)


async def _in_draft(world: World) -> None:
    """A story whose text is ready and whose repository was looked at; nobody started it yet."""
    blob = await world.blobs.put(b"def shout(text: str) -> str:\n    return text.upper()\n")
    tree = await world.blobs.put(encode_tree({PATH: FileEntry("100644", blob)}))
    log = StoryLog().add(created_payload(), actor=PO)
    log.add(StoryScored(content_digest=CONTENT, score="95", threshold="75", dor_ok=True, scorer_version="1"))
    log.move("BACKLOG", "create_story", "DRAFT")
    log.add(TreeMerged(base_digest=tree, result_digest=tree, commit="0a" * 20), reported(tree))
    await log.write_to(world.log)


@asynccontextmanager
async def council_front(agents: ScriptedAgents) -> AsyncGenerator[tuple[World, FastAPI, httpx2.AsyncClient]]:
    """The stores, the front over them, and a client of it; the shard works until the block ends."""
    world = World(clock=SystemClock(), agents=agents)
    settings = files().load("serve.yaml", ServeSettings)
    app = build_gateway(world.desk, REGISTRY, settings, parts=front_parts(world))
    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=world.bench,
        commands=world.commands,
        sweep_s=0.2,
        projects=world.brief_owners("council:0/a1"),
    )
    await _in_draft(world)
    task = asyncio.create_task(shard.run())
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            yield world, app, client
    finally:
        await shard.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def started(client: httpx2.AsyncClient, *delegate: str) -> None:
    """The story is started with these delegates."""
    found = await client.post(START, json={"repo": "/srv/text", "delegate": delegate}, headers=keyed(71, ROOT))
    assert found.status_code == 200, found.text
