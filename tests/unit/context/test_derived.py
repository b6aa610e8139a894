"""The log is the one truth: what is derived from it may be lost and is made again from it alone (GL-20)."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.context.port import PackRequest
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.graph.memory.graph import MemoryGraph
from fleet.kernel.ids import StreamId
from fleet.log.port import Snapshot
from fleet.report.service.reports import ReportService
from fleet.story.snapshot import encode_state, state_schema
from serve_apps.stream.routes import frame
from tests.support.bench import World
from tests.support.graphs import project
from tests.support.rules import files
from tests.support.story_events import STORY, TASK, StoryLog, story


async def derived(world: World, graph: MemoryGraph) -> dict[str, Any]:
    """Everything that people and roles are shown of the story."""
    await project(graph, await world.events())
    packs = ContextService(world.log, world.blobs, files().load("context.yaml", ContextConfig), clock=world.clock)
    version = (await world.log.head(StreamId.of_story(STORY))).version
    pack = await packs.pack(PackRequest(STORY, "developer", "BUILD", as_of=version, task_id=TASK))
    report = await ReportService(world.log, world.blobs).generate(STORY, format="md")
    return {
        "graph": await graph.digest(),
        "state": await world.desk.state(STORY),
        "owner": (await world.journal()).state,
        "pack": (pack.text, pack.hash),
        "report": (report[0], report[2]),
        "frames": [frame(event) for event in await world.desk.events(STORY)],
    }


def written() -> StoryLog:
    """A whole story, with every kind of fact that is shown of one."""
    return story(until="closed")


@pytest.mark.rule("GL-20", "RP-40", "EV-6")
async def test_graph_views_packs_reports_and_streams_are_made_again_from_the_log_alone():
    world = World()
    await written().write_to(world.log)
    before = await derived(world, MemoryGraph())
    assert len(before["frames"]) > 50
    # Another process, with empty caches, no snapshot and no graph, over the same log and its blobs.
    again = World(log=world.log)
    again.blobs = world.blobs
    assert await derived(again, MemoryGraph()) == before


@pytest.mark.rule("GL-20", "EV-6")
async def test_snapshot_that_does_not_match_the_log_is_not_believed():
    world = World()
    log = written()
    await log.write_to(world.log)
    before = (await world.journal()).state
    lying = before.with_(tokens=before.tokens + 1)
    head = await world.log.head(log.stream)
    for version, hash in ((head.version, "0" * 64), (head.version + 5, head.hash)):
        kept = Snapshot(version=version, hash=hash, schema=state_schema(), data=encode_state(lying))
        await world.snapshots.put(log.stream, kept)
        assert (await world.journal()).state == before
