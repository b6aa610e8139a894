"""Stories a minute with a mock model, by the number of council shards and of replicas of each role, as a curve.

A story is one council of five members and three rounds: 20 calls, four of each role, recorded in a log with fsync at
every write. Shards and replicas are Ray actors, so each is a process. A replica takes one call at a time and as long as
a model would for a short reply. The yardstick is the first point of the same run. Beside every point stands how far
each part was used while it was measured, which is what explains the bend:

- replicas: the time that they were at a call, of all the time that they had.
- shard: the processor time of the busiest one, of one core.
- log: appends a second, of those that 16 writers without anything else to do reach on the same server.
- cores: the time in which this machine's cores were at work, whoever it was for; how much of it was for the shards,
  replicas and log of this run is told beside it. What is left is Ray and the other programs of the machine.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.curve import Point, bend
from benchmarks.deliberation import MEMBERS, answer_of, council_bench, hold_council
from benchmarks.figures import Figure
from benchmarks.stores import append_one, log_store, question
from fleet.events.envelope import Head
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.redis.connection import connect_redis
from fleet.log.redis.log import RedisEventLog
from fleet.models.port import AgentAnswer, AgentRequest
from fleet.owner.workbench import Workbench

THINK_S = 0.05
STORIES_OF_A_REPLICA = 12
POINTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 8), (4, 8), (2, 1), (4, 1), (2, 4), (4, 4))
"""Shards and replicas of each role; first more replicas for one shard, then more shards, then what neither was for."""

_WRITERS, _WRITER_APPENDS = 16, 60


class Replica:
    """One role agent whose mock model takes its time and answers one call after the other."""

    def __init__(self) -> None:
        self._turn, self._busy_s = asyncio.Lock(), 0.0

    async def ask(self, request: AgentRequest) -> AgentAnswer:
        """The answer to one request."""
        async with self._turn:
            started = time.perf_counter()
            await asyncio.sleep(THINK_S)
            self._busy_s += time.perf_counter() - started
            return answer_of(request)

    async def spent(self) -> tuple[float, float]:
        """Seconds at a call, and of processor time, since its birth."""
        return self._busy_s, time.process_time()


class _Seats:
    """Port Agents for one story: the same replica of each role for all of its calls."""

    def __init__(self, handles: dict[str, Any]) -> None:
        self._handles = handles

    async def ask(self, request: AgentRequest, *, request_id: str, timeout_s: float) -> AgentAnswer:
        """See the port."""
        return await self._handles[request.role].ask.remote(request)


class Shard:
    """One council shard: holds the councils of its stories at the same time."""

    def __init__(self, url: str, replicas: dict[str, list[Any]]) -> None:
        self._url, self._replicas = url, replicas
        self._benches: list[Workbench] = []

    async def prepare(self, stories: list[tuple[int, str]], warm: str) -> None:
        """The stories are on record, and their councils are open; one more story was held before, to load all code."""
        await hold_council(await self._opened(0, warm))
        self._benches = [await self._opened(number, name) for number, name in stories]

    async def _opened(self, number: int, name: str) -> Workbench:
        seats = _Seats({role: handles[number % len(handles)] for role, handles in self._replicas.items()})
        return await council_bench(name, seats, RedisEventLog(connect_redis(self._url)))

    async def hold(self) -> float:
        """Every council has decided; seconds of processor time that this took."""
        before = time.process_time()
        await asyncio.gather(*(hold_council(bench) for bench in self._benches))
        return time.process_time() - before


async def measure(folder: Path, *, points: int = len(POINTS)) -> list[Figure]:
    """Stories a minute at the first `points` points, one after the other, and where the curve bends."""
    from cluster.local.ray_head import RayHead

    head = RayHead(folder / "ray", dashboard=False, cpus=os.cpu_count() or 1, store_mb=80)
    async with log_store(folder) as url:
        head.start()
        try:
            ceiling = await _log_ceiling(url)
            found: list[Point] = []
            for number, (shards, replicas) in enumerate(POINTS[:points], start=1):
                print(f"  {number} of {points}: {shards} shards, {replicas} replicas ...", file=sys.stderr, flush=True)
                found.append(await _point(url, shards, replicas, ceiling))
        finally:
            head.stop()
    return _figures(found)


def _figures(points: Sequence[Point]) -> list[Figure]:
    first = points[0].per_min
    figures = [
        Figure(
            f"stories, {p.shards} shards, {p.replicas} replicas of each role",
            p.per_min,
            "1/min",
            "first point",
            first,
            p.told,
        )
        for p in points
    ]
    found = bend(points)
    if found is None:
        return [*figures, Figure("bend of the curve", points[-1].per_min, "1/min", note="none so far: add points")]
    return [*figures, Figure("bend of the curve", found.at.per_min, "1/min", "first point", first, found.told)]


class _Spent(NamedTuple):
    busy_s: float
    cpu_s: float


class _Log(NamedTuple):
    appends: int
    cpu_s: float


@dataclass
class _Actors:
    """The processes of one point."""

    shards: list[Any]
    replicas: list[Any]

    @classmethod
    def started(cls, url: str, shards: int, replicas: int) -> _Actors:
        import ray

        actor: Any = ray.remote(Replica).options(num_cpus=0, max_concurrency=1_000)
        members = {role: [actor.remote() for _ in range(replicas)] for role in MEMBERS}
        council: Any = ray.remote(Shard).options(num_cpus=0)
        return cls(
            [council.remote(url, members) for _ in range(shards)], [one for each in members.values() for one in each]
        )

    async def spent(self) -> _Spent:
        found = await asyncio.gather(*(replica.spent.remote() for replica in self.replicas))
        return _Spent(sum(busy for busy, _ in found), sum(cpu for _, cpu in found))

    def end(self) -> None:
        import ray

        for handle in (*self.shards, *self.replicas):
            ray.kill(handle)


async def _point(url: str, shards: int, replicas: int, ceiling: float) -> Point:
    actors = _Actors.started(url, shards, replicas)
    count = STORIES_OF_A_REPLICA * replicas
    stories = [(number, f"st-{shards}-{replicas}-{number}") for number in range(count)]
    parts = [stories[number::shards] for number in range(shards)]
    warm = (f"st-warm-{shards}-{replicas}-{number}" for number in range(shards))
    await asyncio.gather(*(h.prepare.remote(p, w) for h, p, w in zip(actors.shards, parts, warm, strict=True)))
    replicas_were, log_was, cores_were = await actors.spent(), await _log(url), _cores()
    before = time.perf_counter()
    spent = await asyncio.gather(*(shard.hold.remote() for shard in actors.shards))
    took_s = time.perf_counter() - before
    cores, log, each = _cores(), await _log(url), await actors.spent()
    actors.end()
    use = {
        "replicas": (each.busy_s - replicas_were.busy_s) / (took_s * len(actors.replicas)),
        "shard": max(spent) / took_s,
        "log": (log.appends - log_was.appends) / took_s / ceiling,
        "cores": (cores.busy_s - cores_were.busy_s) / (cores.all_s - cores_were.all_s),
    }
    ours_s = sum(spent) + each.cpu_s - replicas_were.cpu_s + log.cpu_s - log_was.cpu_s
    return Point(shards, replicas, 60 * count / took_s, use, ours_s / (cores.busy_s - cores_were.busy_s))


class _Cores(NamedTuple):
    busy_s: float
    all_s: float


def _cores() -> _Cores:
    """Time of all cores of this machine so far."""
    # user, nice, system, idle, iowait, irq, softirq, steal
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    second = os.sysconf("SC_CLK_TCK")
    return _Cores((sum(ticks) - ticks[3] - ticks[4]) / second, sum(ticks) / second)


async def _log(url: str) -> _Log:
    """What the server has done so far; each append is one script."""
    client = connect_redis(url)
    try:
        told: dict[str, Any] = await client.info("commandstats")
        cpu: dict[str, Any] = await client.info("cpu")
    finally:
        await client.aclose()
    appends = sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))
    return _Log(appends, cpu["used_cpu_sys"] + cpu["used_cpu_user"])


async def _log_ceiling(url: str) -> float:
    """Appends a second of many writers without anything else to do."""
    client = connect_redis(url)
    log = RedisEventLog(client)

    async def write(stream: StreamId) -> None:
        head = Head()
        for number in range(_WRITER_APPENDS):
            head = await append_one(log, stream, head, question(number), ts_ms=number)

    try:
        started = time.perf_counter()
        await asyncio.gather(*(write(StreamId.of_story(StoryId(f"st-writer-{n}"))) for n in range(_WRITERS)))
        return _WRITERS * _WRITER_APPENDS / (time.perf_counter() - started)
    finally:
        await client.aclose()
