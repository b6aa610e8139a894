"""Stories a minute with a mock model, by the number of council shards and of replicas of each role.

A story is one council of five members and three rounds: 20 calls, four of each role, recorded in a log with fsync at
every write. Shards and replicas are Ray actors, so each is a process. A replica takes one call at a time and as long as
a model would for a short reply. The yardstick is what the replicas could do if nothing else took any time; the ratio
shows where something else holds the stories back: the shards, then the cores of this machine, then the log.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.deliberation import MEMBERS, answer_of, council_bench, hold_council
from benchmarks.figures import Figure
from benchmarks.stores import log_store
from fleet.adapters.redis import RedisEventLog, connect_redis
from fleet.ports import AgentAnswer, AgentRequest
from fleet.services.workbench import Workbench

__all__ = ["measure"]

THINK_S = 0.05
CALLS_OF_A_ROLE = 4
STORIES = 24
SHARDS, REPLICAS = (1, 2, 4), (1, 2, 4)


class Replica:
    """One role agent whose mock model takes its time and answers one call after the other."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def ask(self, request: AgentRequest) -> AgentAnswer:
        """The answer to one request."""
        async with self._turn:
            await asyncio.sleep(THINK_S)
            return answer_of(request)


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

    async def prepare(self, stories: list[tuple[int, str]]) -> None:
        """The stories are on record, and their councils are open."""
        log = RedisEventLog(connect_redis(self._url))
        for number, name in stories:
            seats = _Seats({role: handles[number % len(handles)] for role, handles in self._replicas.items()})
            self._benches.append(await council_bench(name, seats, log))

    async def hold(self) -> None:
        """Every council has decided."""
        await asyncio.gather(*(hold_council(bench) for bench in self._benches))


async def measure(folder: Path) -> list[Figure]:
    """Stories a minute for each number of shards and replicas, one after the other."""
    from cluster.local import RayHead

    head = RayHead(folder / "ray", dashboard=False, cpus=os.cpu_count() or 1, store_mb=80)
    async with log_store(folder) as url:
        head.start()
        try:
            return [await _cell(url, shards, replicas) for replicas in REPLICAS for shards in SHARDS]
        finally:
            head.stop()


async def _cell(url: str, shards: int, replicas: int) -> Figure:
    import ray

    actor: Any = ray.remote(Replica).options(num_cpus=0, max_concurrency=1_000)
    members = {role: [actor.remote() for _ in range(replicas)] for role in MEMBERS}
    council: Any = ray.remote(Shard).options(num_cpus=0)
    holders = [council.remote(url, members) for _ in range(shards)]
    stories = [(number, f"st-{shards}-{replicas}-{number}") for number in range(STORIES)]
    await asyncio.gather(*(h.prepare.remote(stories[n::shards]) for n, h in enumerate(holders)))
    before = time.perf_counter()
    await asyncio.gather(*(holder.hold.remote() for holder in holders))
    took_s = time.perf_counter() - before
    for handle in (*holders, *(one for each in members.values() for one in each)):
        ray.kill(handle)
    bound = 60 * replicas / (CALLS_OF_A_ROLE * THINK_S)
    name = f"stories, {shards} shards, {replicas} replicas of each role"
    return Figure(name, 60 * STORIES / took_s, "1/min", "replicas alone", bound)
