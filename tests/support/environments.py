"""A front with environments in one process: one story deployed to `preview` and watches what runs there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from fastapi import FastAPI

from fleet.config.settings import ServeSettings
from fleet.deploy.memory import MemoryDeployments
from fleet.deploy.port import Placed
from fleet.desk.principals import PrincipalRegistry
from fleet.events.codec import decode
from fleet.events.workspace import DeploymentRecorded
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import Digest, EntityId, RunKey, StepId, StoryId
from fleet.owner.shard import CouncilShard
from fleet.owner.workbench import Workbench
from serve_apps.routes.gateway import build_gateway
from tests.support.bench import World, definitions
from tests.support.deployed import target_of
from tests.support.front import front_parts
from tests.support.rules import files
from tests.support.story_events import MERGED, STORY, created_payload, story
from tests.support.tool_front import REGISTRY, ROOT, keyed

URL = "/api/deployments"
NOW, BEFORE = RunKey("a" * 64), RunKey("b" * 64)
TARGET = target_of(expose=18_080, monitor={"window_s": 600, "checks": [target_of().monitor.checks[0].model_dump()]})
WHY = "it leaks memory"


@dataclass
class Site:
    """A front, and an owner of the story that deployed to `preview` and watches it."""

    world: World
    deployments: MemoryDeployments
    app: FastAPI
    client: httpx2.AsyncClient

    async def shown(self, who: dict[str, str] = ROOT) -> dict[str, Any]:
        """The only environment."""
        response = await self.client.get(URL, headers=who)
        assert response.status_code == 200, response.text
        (found,) = response.json()["items"]
        return found

    async def end(self, action: str, *, number: int = 1, who: dict[str, str] = ROOT, **body: Any) -> httpx2.Response:
        """A request to end what runs there."""
        given = {"reason": WHY, "revision": NOW} | body
        return await self.client.post(f"{URL}/preview/{action}", json=given, headers=keyed(number, who))

    async def recorded(self) -> list[DeploymentRecorded]:
        """What the story has of its deployments."""
        payloads = [decode(event) for event in await self.world.events()]
        return [one for one in payloads if isinstance(one, DeploymentRecorded)]


def placed(key: RunKey, story_id: StoryId = STORY) -> Placed:
    """The story's program under this key."""
    return Placed(key, story_id, Digest(MERGED), "python", TARGET)


@asynccontextmanager
async def site(
    *, registry: PrincipalRegistry = REGISTRY, deployments: MemoryDeployments | None = None, is_recorded: bool = True
) -> AsyncIterator[Site]:
    """Something ran before, and something of the story runs now.

    Args:
        is_recorded: the story has on record that it deployed it.
    """
    world, now = World(clock=SystemClock()), deployments or MemoryDeployments(now_ms=lambda: 1_767_323_045_000)
    await now.deploy(placed(BEFORE, StoryId("st-before")))
    await now.deploy(placed(NOW))
    log = story(until="merged", created=created_payload(lifecycle="sdlc", environment="preview"))
    log.move("TEST", "tests_done", "REVIEW").move("REVIEW", "review_approved", "DEPLOY")
    if is_recorded:
        log.add(
            DeploymentRecorded(
                deployment_id=EntityId("dp-first1"),
                environment="preview",
                tree_digest=MERGED,
                revision=NOW,
                status="succeeded",
                step_id=StepId("deployments/1"),
                rollback_ref=BEFORE,
                monitor_s=600,
            )
        ).move("DEPLOY", "deploy_done", "MONITOR")
    await log.write_to(world.log)

    async def bench(story_id: StoryId, epoch: int) -> Workbench:
        made = await world.bench(story_id, epoch)
        return replace(made, rules=replace(definitions(), targets=(TARGET,)), deployments=now)

    shard = CouncilShard(
        name="council:0",
        incarnation="a1",
        log=world.log,
        leases=world.leases,
        inbox=world.inbox,
        clock=world.clock,
        make_bench=bench,
        commands=world.commands,
        sweep_s=0.2,
        projects=world.brief_owners("council:0/a1"),
    )
    app = build_gateway(
        world.desk, registry, files().load("serve.yaml", ServeSettings), parts=front_parts(world, deployments=now)
    )
    task = asyncio.create_task(shard.run())
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://fleet") as client:
            yield Site(world, now, app, client)
    finally:
        await shard.drain()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
