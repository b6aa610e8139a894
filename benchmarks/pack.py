"""Context packs of a story with 10,000 events, and questions to a graph of 100,000 nodes and 300,000 relationships.

A pack is warm where the service holds the story at an older version and one event has come since; it is cold where a
new service has the snapshot of the story's owner, or not even that. Each figure stands next to the bare query of the
same store in the same run: every entry of the story's stream for a pack, one node by its id for a question.

The machine may be busy with other things: processor time of this process stands beside what the clock says.
PACK_SCALE=0.01 makes everything smaller by so much. PACK_TOKENIZERS names files (`tokenizer.json`, or weights as GGUF;
several with `:` between) that count the packs too: what that costs, and how far the estimate is from each count.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import neo4j
from redis.asyncio import Redis

from benchmarks.figures import Figure, percentile, table
from benchmarks.large_graph import LargeGraph, fill
from benchmarks.large_story import TASK, write_story
from benchmarks.pack_counts import counted_packs
from benchmarks.stores import append_one, log_store, question
from cluster.local.arcadedb import ArcadeDb
from fleet.config.files import ConfigFiles, packaged_directory
from fleet.context.port import PackRequest
from fleet.context.scope import ContextConfig
from fleet.context.service.packs import ContextService
from fleet.events.envelope import Head
from fleet.graph.neo4j.graph import Neo4jGraph
from fleet.kernel.clock import SystemClock
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import EventLog, Snapshot, SnapshotStore
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.keys import stream_key
from fleet.log.redis.log import RedisEventLog
from fleet.log.redis.snapshots import RedisSnapshotStore
from fleet.story.evolve.story import fold
from fleet.story.snapshot import encode_state, state_schema
from fleet.trees.files import FileBlobStore

SCALE = float(os.environ.get("PACK_SCALE", "1"))
EVENTS, STORIES = max(500, int(10_000 * SCALE)), max(5, int(1_000 * SCALE))
WARM_ROUNDS, COLD_ROUNDS, QUERY_ROUNDS = 100, 20, 40
STORY, STREAM = StoryId("st-large"), StreamId("story:st-large")
CELLS = (("developer", "BUILD"), ("architect", "DESIGN"), ("qa", "TEST"), ("po", "BUILD"))
SNAPSHOT_BEHIND = 150
"""Events since the owner's last snapshot; it takes one every 200."""
_PATIENCE_S = 60.0
"""For one reply: this measures, and does not fail because the machine is busy."""
_QUERIES: Mapping[str, tuple[str, ...]] = {
    "decision_trail": ("story_id",),
    "critical_decisions": ("story_id",),
    "decision_impact": ("decision_id",),
    "decision_cycles": ("story_id",),
    "plan_layers": ("plan_id",),
    "rehydration_pack": ("story_id", "role"),
    "report_data": ("story_id",),
    "unanswered_questions": ("now_ms", "story_id"),
    "who_approved": ("story_id",),
    "council_record": ("council_id",),
    "task_blockers": ("story_id",),
}
"""The questions of GR-80 to GR-90, and their parameters."""


async def measure(folder: Path) -> list[Figure]:
    """Packs first, told at once because the graph takes minutes to fill; then questions to it."""
    packs = await _packs(folder)
    print(table(packs), file=sys.stderr, flush=True)
    return [*packs, *await _questions(folder)]


@dataclass(slots=True)
class _Times:
    """Milliseconds by the clock and of the processor."""

    wall: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])

    async def of(self, work: Callable[[], Awaitable[Any]]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        await work()
        self.wall.append(1000 * (time.perf_counter() - wall))
        self.cpu.append(1000 * (time.process_time() - cpu))

    def figures(self, name: str, yardstick: str, bare: _Times, *, percent: int, note: str = "") -> list[Figure]:
        """One figure by the clock and one of the processor, each against the bare one of the same kind."""
        wall, cpu = percentile(self.wall, percent), percentile(self.cpu, percent)
        against = percentile(bare.wall, percent), percentile(bare.cpu, percent)
        return [
            Figure(f"{name} p{percent}", wall, "ms", yardstick, against[0], note),
            Figure(f"{name} p{percent}, processor", cpu, "ms", yardstick, against[1], note),
        ]


async def _packs(folder: Path) -> list[Figure]:
    async with log_store(folder) as url:
        client = connect_redis(url, timeout_s=_PATIENCE_S)
        try:
            return await _packs_of(client, folder)
        finally:
            await client.aclose()


async def _packs_of(client: Redis, folder: Path) -> list[Figure]:
    log, snapshots, blobs = RedisEventLog(client), RedisSnapshotStore(client), FileBlobStore(folder / "blobs")
    config = ConfigFiles(packaged_directory()).load("context.yaml", ContextConfig)

    def service(kept: SnapshotStore | None) -> ContextService:
        return ContextService(log, blobs, config, clock=SystemClock(), snapshots=kept)

    head = await write_story(log, STORY, events=EVENTS)
    await _keep_snapshot(log, snapshots, version=EVENTS - SNAPSHOT_BEHIND)
    bare, cold, coldest, warm, head_only = (_Times() for _ in range(5))
    for n in range(COLD_ROUNDS):
        await bare.of(lambda: _entries(client))
        await cold.of(lambda n=n: service(snapshots).pack(_request(n, as_of=EVENTS)))
    for n in range(max(3, COLD_ROUNDS // 5)):
        await coldest.of(lambda n=n: service(None).pack(_request(n, as_of=EVENTS)))
    held = service(snapshots)
    await held.pack(_request(0, as_of=EVENTS))
    for n in range(WARM_ROUNDS):
        head = await _one_more(log, head, n)
        await head_only.of(lambda: log.head(STREAM))
        await warm.of(lambda n=n: held.pack(_request(n, as_of=0)))
    whole, one = "every bare entry", "bare lookup of the head"
    return [
        *await counted_packs(client, folder, config, events=EVENTS, rounds=WARM_ROUNDS),
        *warm.figures("pack, warm, one event later,", one, head_only, percent=99, note="aim: 100 ms"),
        *cold.figures(f"pack, cold, {EVENTS} events, with snapshot,", whole, bare, percent=99, note="aim: 1 s"),
        *coldest.figures(f"pack, cold, {EVENTS} events, without,", whole, bare, percent=99),
    ]


async def _entries(client: Redis) -> None:
    """Every entry of the stream as the server has it, in pages as large as those of the log."""
    after = 0
    while page := await client.xrange(stream_key(STREAM, "log"), min=f"({after}-0", count=500):  # pyright: ignore
        after += len(page)  # pyright: ignore


async def _one_more(log: EventLog, head: Head, number: int) -> Head:
    return await append_one(log, STREAM, head, question(2 * number), ts_ms=1_800_000_000_000 + number)


async def _keep_snapshot(log: EventLog, snapshots: SnapshotStore, *, version: int) -> None:
    events = await log.read(STREAM, limit=version)
    state = fold(events)
    assert state is not None
    data = encode_state(state)
    await snapshots.put(STREAM, Snapshot(version=version, hash=events[-1].hash, schema=state_schema(), data=data))
    assert await snapshots.get(STREAM) is not None, f"a snapshot of {len(data)} bytes was not kept"


def _request(number: int, *, as_of: int) -> PackRequest:
    role, phase = CELLS[number % len(CELLS)]
    task = TASK if role == "developer" else None
    return PackRequest(story_id=STORY, role=role, phase=phase, as_of=as_of, task_id=task)


async def _questions(folder: Path) -> list[Figure]:
    server = ArcadeDb(folder / "graph", heap_mb=1024)
    await server.start()
    try:
        graph = Neo4jGraph.connect(server.address, user="root", password=server.password, database="neo4j")
        large = await fill(graph, stories=STORIES)
        await graph.close()
        # Started again, so that nothing is in its memory.
        await server.stop()
        await server.start()
        graph = Neo4jGraph.connect(server.address, user="root", password=server.password, database="neo4j")
        auth = ("root", server.password)
        async with neo4j.AsyncGraphDatabase.driver(server.address, auth=auth) as driver:  # pyright: ignore
            found = await _asked(graph, driver, large)
        await graph.close()
        return found
    finally:
        await server.stop()


async def _asked(graph: Neo4jGraph, driver: neo4j.AsyncDriver, large: LargeGraph) -> list[Figure]:
    note = f"{large.nodes} nodes, {large.relations} relationships"
    first, every, bare = dict[str, float](), {name: _Times() for name in _QUERIES}, _Times()
    for name in _QUERIES:
        one = _Times()
        await one.of(lambda name=name: graph.query(name, _params(name, large, 7)))
        first[name] = one.wall[0]
    for n in range(QUERY_ROUNDS):
        await bare.of(lambda n=n: _bare(driver, large.stories[n * 13 % len(large.stories)]))
        for name in _QUERIES:
            await every[name].of(lambda name=name, n=n: graph.query(name, _params(name, large, n * 13)))
    figures = [
        Figure("a question to the graph, the first after a start", max(first.values()), "ms", note=f"aim: 2 s; {note}")
    ]
    for name, times in every.items():
        figures += times.figures(f"graph: {name}", "bare lookup of a node", bare, percent=95, note="aim: 300 ms")[:1]
    return figures


async def _bare(driver: neo4j.AsyncDriver, story: str) -> None:
    async with driver.session(database="neo4j") as session:  # pyright: ignore
        result = await session.run("MATCH (s:Story {id: $id}) RETURN s.title AS title", id=story)
        await result.consume()


def _params(name: str, large: LargeGraph, number: int) -> dict[str, Any]:
    known = large.params(number)
    return {wanted: known[wanted] for wanted in _QUERIES[name]}
